"""File backend of MMEngine that writes atomically: a kill or a full disk leaves no partial file.

MMEngine writes a checkpoint directly under its final name; a kill meanwhile leaves a partial file
there. This backend replaces its local one, so that all that MMEngine writes through it
(checkpoints, dumped results) goes to a temporary file first, in MMAction2's own tools too.
"""

import os
from pathlib import Path

from mmengine.fileio import FileClient, HardDiskBackend, LocalBackend, register_backend

from mmtimesformer.engine.checkpointing.resume import NOTE
from mmtimesformer.fileio.atomic import write_atomically


class AtomicBackend(LocalBackend):
    """MMEngine's local file backend, whose files are written by :func:`write_atomically`."""

    def put(self, obj: bytes, filepath: str | os.PathLike[str]) -> None:
        """Write bytes; a device or a pipe, which must not be replaced, is written to directly."""
        if _is_special(filepath):
            super().put(obj, filepath)
            return
        with write_atomically(filepath) as partial:
            partial.write_bytes(obj)

    def put_text(self, obj: str, filepath: str | os.PathLike[str], encoding: str = 'utf-8') -> None:
        """Write text, as :meth:`put` does."""
        self.put(obj.encode(encoding), filepath)


class AtomicDiskBackend(AtomicBackend, HardDiskBackend):
    """The same under the older name, for ``file_client_args``."""


def register_atomic_backend() -> None:
    """Replace MMEngine's local backend by ours; calling it again changes nothing."""
    register_backend('local', AtomicBackend, force=True, prefixes='')
    FileClient.register_backend('disk', AtomicDiskBackend, force=True)


def sweep_partial_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove unfinished checkpoints of killed trainings in a folder, and return them.

    Call it under the lock of a ``work_dir``. Other unfinished files stay: a test, a report or a
    page may be written into the same folder at this moment.
    """
    folder = Path(folder)
    partial = sorted([*folder.glob('.*.pth.*.part'), *folder.glob(f'.{NOTE}.*.part')])
    for path in partial:
        path.unlink(missing_ok=True)
    return partial


def _is_special(path: str | os.PathLike[str]) -> bool:
    path = Path(path)
    return path.exists() and not path.is_file()
