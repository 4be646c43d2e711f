"""Machines of a run hear from each other, so that one that vanishes is missed.

A process that dies closes its connections, and the others fail at once. A machine without power, or
behind a cable that was pulled, says nothing: the others wait for it as long as a collective
operation may take, half an hour. Here each machine counts up a number in the store where they met.
"""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

DONE = 'done'
MEETING = 'the machine where all meet'


class Heartbeat:
    """Counts for this machine, listens to the others, and tells when one is missed.

    One that is missed is forgotten until it counts again, or another takes its place.

    Args:
        connect: Returns a store of its own, in which all machines of the run meet.
        missed: Is called in a thread when one has not been heard of: with a sentence, whether it is
            the machine where all meet, that is, whether this one is cut off, and for how many
            seconds.
        seconds: How long one may be silent.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        missed: Callable[[str, bool, float], object],
        seconds: float = 30,
    ) -> None:
        self.connect, self.missed, self.seconds = connect, missed, seconds
        self.heard: dict[str, float] = {}  # when each was last heard of, by the clock of this one
        self._over = threading.Event()
        self._talker = threading.Thread(target=self._talk, daemon=True)
        threading.Thread(target=self._listen, daemon=True).start()
        self._talker.start()

    def stop(self) -> None:
        """Take leave: from now on this machine is silent and not missed."""
        self._over.set()
        self._talker.join(self.seconds / 6)

    def _talk(self) -> None:
        """Count, and note who has counted; a store that does not answer leaves all unheard."""
        with suppress(Exception):  # told by _listen, when it has lasted
            store = self.connect()
            me = store.add('machines', 1)
            name = socket.gethostname()
            last: dict[int, str] = {}
            beat = 0
            while not self._over.wait(self.seconds / 10):
                beat += 1
                store.set(f'beat {me}', f'{beat} {name}')
                self.heard[MEETING] = time.monotonic()
                for other in range(1, store.add('machines', 0) + 1):
                    if other == me or not store.check([f'beat {other}']):
                        continue
                    said = store.get(f'beat {other}').decode()
                    number, _, whose = said.partition(' ')
                    if number == DONE:
                        self.heard.pop(f'machine {other} ({whose})', None)
                    elif last.setdefault(other, said) != said:  # not what one left that is gone
                        last[other] = said
                        self.heard[f'machine {other} ({whose})'] = time.monotonic()
            store.set(f'beat {me}', f'{DONE} {name}')

    def _listen(self) -> None:
        while not self._over.wait(self.seconds / 10):
            now = time.monotonic()
            silent = {name: now - when for name, when in list(self.heard.items())}
            if max(silent.values(), default=0) <= self.seconds:
                continue
            # Without an answer from there nothing can be known of the others. Of several that
            # vanish at once, all are told at once: they count ten times as often as this waits.
            cut_off = silent[MEETING] > self.seconds / 2
            gone = [name for name in silent if silent[name] > self.seconds / 2]
            if cut_off:
                gone = [MEETING]
                self._over.set()
            for name in gone:
                self.heard.pop(name, None)
            has = 'has' if len(gone) == 1 else 'have'
            told = f'{" and ".join(gone)} {has} not been heard of for {self.seconds:g} s'
            self.missed(told, cut_off, min(silent[name] for name in gone))
