"""Signals between parent and child processes: end with the parent, leave stop signals to it."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl
# Clusters send them to all processes of a run to stop it; SIGHUP comes when a terminal closes.
STOP_SIGNALS = [
    getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1', 'SIGHUP') if hasattr(signal, name)
]


def is_ignored(number: int) -> bool:
    """Whether this process was started with a signal ignored, as by ``nohup``."""
    return signal.getsignal(number) is signal.SIG_IGN


def die_with_parent(parent: int, how: int = signal.SIGTERM) -> None:
    """Send this process a signal when its parent ends; call it first in the child.

    Linux only. Elsewhere nothing is done, and a parent must end its children itself. The parent may
    have ended already.
    """
    if sys.platform != 'linux':
        return
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, how)
    if os.getppid() != parent:
        os.kill(os.getpid(), how)


class StopRequested(BaseException):  # past ``except Exception``, like KeyboardInterrupt
    """A stop signal came while the run waited for data."""


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Start child processes with :data:`STOP_SIGNALS` blocked from the first moment.

    In this process the signals are pending until the end. Nothing is done outside Linux, where a
    child cannot see who sent a signal.
    """
    if not hasattr(signal, 'sigwaitinfo'):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
