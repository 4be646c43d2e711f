"""Read torch files of MMEngine, with loss curves and other training state; execute nothing.

``torch.load(weights_only=True)`` refuses MMEngine's loss curves: arrays in a ``HistoryBuffer``, and
``getattr(HistoryBuffer, 'mean')``. To allow ``getattr``, as torch suggests, gives the file all of
Python. Here these names stand for numbers and text, see :mod:`mmtimesformer.fileio.safe_pickle`.
"""

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmtimesformer.cli import require_file
from mmtimesformer.fileio.safe_pickle import (
    Blocks,
    DamagedError,
    InstructionError,
    Name,
    Names,
    RefusedError,
    StandIn,
    Unpickler,
    check_bounded,
    shown,
)
from mmtimesformer.fileio.safe_zip import SafeZip, ZipError
from mmtimesformer.fileio.stand_ins import NUMPY, PLAIN, ArrayStandIn
from mmtimesformer.fileio.torch_files import ZIP_MAGIC, MapLocation, read_torch_file

PICKLE_MAGIC = b'\x80'
STATISTICS = ('min', 'max', 'mean', 'current')
AGAIN = 'copy or download it again, or take an earlier one'


def load_torch(path: str | os.PathLike[str], map_location: MapLocation = 'cpu') -> Any:
    """Read a file that ``torch.save`` wrote; nothing in the file is executed.

    NumPy arrays and scalars come back as such, MMEngine's loss curves as :class:`ScalarHistory`.
    Repeated references stay references, so the result may be far larger when printed than in
    memory; use :func:`load_bounded_torch` before reading all of an untrusted file.

    Args:
        path: The file, in torch's zip format or the one before it.
        map_location: Where tensors go, as in :func:`torch.load`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a torch file, is damaged, or holds a program instead of data.
    """
    return _load(Path(path).expanduser(), map_location, bounded=False)


def load_bounded_torch(path: str | os.PathLike[str], map_location: MapLocation = 'cpu') -> Any:
    """Read a file as :func:`load_torch` does, and refuse what is too large to print or compare."""
    return _load(Path(path).expanduser(), map_location, bounded=True)


def _load(path: Path, map_location: MapLocation, bounded: bool) -> Any:
    _check_container(path)
    try:
        with path.open('rb') as file:
            content = read_torch(file, path.stat().st_size, map_location)
        if bounded:
            check_bounded(content)
    except (ZipError, RefusedError, InstructionError) as error:
        raise ValueError(f'checkpoint {path} {why_refused(error)}') from None
    except OSError:
        raise
    except Exception as error:  # torch may refuse what it is given by any exception
        raise ValueError(
            f'checkpoint {path} is damaged or incomplete ({first_line(error)}); {AGAIN}'
        ) from error
    return content


def read_torch(file: BinaryIO, size: int, map_location: MapLocation = 'cpu') -> Any:
    """Read an open torch file; the errors are those of the unpickler."""
    return read_torch_file(file, size, NAMES, map_location)


def require_checkpoint(path: Path) -> None:
    """Raise an error if there is no such file, or if it is empty."""
    require_file(path, 'checkpoint', 'check the path')
    if not path.is_file():
        raise ValueError(f'checkpoint {path} is not a file; give a file of weights')
    if path.stat().st_size == 0:
        raise ValueError(f'checkpoint {path} is empty; copy or download it again')


def _check_container(path: Path) -> None:
    """Check that a file can be a torch file at all; the error states what it is instead."""
    require_checkpoint(path)
    with path.open('rb') as file:
        head = file.read(8)
        if head.startswith(ZIP_MAGIC):
            try:
                members = SafeZip(file, path.stat().st_size).members
            except ZipError as error:
                raise ValueError(f'checkpoint {path} {error}; {AGAIN}') from None
            if not any(member.endswith('/data.pkl') for member in members):
                raise ValueError(
                    f'checkpoint {path} is a zip archive that torch.save did not write: it has no '
                    f'data.pkl among its {len(members)} members; give a file that torch.save wrote'
                )
        elif not head.startswith(PICKLE_MAGIC):
            raise ValueError(
                f'checkpoint {path} is not a torch file: it begins with {head!r}; '
                'give a file that torch.save wrote'
            )


def why_refused(error: Exception) -> str:
    """Return why a file is refused, and what to do."""
    if isinstance(error, ZipError):
        return f'{error}; {AGAIN}'
    if isinstance(error, InstructionError):
        return (
            f'holds pickle instruction {error}, which torch.save does not write by default; save '
            'it again with torch.save(weights, path)'
        )
    return (
        f'is refused: it asks for {error}, and weights need only numbers and text; get a plain '
        'state dict from a source you trust'
    )


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, with its type unless it is one of ours."""
    text = str(error).strip()
    if isinstance(error, DamagedError):
        return text
    return f'{type(error).__name__}: {text.splitlines()[0][:200]}' if text else type(error).__name__


# -- MMEngine's names ------------------------------------------------------------------------------


class ScalarHistory(StandIn):
    """A logged curve, in a checkpoint the state of an MMEngine ``HistoryBuffer``."""

    log_history: np.ndarray  # the values, one row of numbers
    count_history: np.ndarray  # how many samples each value is the mean of
    max_length: int  # how many values are kept

    def build(self, machine: Unpickler, state: Any) -> None:
        known = {'_log_history', '_count_history', 'max_length', 'statistics_methods'}
        if type(state) is not dict or not all(type(k) is str and k in known for k in state):
            raise RefusedError('a HistoryBuffer with other fields')
        rows = []
        for key in ('_log_history', '_count_history'):
            given = state.get(key)
            row = given.settle() if isinstance(given, ArrayStandIn) else None
            if row is None or row.ndim != 1 or row.dtype.kind not in 'biuf':
                raise RefusedError(f'a HistoryBuffer whose {key} is not a row of numbers')
            rows.append(row)
        if len(rows[0]) != len(rows[1]):
            raise RefusedError('a HistoryBuffer with rows of different lengths')
        max_length = state.get('max_length')
        if type(max_length) is not int or max_length < 1:
            raise RefusedError(f'a HistoryBuffer of max_length={shown(max_length)}')
        self.log_history, self.count_history = rows
        self.max_length = max_length

    def settle(self, blocks: Blocks) -> 'ScalarHistory':
        if not hasattr(self, 'log_history'):
            raise RefusedError('a HistoryBuffer without content')
        return self


def _history(machine: Unpickler) -> ScalarHistory:
    return ScalarHistory()


def _statistic(machine: Unpickler, owner: Any, name: Any) -> str:
    """Return the name of a curve's statistic for ``getattr``; no object is touched."""
    if type(name) is not str or name not in STATISTICS:
        raise RefusedError(f'getattr(…, {shown(name)})')
    if type(owner) is not Name or owner.meaning is not _history:
        raise RefusedError(f'getattr(a {type(owner).__name__}, {shown(name)})')
    return f'HistoryBuffer.{name}'


NAMES: Names = {
    **PLAIN,
    **NUMPY,
    'mmengine.logging.history_buffer.HistoryBuffer': _history,
    'builtins.getattr': _statistic,
}
