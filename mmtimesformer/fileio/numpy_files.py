"""Read ``.npy`` and ``.npz`` arrays safely: the header may not ask for more than the file has."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.fileio.safe_pickle import RefusedError
from mmtimesformer.fileio.safe_zip import SafeZip, ZipError

LONGEST_HEADER = 10_000  # bytes, NumPy's own limit


def read_npy(archive: SafeZip, name: str) -> np.ndarray:
    """Read an array of an ``.npz`` file.

    Raises:
        RefusedError: It holds Python objects or structures, which only a pickle could make.
        ZipError: It is damaged, or its header and its size differ.
    """
    content = bytearray(archive.members[name].file_size)
    archive.read_into(name, memoryview(content))
    return parse_npy(memoryview(content), 'a member')


def read_npy_file(path: Path) -> np.ndarray:
    """Map an array of an ``.npy`` file into memory, read-only.

    Raises:
        ValueError: It is damaged, or holds something else than numbers.
    """
    try:
        with path.open('rb') as file:
            head = file.read(LONGEST_HEADER + 128)
        dtype, shape, fortran, start = _header(head, 'it')
        if math.prod(shape) * dtype.itemsize != path.stat().st_size - start:
            raise ZipError('its header and its size differ')
        order: Any = 'F' if fortran else 'C'
        if not math.prod(shape):
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, 'r', start, shape, order)
    except (RefusedError, ZipError) as error:
        raise ValueError(f'{path} is not an array of numbers ({error}); write it again') from None


def parse_npy(content: memoryview, what: str) -> np.ndarray:
    """Return the array in these bytes, without a copy."""
    dtype, shape, fortran, start = _header(bytes(content[: LONGEST_HEADER + 128]), what)
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ZipError(f'is damaged: the header and the size of {what} differ')
    values = np.frombuffer(content, dtype, offset=start, count=math.prod(shape))
    return values.reshape(shape, order='F' if fortran else 'C')


def _header(start: bytes, what: str) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    file = io.BytesIO(start)
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ZipError(f'is damaged: {what} has version {version} of the format')
        read = np.lib.format.read_array_header_1_0
        if version == (2, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=LONGEST_HEADER)
    except (RefusedError, ZipError):
        raise
    except Exception as error:  # NumPy parses headers as Python
        raise ZipError(f'is damaged: {what} has no header ({type(error).__name__})') from None
    if dtype.hasobject:
        raise RefusedError('pickled Python objects')
    if dtype.names or dtype.subdtype or dtype.itemsize == 0:
        raise RefusedError('structures')
    if len(shape) > 64 or any(type(n) is not int or n < 0 for n in shape):
        raise ZipError(f'is damaged: {what} has no shape')
    return dtype, shape, bool(fortran), file.tell()
