"""Heartbeat between the machines of a run, to detect one that is down or disconnected.

A process that dies closes its connections, and the others fail at once. A machine without power or
network does not: the others would wait until the timeout of a collective operation, half an hour.
Here each machine increments a counter in the rendezvous store.
"""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

DONE = 'done'
RENDEZVOUS = 'the machine of the rendezvous'


class Heartbeat:
    """Increment the counter of this machine, watch the others, and report one that stops.

    A lost machine is reported once, until it counts again or another replaces it.

    Args:
        connect: Returns a new connection to the rendezvous store of the run.
        missed: Is called in a thread for a lost machine: with a sentence, whether it is the one
            of the rendezvous (then this machine is disconnected), and the seconds of silence.
        seconds: Silence after which a machine is lost.
    """

    def __init__(
        self,
        connect: 'Callable[[], Store]',
        missed: Callable[[str, bool, float], object],
        seconds: float = 30,
    ) -> None:
        self.connect, self.missed, self.seconds = connect, missed, seconds
        self.heard: dict[str, float] = {}  # last heartbeat of each, by the clock of this machine
        self._over = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        threading.Thread(target=self._watch, daemon=True).start()
        self._sender.start()

    def stop(self) -> None:
        """End the heartbeat of this machine, which is not reported as lost."""
        self._over.set()
        self._sender.join(self.seconds / 6)

    def _send(self) -> None:
        """Count, and note who has counted; without an answer of the store, none has."""
        with suppress(Exception):  # _watch reports it when it lasts
            store = self.connect()
            me = store.add('machines', 1)
            name = socket.gethostname()
            last: dict[int, str] = {}
            beat = 0
            while not self._over.wait(self.seconds / 10):
                beat += 1
                store.set(f'beat {me}', f'{beat} {name}')
                self.heard[RENDEZVOUS] = time.monotonic()
                for other in range(1, store.add('machines', 0) + 1):
                    if other == me or not store.check([f'beat {other}']):
                        continue
                    value = store.get(f'beat {other}').decode()
                    number, _, whose = value.partition(' ')
                    if number == DONE:
                        self.heard.pop(f'machine {other} ({whose})', None)
                    elif last.setdefault(other, value) != value:  # not of a lost machine
                        last[other] = value
                        self.heard[f'machine {other} ({whose})'] = time.monotonic()
            store.set(f'beat {me}', f'{DONE} {name}')

    def _watch(self) -> None:
        while not self._over.wait(self.seconds / 10):
            now = time.monotonic()
            silent = {name: now - when for name, when in list(self.heard.items())}
            if max(silent.values(), default=0) <= self.seconds:
                continue
            # Without the store nothing is known of the others. Machines that are lost together are
            # reported together: they count ten times as often as this waits.
            cut_off = silent[RENDEZVOUS] > self.seconds / 2
            gone = [name for name in silent if silent[name] > self.seconds / 2]
            if cut_off:
                gone = [RENDEZVOUS]
                self._over.set()
            for name in gone:
                self.heard.pop(name, None)
            has = 'has' if len(gone) == 1 else 'have'
            message = f'{" and ".join(gone)} {has} not been heard of for {self.seconds:g} s'
            self.missed(message, cut_off, min(silent[name] for name in gone))
