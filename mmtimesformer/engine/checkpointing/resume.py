"""Which checkpoint a training goes on from: the newest that is whole, wherever the folder lies."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mmtimesformer.checkpoints.dcp import corruption_of_shards
from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.fileio.safe_text import read_text
from mmtimesformer.fileio.safe_zip import SafeZip

LONGEST_NOTE = 64 << 10  # bytes
NOTE = 'last_checkpoint'  # MMEngine's name for the file that names the newest checkpoint
MID_EPOCH = 'mid_epoch.pth'  # saved between two regular checkpoints, and gone after the next one


def note_checkpoint(work_dir: str | os.PathLike[str], checkpoint: str) -> None:
    """Name the newest checkpoint in ``last_checkpoint``, as MMEngine does, in one step."""
    write_text_atomically(Path(work_dir) / NOTE, checkpoint)


def latest_checkpoint(work_dir: str | os.PathLike[str]) -> str | None:
    """Return the checkpoint that a run in ``work_dir`` saved last, or ``None`` for none.

    MMEngine notes its absolute path in ``last_checkpoint``. A folder that was moved or copied has a
    file of that name beside the note, which is meant then; the noted path is the second choice.

    Raises:
        FileNotFoundError: A checkpoint is noted, is at neither place, and there is no other.
    """
    return next(_candidates(Path(work_dir)), None)


def latest_valid_checkpoint(
    work_dir: str | os.PathLike[str], warn: Callable[[str], object]
) -> str | None:
    """Return the newest checkpoint in ``work_dir`` that can be read, or ``None`` for none at all.

    Args:
        work_dir: The folder of a run, which may have been moved or copied.
        warn: Is told of each damaged one that is passed over.

    Raises:
        ValueError: There are checkpoints, and none is whole.
    """
    damaged = []
    for checkpoint in _candidates(Path(work_dir)):
        damage = corruption_of(checkpoint)
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


def corruption_of(checkpoint: str) -> str | None:
    """Say what is wrong with a checkpoint file, or ``None``; every byte of it is read.

    A torch file is a zip, whose table of contents stands at its end and whose parts carry
    checksums; so do the shares of one that has them. Older containers, folders and what lies
    elsewhere are not looked at.
    """
    if '://' in checkpoint:
        return None
    try:
        if Path(checkpoint).is_dir():
            return None
        if not Path(checkpoint).is_file():  # a pipe would be waited for
            return 'it is not a file'
        with Path(checkpoint).open('rb') as file:
            if file.read(2) == b'\x80\x02':
                return None
        with Path(checkpoint).open('rb') as file:
            broken = SafeZip(file, Path(checkpoint).stat().st_size).corrupt_member()
    except Exception as error:  # whatever surfaces is damage
        return str(error) or repr(error)
    return f'{broken} does not match its checksum' if broken else corruption_of_shards(checkpoint)


def _candidates(work_dir: Path) -> Iterator[str]:
    """Name the checkpoints of a run, the newest first."""
    note = work_dir / NOTE
    noted = _read_note(note)
    found = []
    if '://' in noted:
        found.append(noted)
    elif noted:
        beside = work_dir / Path(noted).name
        found += [str(path) for path in (beside, Path(noted)) if path.exists()][:1]
    # Without a note, or with one that tells nothing any more: as their names say.
    saved = [path for path in work_dir.glob('*.pth') if _steps(path) is not None]
    found += [str(path) for path in sorted(saved, key=_order, reverse=True)]
    if noted and not found:
        raise FileNotFoundError(
            f'{note} names {noted}, which is neither there nor at {beside}; '
            'give the checkpoint itself: --resume PATH'
        )
    yield from dict.fromkeys(found)


def _read_note(note: Path) -> str:
    """Read the path that a note tells; one that tells none, of a damaged disk, is no note."""
    try:
        noted = read_text(note, LONGEST_NOTE).strip() if note.is_file() else ''
        Path(noted).exists()
    except (OSError, ValueError):  # no text; a path too long, or with a zero byte
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
