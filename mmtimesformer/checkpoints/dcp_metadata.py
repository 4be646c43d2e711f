"""Read the metadata of a sharded checkpoint; execute nothing.

:mod:`torch.distributed.checkpoint` keeps it in ``.metadata``, a pickle, which torch would execute,
and which may ask torch to execute more. Here it may describe tensors and nothing else.
"""

import importlib
import io
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mmtimesformer.fileio.safe_pickle import (
    Blocks,
    Budget,
    Constant,
    Name,
    RefusedError,
    StandIn,
    Unpickler,
    shown,
)
from mmtimesformer.fileio.stand_ins import (
    DTYPES,
    TORCH,
)

METADATA = '.metadata'
ALLOWED = {  # what a description of tensors is made of
    'torch.distributed.checkpoint.metadata': {
        'ChunkStorageMetadata', 'Metadata', 'MetadataIndex', 'StorageMeta', 'TensorProperties',
        'TensorStorageMetadata', '_MEM_FORMAT_ENCODING',
    },
    'torch.distributed.checkpoint.filesystem': {'_StorageInfo'},
}  # fmt: skip
PATHS = ('PosixPath', 'WindowsPath', 'PurePosixPath', 'PureWindowsPath', 'Path')


def read_description(entry: Mapping[str, Any], folder: Path) -> Any:
    """Read what a folder says of its tensors, and check that they are all there.

    Args:
        entry: What the checkpoint says of the folder.
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
            f'{folder / METADATA} is refused: it asks for {error}, and shares are tensors alone; '
            'take a checkpoint from a source you trust'
        ) from error
    except Exception as error:  # a broken byte can surface as any exception of torch's classes
        raise ValueError(f'{folder / METADATA} is damaged ({error}); take another one') from error
    return metadata


# -- Reading ---------------------------------------------------------------------------------------


class _Record(StandIn):
    """An object of one of the classes in :data:`ALLOWED`: its fields."""

    may_be_key = True  # hashed by identity

    def __init__(self, module: str, name: str, args: tuple[Any, ...]) -> None:
        self.module, self.name, self.args = module, name, args
        self.fields: dict[str, Any] = {}

    def build(self, machine: Unpickler, state: Any) -> None:
        if self.name == 'TensorProperties' and type(state) is tuple and len(state) == 5:
            state = {'dtype': state[0]}  # the others are those of every tensor that is saved
        if type(state) is not dict or not all(type(key) is str for key in state):
            raise RefusedError(f'a {self.name} of another make')
        self.fields = state

    def settle(self, blocks: Blocks) -> Any:
        raise RefusedError(f'a bare {self.name}')

    def make(self, **fields: Any) -> Any:
        """Return an object of the class itself, with these fields."""
        kind = getattr(importlib.import_module(self.module), self.name)
        made = kind.__new__(kind)
        vars(made).update(fields)
        return made


def _names() -> dict[str, Any]:
    names: dict[str, Any] = {
        f'{module}.{name}': _maker(module, name) for module in ALLOWED for name in ALLOWED[module]
    }
    for module in ('pathlib', 'pathlib._local'):  # where it lay when it was written
        names.update({f'{module}.{name}': lambda *_: '' for name in PATHS})
    wanted = ('torch.Size', 'torch.serialization._get_layout', *(f'torch.{x}' for x in DTYPES))
    return names | {name: TORCH[name] for name in wanted}


def _maker(module: str, name: str) -> Callable[..., _Record]:
    return lambda _machine, *args: _Record(module, name, args)


def _read(content: bytes) -> Any:
    """Run the pickle, and make torch's own classes of fields of the right types.

    Each container is walked through where a tensor needs it; what tensors share counts for each.
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
    return root.make(
        state_dict_metadata=tensors,
        planner_data=None,
        storage_data=places,
        storage_meta=None,
        version=None,
    )


def _fields(value: Any, name: str) -> dict[str, Any]:
    if type(value) is not _Record or value.name != name:
        raise RefusedError(_called(value))
    return value.fields


def _called(value: Any) -> str:
    return f'a {value.name if type(value) is _Record else type(value).__name__}'


def _items(value: Any) -> Any:
    if type(value) is not dict:
        raise RefusedError(f'a table that is a {type(value).__name__}')
    return value.items()


def _tensor(value: Any, steps: Iterator[int]) -> Any:
    if type(value) is not _Record:
        raise RefusedError(_called(value))
    properties: Any = value.fields.get('properties')
    dtype = _fields(properties, 'TensorProperties').get('dtype')
    kind = dtype.meaning.value if type(dtype) is Name and type(dtype.meaning) is Constant else None
    if not isinstance(kind, torch.dtype):
        raise RefusedError(f'a dtype that is a {type(dtype).__name__}')
    chunks = value.fields.get('chunks')
    chunks = [] if chunks is None else chunks
    if type(chunks) is not list:
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


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > 4096:
        raise RefusedError(f'a name that is a {type(value).__name__}')
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise RefusedError(f'a position that is {shown(value)}')
    return value


def _size(value: Any) -> torch.Size:
    if type(value) not in (torch.Size, tuple, list) or len(value) > 64:
        raise RefusedError(f'a size that is a {type(value).__name__}')
    return torch.Size([_whole(n) for n in value])


# -- Checking --------------------------------------------------------------------------------------


def _check(metadata: Any, files: Mapping[str, int]) -> None:
    """Check that what was described are tensors, all of each, in these files."""
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


def _is_all(saved: Any) -> bool:
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
