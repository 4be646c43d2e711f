"""Note SIGTERM, SIGUSR1 and SIGHUP during a training instead of ending the process."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmengine import dist

from mmtimesformer.engine.distributed.process_signals import (
    STOP_SIGNALS,
    StopRequested,
    is_ignored,
)


class StopSignals:
    """While entered, note signals that ask to stop; see :func:`stop_signals`.

    Attributes:
        received: The name and the time of the first such signal, or ``None``.
        may_end_wait: Whether a wait for data may be interrupted in a run of several processes; set
            only where all of them agree on the result afterwards.
    """

    def __init__(self) -> None:
        self.received: tuple[str, float] | None = None
        self.may_end_wait = False
        self._waits = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> 'StopSignals':
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._note)
                for number in STOP_SIGNALS
                if not is_ignored(number)
            }
        _entered.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _entered.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or (signal.Signals(number).name, time.monotonic())
        if self._waits:
            self._waits = False
            raise StopRequested

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal raise ``StopRequested`` in a wait for data, which leaves nothing half done.

        With several processes only if ``may_end_wait``: otherwise the others are within a step.
        """
        self._waits = self.may_end_wait or dist.get_world_size() == 1
        try:
            yield
        finally:
            self._waits = False

    def end_wait(self) -> None:
        """Raise ``StopRequested`` after a signal, under the conditions of :meth:`interrupting`."""
        if self.received is not None and (self.may_end_wait or dist.get_world_size() == 1):
            raise StopRequested


_entered: list[StopSignals] = []


def stop_signals() -> StopSignals:
    """Return the signals of the training in progress; outside of a training, none are noted."""
    return _entered[-1] if _entered else StopSignals()
