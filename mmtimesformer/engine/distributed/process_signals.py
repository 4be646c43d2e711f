"""What a process that is started leaves to the one that started it: to end, and to be told to."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl
# By which clusters ask a run to stop, all of its processes at once; SIGHUP is a terminal that was
# closed, or a connection that was lost.
STOP_SIGNALS = [
    getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1', 'SIGHUP') if hasattr(signal, name)
]


def is_ignored(number: int) -> bool:
    """Whether this process was started so that it does not get a signal, as ``nohup`` does."""
    return signal.getsignal(number) is signal.SIG_IGN


def die_with_parent(parent: int, how: int = signal.SIGTERM) -> None:
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
def stop_signals_blocked() -> Iterator[None]:
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
