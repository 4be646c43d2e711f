"""Machines of a run hear from each other, so that one that vanishes is missed.

A process that dies closes its connections, and the others fail at once. A machine without power, or
behind a cable that was pulled, says nothing: the others wait for it as long as a collective
operation may take, half an hour. Here each machine counts up a number in the store where they met.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

DONE = 'done'
MEETING = 'the machine where all meet'


class Heartbeat:
    """Counts for this machine, listens to the others, and tells once when one is missed.

    Args:
        connect: Returns a store of its own, in which all machines of the run meet.
        missed: Is called in a thread when one has not been heard of: with a sentence, and whether
            it is the machine where all meet, that is, whether this one is cut off.
        seconds: How long one may be silent.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        missed: Callable[[str, bool], object],
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
            last: dict[int, bytes] = {}
            beat = 0
            while not self._over.wait(self.seconds / 10):
                beat += 1
                store.set(f'beat {me}', str(beat))
                self.heard[MEETING] = time.monotonic()
                for other in range(1, store.add('machines', 0) + 1):
                    if other == me or not store.check([f'beat {other}']):
                        continue
                    said = store.get(f'beat {other}')
                    name = f'machine {other}, in the order in which they came,'
                    if said == DONE.encode():
                        self.heard.pop(name, None)
                    elif said != last.get(other):
                        last[other] = said
                        self.heard[name] = time.monotonic()
            store.set(f'beat {me}', DONE)

    def _listen(self) -> None:
        while not self._over.wait(self.seconds / 10):
            now = time.monotonic()
            silent = {name: now - when for name, when in list(self.heard.items())}
            longest = max(silent, key=silent.__getitem__, default=MEETING)
            if silent.get(longest, 0) > self.seconds:
                # Without an answer from there nothing can be known of the others.
                cut_off = silent[MEETING] > self.seconds / 2
                name = MEETING if cut_off else longest
                self._over.set()
                self.missed(f'{name} has not been heard of for {self.seconds:g} s', cut_off)
                return
