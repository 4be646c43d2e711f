"""Read the metadata of a sharded checkpoint; execute nothing.

:mod:`torch.distributed.checkpoint` keeps it in ``.metadata``, a pickle, which torch would execute.
Here it can describe tensors and nothing else.
"""

import importlib
import io
import math
import zlib
from collections.abc import Callable, ItemsView, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from mmtimesformer.fileio.safe_pickle import (
    Blocks,
    Budget,
    Constant,
    Names,
    RefusedError,
    StandIn,
    Unpickler,
    constant_of,
    shown,
)
from mmtimesformer.fileio.stand_ins import DTYPES, TORCH

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

METADATA = '.metadata'
ALLOWED = {  # what a description of tensors is made of
    'torch.distributed.checkpoint.metadata': {
        'ChunkStorageMetadata', 'Metadata', 'MetadataIndex', 'StorageMeta', 'TensorProperties',
        'TensorStorageMetadata', '_MEM_FORMAT_ENCODING',
    },
    'torch.distributed.checkpoint.filesystem': {'_StorageInfo'},
}  # fmt: skip
PATHS = ('PosixPath', 'WindowsPath', 'PurePosixPath', 'PureWindowsPath', 'Path')


def read_description(entry: Mapping[str, Any], folder: Path) -> 'Metadata':
    """Read the metadata of a folder of shards, and check that they describe all tensors.

    Args:
        entry: What the checkpoint stores of the folder.
        folder: The folder.

    Raises:
        ValueError: It is damaged, asks for anything else, or points out of the folder.
    """
    content = (folder / METADATA).read_bytes()
    if zlib.crc32(content) != entry.get('checksum'):
        raise ValueError(f'{folder / METADATA} is damaged; copy it again, or take another one')
    try:
        metadata = _read(content)
        _check(metadata, entry['files'])
    except RefusedError as error:
        raise ValueError(
            f'{folder / METADATA} is refused: it asks for {error}, and shards hold only tensors; '
            'take a checkpoint from a source you trust'
        ) from error
    except Exception as error:  # a broken byte can raise any exception in torch's classes
        raise ValueError(f'{folder / METADATA} is damaged ({error}); take another one') from error
    return metadata


# -- Reading ---------------------------------------------------------------------------------------


class _Record(StandIn):
    """An object of one of the classes in :data:`ALLOWED`: its fields."""

    may_be_key = True  # hashed by identity

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.fields: dict[str, object] = {}

    def build(self, machine: Unpickler, state: object) -> None:
        if self.name == 'TensorProperties' and type(state) is tuple and len(state) == 5:
            state = {'dtype': state[0]}  # the others are those of every tensor that is saved
        if type(state) is not dict or not all(type(key) is str for key in state):
            raise RefusedError(f'a {self.name} of another make')
        self.fields = state

    def settle(self, blocks: Blocks) -> NoReturn:
        raise RefusedError(f'a bare {self.name}')

    def make(self, **fields: object) -> Any:
        """Return an object of the class itself, with these fields."""
        kind = getattr(importlib.import_module(self.module), self.name)
        made = kind.__new__(kind)
        vars(made).update(fields)
        return made


def _names() -> Names:
    names: dict[str, Callable[..., Any] | Constant] = {
        f'{module}.{name}': _maker(module, name) for module in ALLOWED for name in ALLOWED[module]
    }
    for module in ('pathlib', 'pathlib._local'):  # the folder in which it was written
        names.update({f'{module}.{name}': lambda *_: '' for name in PATHS})
    wanted = ('torch.Size', 'torch.serialization._get_layout', *(f'torch.{x}' for x in DTYPES))
    return names | {name: TORCH[name] for name in wanted}


def _maker(module: str, name: str) -> Callable[..., _Record]:
    return lambda _machine, *_args: _Record(module, name)


def _read(content: bytes) -> 'Metadata':
    """Run the pickle, and make torch's own classes of fields of the right types.

    A container that several tensors refer to is read, and counted, for each of them.
    """
    root = Unpickler(io.BytesIO(content), len(content), _names(), Budget(len(content))).load()
    described = _fields(root, 'Metadata')
    steps = iter(range(1000 + len(content)))
    tensors = {
        _text(name): _tensor(value, steps)
        for name, value in _items(described.get('state_dict_metadata'))
    }
    places = {}
    for index, value in _items(described.get('storage_data')):
        of_index, info = _fields(index, 'MetadataIndex'), _fields(value, '_StorageInfo')
        offset = of_index.get('offset')
        key = index.make(
            fqn=_text(of_index.get('fqn')),
            offset=None if offset is None else _size(offset),
            index=_whole(of_index.get('index') or 0),
        )
        transforms = info.get('transform_descriptors')
        if transforms is not None and not (type(transforms) in (list, tuple) and not transforms):
            raise RefusedError('the transforms of a part')
        places[key] = value.make(
            relative_path=_text(info.get('relative_path')),
            offset=_whole(info.get('offset')),
            length=_whole(info.get('length')),
            transform_descriptors=None,
        )
    made: Metadata = root.make(
        state_dict_metadata=tensors,
        planner_data=None,
        storage_data=places,
        storage_meta=None,
        version=None,
    )
    return made


def _fields(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, _Record) or value.name != name:
        raise RefusedError(_called(value))
    return value.fields


def _called(value: object) -> str:
    return f'a {value.name if isinstance(value, _Record) else type(value).__name__}'


def _items(value: object) -> ItemsView[Any, Any]:
    if not isinstance(value, dict):
        raise RefusedError(f'a table that is a {type(value).__name__}')
    return value.items()


def _tensor(value: object, steps: Iterator[int]) -> Any:
    if not isinstance(value, _Record):
        raise RefusedError(_called(value))
    properties: Any = value.fields.get('properties')
    dtype = _fields(properties, 'TensorProperties').get('dtype')
    kind = constant_of(dtype)
    if not isinstance(kind, torch.dtype):
        raise RefusedError(f'a dtype that is a {type(dtype).__name__}')
    chunks = value.fields.get('chunks')
    chunks = [] if chunks is None else chunks
    if not isinstance(chunks, list):
        raise RefusedError(f'chunks that are a {type(chunks).__name__}')
    made = []
    for chunk in chunks:
        if next(steps, None) is None:
            raise RefusedError('more chunks than the file has bytes')
        fields = _fields(chunk, 'ChunkStorageMetadata')
        made.append(
            chunk.make(offsets=_size(fields.get('offsets')), sizes=_size(fields.get('sizes')))
        )
    return value.make(
        properties=properties.make(
            dtype=kind,
            layout=torch.strided,
            requires_grad=False,
            memory_format=torch.contiguous_format,
            pin_memory=False,
        ),
        size=_size(value.fields.get('size')),
        chunks=made,
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise RefusedError(f'a name that is a {type(value).__name__}')
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise RefusedError(f'a position that is {shown(value)}')
    return value


def _size(value: object) -> torch.Size:
    if not isinstance(value, tuple | list) or len(value) > 64:
        raise RefusedError(f'a size that is a {type(value).__name__}')
    return torch.Size([_whole(n) for n in value])


# -- Checking --------------------------------------------------------------------------------------


def _check(metadata: 'Metadata', files: Mapping[str, int]) -> None:
    """Check that the metadata describe complete tensors in these files."""
    from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

    if type(metadata) is not Metadata:
        raise RefusedError(f'a {type(metadata).__name__}')
    there, described, stored = sum(files.values()), 0, 0
    for name, saved in metadata.state_dict_metadata.items():
        if type(saved) is not TensorStorageMetadata:
            raise RefusedError(f'a {type(saved).__name__}')
        if not _is_all(saved):
            raise ValueError(f'not all of {shown(name)}')
        described += math.prod(saved.size) * saved.properties.dtype.itemsize
    if described > there:
        raise ValueError(f'{described:,} bytes of tensors')
    for info in metadata.storage_data.values():
        if info.relative_path not in files:
            raise RefusedError(f'the file {shown(info.relative_path)}')
        if info.offset + info.length > files[info.relative_path]:
            raise ValueError(f'bytes {info.offset} to {info.offset + info.length}')
        stored += info.length
    if stored > there:
        raise ValueError(f'{stored:,} bytes of parts, which overlap')


def _is_all(saved: 'TensorStorageMetadata') -> bool:
    """Whether the parts of a tensor, cut along its first dimension, are all of it."""
    size = tuple(saved.size)
    parts = [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in saved.chunks]
    if not size:
        return parts == [((), ())]
    if any(len(offsets) != len(size) or len(sizes) != len(size) for offsets, sizes in parts):
        return False
    end = 0
    for offsets, sizes in sorted(part for part in parts if part[1][0] != 0):
        if offsets != (end, *(0 for _ in size[1:])) or sizes[1:] != size[1:]:
            return False
        end += sizes[0]
    return end == size[0]
