"""Read files of ``torch.save``, zip and legacy format, with the restricted unpickler.

The pickle is run to its end first. Storages are read afterwards, each of exactly as many bytes as
the file has for it, so that refusing a file costs no more than its pickle.
"""

import io
import re
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch

from mmtimesformer.fileio.safe_pickle import (
    VIEWS_BASE,
    VIEWS_FACTOR,
    Blocks,
    Budget,
    DamagedError,
    Names,
    RefusedError,
    Unpickler,
    constant_of,
    settle,
    shown,
)
from mmtimesformer.fileio.safe_zip import SafeZip, ZipError
from mmtimesformer.fileio.stand_ins import TORCH, Block, Storage, StorageType

ZIP_MAGIC = b'PK\x03\x04'
LEGACY_MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
LEGACY_NUMBER, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
LOCATION = re.compile(r'[a-z_]{1,32}(:\d{1,3})?')
# Where tensors go, as :func:`torch.load` takes it.
MapLocation = str | torch.device | dict[str, str] | Callable[[Any, str], Any] | None
KEY = re.compile(r'\d{1,20}|[\w.-]{1,60}', re.ASCII)


def read_torch_file(
    file: BinaryIO, size: int, names: Names, map_location: MapLocation = 'cpu'
) -> Any:
    """Read a file that ``torch.save`` wrote; nothing in it is executed.

    Args:
        file: The file.
        size: Its bytes.
        names: What the names in it mean.
        map_location: Where tensors go, as in :func:`torch.load`.

    Raises:
        RefusedError: It asks for more than data needs.
        InstructionError: It has an instruction that ``torch.save`` does not write.
        DamagedError: It is cut short, or contradicts itself.
        ZipError: The same, of the archive around it.
    """
    file.seek(0)
    is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    file.seek(0)
    if is_zip:
        return _read_zip(SafeZip(file, size), names, map_location)
    return _read_legacy(file, size, names, map_location)


class _Storages(Blocks):
    """Find the storages of a file, each once.

    Args:
        fill: Reads the bytes of a block.
        available: Bytes that all blocks together may have.
        map_location: Where they go.
    """

    def __init__(
        self, fill: Callable[[Block, memoryview], None], available: int, map_location: MapLocation
    ) -> None:
        self.fill, self.available, self.map_location = fill, available, map_location
        self.blocks: dict[str, Block] = {}

    def of_zip(self, given: Any) -> Storage:
        """``('storage', type, key, location, elements)``."""
        if type(given) is not tuple or len(given) != 5:
            raise RefusedError(f'a storage named by a {type(given).__name__}')
        return self._find(given)

    def of_legacy(self, given: Any) -> Storage:
        """``('storage', type, key, location, elements, view)``, the last mostly None."""
        if type(given) is not tuple or len(given) != 6:
            raise RefusedError(f'a storage named by a {type(given).__name__}')
        whole = self._find(given[:5])
        view = given[5]
        if view is None:
            return whole
        if type(view) is not tuple or len(view) != 3:
            raise RefusedError(f'a view that is a {type(view).__name__}')
        start, count = view[1:]
        if type(start) is not int or type(count) is not int or start < 0 or count < 0:
            raise RefusedError('a view that is not two numbers')
        width = whole.dtype.itemsize
        if (start + count) * width > whole.nbytes:
            raise RefusedError('a view that is larger than its storage')
        return Storage(whole.block, whole.dtype, start * width, count * width)

    def _find(self, given: tuple[Any, ...]) -> Storage:
        word, kind, key, location, count = given
        if type(word) is not str or word != 'storage':
            raise RefusedError(f'content named {shown(word)}')
        value = constant_of(kind)
        if type(value) is not StorageType:
            raise RefusedError(f'a storage whose type is a {type(kind).__name__}')
        if type(key) is not str or not KEY.fullmatch(key):
            raise RefusedError(f'a storage called {shown(key)}')
        if type(location) is not str or not LOCATION.fullmatch(location):
            raise RefusedError(f'a storage on the device {shown(location)}')
        if type(count) is not int or not 0 <= count < 2**58:
            raise RefusedError(f'a storage of {shown(count)} elements')
        nbytes = count * value.dtype.itemsize
        block = self.blocks.get(key)
        if block is None:
            self.available -= nbytes
            if self.available < 0:
                raise DamagedError(f'storages of more bytes than the file has ({nbytes:,})')
            element = _component(value.dtype)
            block = self.blocks[key] = Block(key, nbytes, location, element)
        elif block.nbytes != nbytes:
            raise DamagedError(f'a storage of {block.nbytes:,} and of {nbytes:,} bytes')
        return Storage(block, value.dtype, 0, nbytes)

    def storage(self, block: Block) -> torch.UntypedStorage:
        if block.content is None:
            if self.map_location is not None and _is_meta(self.map_location):
                block.content = torch.UntypedStorage(block.nbytes, device='meta')
                return block.content
            content = torch.empty(block.nbytes, dtype=torch.uint8, device='cpu')
            if block.nbytes:
                self.fill(block, _bytes_of(content))
            block.content = _moved(content.untyped_storage(), block.location, self.map_location)
        return block.content


def _bytes_of(content: torch.Tensor) -> memoryview:
    return memoryview(content.numpy())  # type: ignore[arg-type]


def _component(dtype: torch.dtype) -> int:
    """Return the bytes whose order depends on the machine: of a complex number, its halves."""
    return dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize


def _is_meta(map_location: MapLocation) -> bool:
    return (
        isinstance(map_location, str | torch.device) and torch.device(map_location).type == 'meta'
    )


def _moved(content: torch.UntypedStorage, location: str, map_location: MapLocation) -> Any:
    """Move a storage to its device: the saved one, if ``map_location`` names no other."""
    if callable(map_location):
        moved = map_location(content, location)
        if moved is not None:
            return moved
    elif isinstance(map_location, dict):
        location = map_location.get(location, location)
    elif map_location is not None:
        location = str(map_location)
    if location == 'cpu':
        return content
    return torch.serialization.default_restore_location(content, location)


# -- The zip format --------------------------------------------------------------------------------


def _read_zip(archive: SafeZip, names: Names, map_location: MapLocation) -> Any:
    found = [name for name in archive.members if name.endswith('/data.pkl')]
    if len(found) != 1:
        raise DamagedError(f'it has {len(found)} members called data.pkl')
    prefix = found[0].removesuffix('data.pkl')
    if f'{prefix}constants.pkl' in archive.members:
        raise RefusedError('a TorchScript program')
    member = archive.members[found[0]]
    if member.file_size > 8 * member.compress_size + (1 << 20):
        raise ZipError(
            f'is refused: its pickle of {member.compress_size:,} bytes would unpack to '
            f'{member.file_size:,} (a zip bomb)'
        )
    swap = _is_other_order(archive, f'{prefix}byteorder')
    content = archive.read(found[0])

    def fill(block: Block, target: memoryview) -> None:
        name = f'{prefix}data/{block.key}'
        if name not in archive.members or archive.members[name].file_size != block.nbytes:
            raise DamagedError(f'the storage {block.key} is missing, or has another size')
        archive.read_into(name, target)
        if swap and block.element > 1:
            np.frombuffer(target, f'u{block.element}').byteswap(inplace=True)

    storages = _Storages(fill, archive.total, map_location)
    machine = Unpickler(
        io.BytesIO(content),
        len(content),
        {**names, **TORCH} if names else TORCH,
        Budget(member.compress_size),
        protocol=2,
        storages=storages.of_zip,
        views=VIEWS_BASE + VIEWS_FACTOR * archive.total,
    )
    return settle(machine.load(), storages)


def _is_other_order(archive: SafeZip, name: str) -> bool:
    if name not in archive.members or archive.members[name].file_size > 6:
        return sys.byteorder == 'big'  # little, as nearly all machines are
    order = archive.read(name)
    if order not in (b'little', b'big'):
        raise DamagedError('its byte order is neither little nor big')
    return order != sys.byteorder.encode()


# -- The legacy format -----------------------------------------------------------------------------


def _read_legacy(file: BinaryIO, size: int, names: Names, map_location: MapLocation) -> Any:
    """Read magic number, version, system information, the object, keys and bytes of storages."""
    budget = Budget(size, factor=1)
    _check_start(file, size, budget)
    return settle(*_legacy(file, size, names, map_location, budget))


def _check_start(file: BinaryIO, size: int, budget: Budget) -> None:
    for wanted in (LEGACY_NUMBER, LEGACY_VERSION, dict):  # the system information, unused
        value = Unpickler(file, size, {}, budget, protocol=2).load()
        if type(value) is not wanted and (type(value) is not int or value != wanted):
            raise DamagedError('its beginning is not that of a torch file')


def _legacy(
    file: BinaryIO, size: int, names: Names, map_location: MapLocation, budget: Budget
) -> tuple[Any, _Storages]:
    def never(block: Block, target: memoryview) -> None:
        raise DamagedError(f'the storage {block.key} is missing')

    storages = _Storages(never, size, map_location)
    root = Unpickler(
        file,
        size,
        {**names, **TORCH} if names else TORCH,
        budget,
        protocol=2,
        storages=storages.of_legacy,
        views=VIEWS_BASE + VIEWS_FACTOR * size,
    ).load()
    keys = Unpickler(file, size, {}, budget, protocol=2).load()
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise DamagedError('its list of storages is no list of names')
    for key in keys:
        block = storages.blocks.get(key) if len(key) <= 60 else None
        if block is None or block.content is not None:
            raise DamagedError('its list of storages names others than its tensors')
        _fill_legacy(file, size, block, map_location)
    return root, storages


def _fill_legacy(file: BinaryIO, size: int, block: Block, map_location: MapLocation) -> None:
    head = file.read(8)
    if len(head) != 8 or block.nbytes > size - file.tell():
        raise DamagedError('a storage is cut short')
    count = struct.unpack('<q', head)[0]
    if count < 0 or block.nbytes % max(count, 1) or (count == 0) != (block.nbytes == 0):
        raise DamagedError(f'a storage of {count} elements and {block.nbytes:,} bytes')
    content = torch.empty(block.nbytes, dtype=torch.uint8, device='cpu')
    if block.nbytes:
        target = _bytes_of(content)
        if file.readinto(target) != block.nbytes:  # type: ignore[attr-defined]
            raise DamagedError('a storage is cut short')
        if sys.byteorder == 'big' and block.element > 1:  # it is always little
            np.frombuffer(target, f'u{block.element}').byteswap(inplace=True)
    block.content = _moved(content.untyped_storage(), block.location, map_location)


def load_from_bytes(machine: Unpickler, content: Any) -> Storage:
    """``torch.storage._load_from_bytes``: a storage, of a torch file in the pickle.

    Tensors that were pickled by :mod:`pickle` itself, and not by ``torch.save``, are written so.
    """
    if type(content) is not bytes or not content.startswith(LEGACY_MAGIC):
        raise RefusedError(f'a storage that is a {type(content).__name__}')
    budget = Budget(len(content), base=4096)
    file = io.BytesIO(content)
    if machine.known_start and content.startswith(machine.known_start):  # nearly always the same
        file.seek(len(machine.known_start))
    else:
        _check_start(file, len(content), budget)
        machine.known_start = content[: file.tell()]
    root, _ = _legacy(file, len(content), {}, 'cpu', budget)
    if type(root) is not Storage:
        raise RefusedError(f'a storage that is a {type(root).__name__}')
    machine.charge(300 + root.nbytes)
    return root
