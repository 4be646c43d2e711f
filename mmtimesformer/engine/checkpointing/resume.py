"""Find the checkpoint to resume from: the newest valid one, also in a moved ``work_dir``."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader

from mmtimesformer.checkpoints.dcp import corruption_of_shards
from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.fileio.safe_text import read_text
from mmtimesformer.fileio.safe_zip import SafeZip

LONGEST_NOTE = 64 << 10  # bytes
NOTE = 'last_checkpoint'  # MMEngine's name for the file that names the newest checkpoint
MID_EPOCH = 'mid_epoch.pth'  # saved between two regular checkpoints, removed after the next one


def note_checkpoint(work_dir: str | os.PathLike[str], checkpoint: str) -> None:
    """Write the newest checkpoint's path to ``last_checkpoint``, atomically."""
    write_text_atomically(Path(work_dir) / NOTE, checkpoint)


def latest_checkpoint(work_dir: str | os.PathLike[str]) -> str | None:
    """Return the checkpoint that a run in ``work_dir`` saved last, or ``None`` for none.

    MMEngine writes its absolute path to ``last_checkpoint``. A file of that name in ``work_dir``,
    which may have been moved or copied, comes first; then the path itself.

    Raises:
        FileNotFoundError: ``last_checkpoint`` names one that is missing, and there is no other.
    """
    return next(_candidates(Path(work_dir)), None)


def latest_valid_checkpoint(
    work_dir: str | os.PathLike[str],
    warn: Callable[[str], object],
    check: Callable[[str], str | None] | None = None,
) -> str | None:
    """Return the newest checkpoint in ``work_dir`` that can be read, or ``None`` for none at all.

    ``warn`` receives a warning for each damaged one that is skipped; ``check`` returns what is
    wrong with one, as :func:`corruption_of` does.

    Raises:
        ValueError: There are checkpoints, and all are damaged.
    """
    damaged = []
    for checkpoint in _candidates(Path(work_dir)):
        damage = (check or corruption_of)(checkpoint)
        if damage is None:
            return checkpoint
        warn(f'{checkpoint} is damaged ({damage}); the checkpoint before it is taken')
        damaged.append(checkpoint)
    if damaged:
        raise ValueError(
            f'every checkpoint in {work_dir} is damaged ({", ".join(damaged)}); copy one back, or '
            'leave --resume out to start from the beginning'
        )
    return None


def read_valid_checkpoint(
    checkpoint: str, map_location: str
) -> tuple[dict[str, Any] | None, str | None]:
    """Read a checkpoint, or describe what is wrong with it; a good file is read once.

    Returns:
        The checkpoint, ``None`` for one that is not checked, such as a URL; and its damage.
    """
    if '://' in checkpoint or not Path(checkpoint).is_file():
        return None, corruption_of(checkpoint)
    try:
        return CheckpointLoader.load_checkpoint(checkpoint, map_location, logger='current'), None
    except Exception:
        damage = corruption_of(checkpoint)
        if damage is None:
            raise
        return None, damage


def corruption_of(checkpoint: str) -> str | None:
    """Describe what is wrong with a checkpoint file, or return ``None``; every byte of it is read.

    A torch file is a zip, with its table of contents at its end and checksums of its members; so
    are the files of a sharded checkpoint. Older formats, folders and URLs are not checked.
    """
    if '://' in checkpoint:
        return None
    try:
        if Path(checkpoint).is_dir():
            return None
        if not Path(checkpoint).is_file():  # a read of a pipe would wait
            return 'it is not a file'
        with Path(checkpoint).open('rb') as file:
            if file.read(2) == b'\x80\x02':
                return None
            broken = SafeZip(file, Path(checkpoint).stat().st_size).corrupt_member()
    except Exception as error:  # any failure to read it is damage
        return str(error) or repr(error)
    return f'{broken} does not match its checksum' if broken else corruption_of_shards(checkpoint)


def _candidates(work_dir: Path) -> Iterator[str]:
    """Yield the checkpoints of a run, the newest first."""
    note = work_dir / NOTE
    noted = _read_note(note)
    found = []
    if '://' in noted:
        found.append(noted)
    elif noted:
        here = work_dir / Path(noted).name
        found += [str(path) for path in (here, Path(noted)) if path.exists()][:1]
    # Without a note, or with an unreadable one, by their file names.
    saved = [path for path in work_dir.glob('*.pth') if _steps(path) is not None]
    found += [str(path) for path in sorted(saved, key=_order, reverse=True)]
    if noted and not found:
        raise FileNotFoundError(
            f'{note} names {noted}, which is neither there nor at {here}; '
            'give the checkpoint itself: --resume PATH'
        )
    yield from dict.fromkeys(found)


def _read_note(note: Path) -> str:
    """Read the path in ``last_checkpoint``; return nothing if it holds no path."""
    try:
        noted = read_text(note, LONGEST_NOTE).strip() if note.is_file() else ''
        Path(noted).exists()
    except (OSError, ValueError):  # not text; a path too long, or with a zero byte
        return ''
    return noted if len(noted.splitlines()) == 1 else ''


def _steps(path: Path) -> int | None:
    """Read the number out of ``epoch_3.pth`` or ``iter_700.pth``."""
    if path.name == MID_EPOCH:
        return 0
    number = re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', path.name)
    return int(number[1]) if number else None


def _order(path: Path) -> tuple[bool, int]:
    return path.name == MID_EPOCH, _steps(path) or 0
