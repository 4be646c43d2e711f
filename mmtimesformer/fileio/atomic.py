"""Write files atomically: under its name a file is complete, or it is not there.

The content goes to a temporary file in the same folder, is synced to the disk, and is renamed in
one step. A killed process or a full disk leaves the previous file as it was.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from mmtimesformer.fileio.file_names import short_file_name

PARTIAL_FILES = '.*.part'  # glob pattern of the temporary files that a killed process leaves


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to, which is renamed to ``path`` on success.

    The new file has the permissions of any new file. A symbolic link is replaced, not its target.
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    partial.touch(exist_ok=False)
    permissions = partial.stat().st_mode  # as the umask sets them; libraries may change them
    try:
        yield partial
        partial.chmod(permissions)
        rename_atomically(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Return a new hidden name in the same folder, for the file that becomes ``path``."""
    return path.with_name(f'.{short_file_name(path.name)}.{uuid4().hex[:8]}.part')


def rename_atomically(partial: Path, path: Path) -> None:
    """Rename a finished file, after its content and before its name are synced to the disk."""
    with partial.open('r+b') as file:
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if hasattr(os, 'O_DIRECTORY'):  # not on Windows
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text_atomically(path: str | os.PathLike[str], text: str, errors: str = 'strict') -> None:
    """Write text as UTF-8; ``errors='surrogateescape'`` keeps file names that are not UTF-8."""
    with write_atomically(path) as partial:
        partial.write_text(text, 'utf-8', errors, newline='\n')


def write_lines_atomically(
    path: str | os.PathLike[str], lines: Iterable[str], errors: str = 'strict'
) -> None:
    """Write lines of UTF-8 text, each with its newline."""
    write_text_atomically(path, ''.join(f'{line}\n' for line in lines), errors)


def write_json_atomically(path: str | os.PathLike[str], content: object) -> None:
    """Write indented JSON; a NaN, which other readers of JSON refuse, is a ``ValueError``."""
    write_lines_atomically(path, [json.dumps(content, indent=2, allow_nan=False)])
