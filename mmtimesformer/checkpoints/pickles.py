"""Reading torch pickles without running them.

A pickle is a program. ``torch.load(weights_only=True)`` runs it on a machine that knows tensors and
little else, so it also refuses what MMEngine puts beside the weights of a training checkpoint: the
curves of the logged losses (``HistoryBuffer``, made of NumPy arrays) and, for each curve, the names
of its statistics (``getattr(HistoryBuffer, 'mean')``).

The hint that torch prints then, to allow ``HistoryBuffer`` and ``getattr``, gives the file all
of Python. Here those names mean something smaller: each stands for a class or function of this
module that checks what it is given, keeps plain numbers, and can do nothing else. The real classes
are never looked up, so MMEngine need not be there.
"""

import os
import pickle
import re
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

ZIP_MAGIC = b'PK\x03\x04'
PICKLE_MAGIC = b'\x80'
STATISTICS = ('min', 'max', 'mean', 'current')


class RefusedError(Exception):
    """A pickle asked for more than a checkpoint needs; the message names what."""


def load_torch(path: str | os.PathLike[str], map_location: Any = 'cpu') -> Any:
    """Read a file that ``torch.save`` wrote; nothing in the file is executed.

    NumPy arrays and scalars come back as such, MMEngine's loss curves as :class:`ScalarHistory`.

    Args:
        path: The file, in torch's zip format or the one before it.
        map_location: Where tensors go, as in :func:`torch.load`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a torch file, is damaged, or holds a program instead of data.
    """
    path = Path(path).expanduser()
    _check_container(path)
    try:
        # An open file, for torch takes a *name* that ends in .safetensors for that format.
        with path.open('rb') as file, only_our_globals():
            return _thaw(torch.load(file, map_location=map_location, weights_only=True), {})
    except (RefusedError, pickle.UnpicklingError) as error:
        raise ValueError(f'checkpoint {path} {_why_refused(error)}') from error
    except OSError:
        raise
    except Exception as error:  # A broken byte can surface as any exception of the unpickler.
        raise ValueError(
            f'checkpoint {path} is damaged or incomplete ({_first_line(error)}); '
            'copy or download it again, or take an earlier one'
        ) from error


def _check_container(path: Path) -> None:
    """See that a file can be a torch file at all, before torch says it in its own words."""
    if not path.exists():
        raise FileNotFoundError(
            f'checkpoint {path} does not exist (looked in {path.absolute().parent}); check the path'
        )
    if not path.is_file():
        raise ValueError(f'checkpoint {path} is not a file; give the path of a .pth file')
    with path.open('rb') as file:
        head = file.read(8)
    if not head:
        raise ValueError(f'checkpoint {path} is empty; copy or download it again')
    if head.startswith(ZIP_MAGIC):
        try:
            members = zipfile.ZipFile(path).namelist()
        except zipfile.BadZipFile:
            raise ValueError(
                f'checkpoint {path} is cut short: its last part, the table of contents, is '
                'missing; copy or download it again, or take an earlier one'
            ) from None
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


# -- Stand-ins: what the names in a pickle mean here ---------------------------------------------


class ScalarHistory:
    """A logged curve, in a checkpoint the state of an MMEngine ``HistoryBuffer``.

    Attributes:
        log_history: The values, one row of numbers.
        count_history: How many samples each value is the mean of.
        max_length: How many values are kept.
    """

    log_history: np.ndarray
    count_history: np.ndarray
    max_length: int

    def __setstate__(self, state: Any) -> None:
        known = {'_log_history', '_count_history', 'max_length', 'statistics_methods'}
        if type(state) is not dict or not set(state) <= known:
            raise RefusedError('a HistoryBuffer of another make')
        rows = []
        for key in ('_log_history', '_count_history'):
            row = state.get(key)
            row = row.thaw() if type(row) is _Array else None
            if row is None or row.ndim != 1 or row.dtype.kind not in 'biuf':
                raise RefusedError(f'a HistoryBuffer whose {key} is not a row of numbers')
            rows.append(row)
        if len(rows[0]) != len(rows[1]):
            raise RefusedError('a HistoryBuffer with rows of different lengths')
        max_length = state.get('max_length')
        if type(max_length) is not int or max_length < 1:
            raise RefusedError(f'a HistoryBuffer of max_length={max_length!r}')
        self.log_history, self.count_history = rows
        self.max_length = max_length


class _Dtype:
    """``numpy.dtype``: truth values, integers, floats, complex numbers or text, in one byte order.

    NumPy's own ``dtype.__setstate__`` believes what it is told about fields and Python objects,
    which lets a file turn its bytes into pointers. This one takes an element code and a byte order.
    """

    def __init__(self, code: Any, *_align_and_copy: Any) -> None:
        if type(code) is not str or not re.fullmatch(r'[biufcUS]\d{1,6}|\?', code):
            raise RefusedError(f'an array of dtype {code!r}')
        self.code, self.order = code, '='

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 5 or state[2:5] != (None, None, None):
            raise RefusedError('an array with structured elements')
        if state[1] not in ('<', '>', '|', '='):
            raise RefusedError(f'an array of byte order {state[1]!r}')
        self.order = state[1]

    def thaw(self) -> np.dtype:
        try:
            return np.dtype(self.order + self.code)
        except TypeError:
            raise RefusedError(f'an array of dtype {self.code!r}') from None


class _Array:
    """``numpy.ndarray``: a shape, a dtype and exactly as many bytes as these two need."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise RefusedError('an array of another make')
        _, shape, dtype, fortran, data = state
        if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
            raise RefusedError(f'an array of shape {shape!r}')
        self.array = _from_bytes(dtype, data).reshape(shape, order='F' if fortran else 'C')

    def thaw(self) -> np.ndarray:
        if self.array is None:
            raise RefusedError('an array without content')
        return self.array


def _from_bytes(dtype: Any, data: Any) -> np.ndarray:
    if type(dtype) is not _Dtype or type(data) is not bytes:
        raise RefusedError('an array whose content is not a dtype and bytes')
    return np.frombuffer(data, dtype.thaw()).copy()


def _reconstruct(kind: Any, *_shape_and_code: Any) -> _Array:
    """``numpy…multiarray._reconstruct``: an array, to be filled by its state."""
    if kind is not _Array:
        raise RefusedError(f'an array of class {kind!r}')
    return _Array()


def _scalar(dtype: Any, data: Any) -> np.generic:
    """``numpy…multiarray.scalar``: one number, or one piece of text."""
    values = _from_bytes(dtype, data)
    if len(values) != 1:
        raise RefusedError(f'one number made of {len(values)}')
    return values[0]


def _statistic(owner: Any, name: Any) -> str:
    """``getattr``, where it names a statistic of a curve: no object is touched, the name stays."""
    if owner is not ScalarHistory or name not in STATISTICS:
        raise RefusedError(f'getattr(…, {name!r})')
    return f'HistoryBuffer.{name}'


def _no_bytes() -> bytes:
    """``bytes``, which is how pickle spells an empty one."""
    return b''


STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (ScalarHistory, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_statistic, 'builtins.getattr'),
    (_no_bytes, 'builtins.bytes'),
    (_Array, 'numpy.ndarray'),
    (_Dtype, 'numpy.dtype'),
    (_reconstruct, 'numpy.core.multiarray._reconstruct'),  # NumPy 1
    (_reconstruct, 'numpy._core.multiarray._reconstruct'),  # NumPy 2
    (_scalar, 'numpy.core.multiarray.scalar'),
    (_scalar, 'numpy._core.multiarray.scalar'),
]

_lock = threading.Lock()


@contextmanager
def only_our_globals() -> Iterator[None]:
    """Let torch's unpickler know our stand-ins and nothing else beyond its own.

    What the program around us has allowed, perhaps the real ``getattr``, is put aside meanwhile.
    """
    with _lock:
        allowed_by_others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(STAND_INS)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings('ignore', 'Detected pickle protocol')
                yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(allowed_by_others)


def _thaw(value: Any, memo: dict[int, tuple[Any, Any]]) -> Any:
    """Put arrays in the place of their stand-ins, through dicts, lists and tuples.

    ``memo`` holds each container that was seen beside what became of it, by identity: what a file
    shares stays shared, and one that nests itself, or doubles itself on every level, costs nothing.
    """
    if type(value) in (_Array, _Dtype):
        return value.thaw()
    if type(value) is ScalarHistory and not hasattr(value, 'log_history'):
        raise RefusedError('a HistoryBuffer without content')
    if id(value) in memo:
        return memo[id(value)][1]
    if type(value) is tuple:
        memo[id(value)] = value, tuple(_thaw(item, memo) for item in value)
    elif isinstance(value, dict):
        memo[id(value)] = value, value
        for key, item in value.items():
            value[key] = _thaw(item, memo)
    elif isinstance(value, list):
        memo[id(value)] = value, value
        value[:] = [_thaw(item, memo) for item in value]
    else:
        return value
    return memo[id(value)][1]


def _why_refused(error: Exception) -> str:
    """Say what a refused file wanted, from our own words or from torch's."""
    words = str(error)
    operand = re.search(r'Unsupported operand (\d+)', words)
    if operand:
        return (
            f'holds pickle instruction {operand.group(1)}, which torch.save does not write by '
            'default; save it again with torch.save(weights, path)'
        )
    asked = re.search(r'(?:GLOBAL|function|but got) (?:<[a-z ]*)?([\w.\']+)', words)
    name = words if isinstance(error, RefusedError) else asked and asked.group(1).strip("'")
    return (
        f'is refused: it asks for {name or _first_line(error)}, and weights need only numbers and '
        'text; get a plain state dict from a source you trust'
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f'{type(error).__name__}: {text.splitlines()[0][:200]}' if text else type(error).__name__
