"""What a process that is started leaves to the one that started it: to end, and to be told to."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl
# By which clusters ask a run to stop, all of its processes at once.
STOP_SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name)]


def end_with_parent(parent: int, how: int = signal.SIGTERM) -> None:
    """Let this process get a signal when its parent ends; call it first thing in the child.

    Linux does that. Elsewhere nothing is done, and a parent must end its children itself.

    Args:
        parent: The parent's process number, which may be gone by now.
        how: The signal.
    """
    if sys.platform != 'linux':
        return
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, how)
    if os.getppid() != parent:
        os.kill(os.getpid(), how)


class StopRequested(BaseException):  # past ``except Exception``, like KeyboardInterrupt
    """A signal came that asks the run to stop, while it only waited."""


@contextmanager
def born_deaf() -> Iterator[None]:
    """Let processes that are started meanwhile not hear :data:`STOP_SIGNALS` from the first moment.

    Here the signals wait until the end. A child listens when it says so; where it could not tell
    who sent a signal (outside Linux) nothing is done.
    """
    if not hasattr(signal, 'sigwaitinfo'):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
