"""Processes that end with the one that started them, also when that one is killed."""

import ctypes
import os
import signal
import sys

SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl


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
