"""Wait for a folder of videos that disappears in the midst of a run, such as a lost network mount.

A lost mount leaves a folder that is not there, that fails with an error of the system (``ESTALE``,
``EIO``, ``ENOTCONN``), or that is empty: the mount point.
"""

import logging
import mmap
import multiprocessing
import os
import struct
import time
from collections import deque
from itertools import count
from typing import Any

from mmengine.logging import print_log

from mmtimesformer.fileio.storage_error import LONGEST_PAUSE, PATIENCE, StorageError

KNOWN_FILES = 4  # that were read last, by which to see whether a folder is still the same
KNOWN_FOLDERS = 10_000


class LocalFolder:
    """A folder of videos, and what was read of it so far.

    Args:
        path: The folder; the current one if empty.
        patience: Seconds for which it may be gone.

    Attributes:
        was_there: Whether it held anything when this object was made. If not, nothing is waited
            for: the path is wrong, or every video is missing.

    Raises:
        ValueError: ``patience`` is negative.
    """

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        if not patience >= 0:
            raise ValueError(
                f'patience={patience} is not 0 or more seconds; set patience of the data set'
            )
        self.path = path or '.'
        self.patience = patience
        self.was_there = _has_entries(self.path)
        self._files: deque[str] = deque(maxlen=KNOWN_FILES)
        self._folders: dict[str, tuple[str, bool]] = {}  # a file read, and whether another was
        self._logged = _SharedFlag()

    def note_read(self, file: str) -> None:
        """Remember a video that was read."""
        if file in self._files:
            return
        self._files.append(file)
        folder = file.rpartition(os.sep)[0]
        first, several = self._folders.get(folder, (file, False))
        if len(self._folders) < KNOWN_FOLDERS or folder in self._folders:
            self._folders[folder] = first, several or first != file

    def is_lost(self, file: str) -> bool:
        """Whether the folder is gone, and not only one video that cannot be read.

        It is if it is not there, is empty, if none of the videos that were read last is there, or
        if a subfolder that several videos were read from is gone or empty (a mount of its own).
        """
        if not self.was_there:
            return False
        if not _has_entries(self.path):
            return True
        others = [known for known in self._files if known != file]
        if len(others) > 1 and not any(map(os.path.exists, others)):
            return True
        folder = file.rpartition(os.sep)[0]
        return self._folders.get(folder, ('', False))[1] and not _has_entries(folder)

    def _reason(self) -> str:
        return _fault(self.path) or 'other files are in it'

    def wait(self, file: str) -> None:
        """Wait until the folder is there again; log that once for all processes of a data loader.

        Raises:
            StorageError: It is gone for longer than ``patience``.
        """
        began = time.monotonic()
        if self._logged.set():
            _warn(
                f'The folder {self.path} is gone or empty ({self._reason()}), which it was not '
                f'when this run began: waits for it, up to {self.patience:g} s.'
            )
        for tries in count():
            waited = time.monotonic() - began
            if waited >= self.patience:
                raise StorageError(
                    f'the folder {self.path} has been gone or empty for {waited:.0f} s '
                    f'({self._reason()}; wanted was {file}), and the run began with it; bring '
                    f'it back (patience={self.patience:g} of the data set is how long to wait)'
                )
            time.sleep(min(2.0**tries, LONGEST_PAUSE, self.patience - waited))
            if not self.is_lost(file):
                break
        if self._logged.clear():
            _warn(f'The folder {self.path} is there again, after {time.monotonic() - began:.0f} s.')


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)


class _SharedFlag:
    """A flag in memory shared with later forks; a copy or a pickle gets its own."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)
        self._lock = multiprocessing.Lock()

    def set(self) -> bool:
        """Set it; return whether it was not set."""
        return self._change(time.monotonic())

    def clear(self) -> bool:
        """Clear it; return whether it was set."""
        return self._change(0.0)

    def _change(self, to: float) -> bool:
        locked = self._lock.acquire(timeout=1)  # a process that was killed may hold it for ever
        try:
            (before,) = struct.unpack('d', self._memory[:8])
            self._memory[:8] = struct.pack('d', to)
        finally:
            if locked:
                self._lock.release()
        return bool(before) != bool(to)

    def __reduce__(self) -> Any:
        return _SharedFlag, ()


def _has_entries(folder: str) -> bool:
    return not _fault(folder)


def _fault(folder: str) -> str:
    """Return why a folder has no entries; ``''`` if it has."""
    try:
        with os.scandir(folder) as entries:
            return 'it is empty' if next(entries, None) is None else ''
    except OSError as error:
        return error.strerror or type(error).__name__
