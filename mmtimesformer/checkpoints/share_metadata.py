"""What a folder of shares says of its tensors, read without trust.

:mod:`torch.distributed.checkpoint` keeps it in ``.metadata``, a pickle, which torch would execute,
and which may ask torch to execute more. Here it may describe tensors and nothing else.
"""

import inspect
import io
import math
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

METADATA = '.metadata'
DTYPES = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
ALLOWED = {  # what a description of tensors is made of
    'torch.distributed.checkpoint.metadata': {
        'ChunkStorageMetadata', 'Metadata', 'MetadataIndex', 'StorageMeta', 'TensorProperties',
        'TensorStorageMetadata', '_MEM_FORMAT_ENCODING',
    },
    'torch.distributed.checkpoint.filesystem': {'_StorageInfo'},
    'torch.serialization': {'_get_layout'},
    'torch': {'Size', *(str(dtype).removeprefix('torch.') for dtype in DTYPES)},
}  # fmt: skip


def read_description(said: Mapping[str, Any], folder: Path) -> Any:
    """Read what a folder says of its tensors, and see that they are all there; nothing is executed.

    Args:
        said: What the checkpoint says of the folder.
        folder: The folder.

    Raises:
        ValueError: It is damaged, asks for anything else, or points out of the folder.
    """
    content = (folder / METADATA).read_bytes()
    if zlib.crc32(content) != said.get('checksum'):
        raise ValueError(f'{folder / METADATA} is damaged; copy it again, or take another one')
    try:
        metadata = _Unpickler(io.BytesIO(content)).load()
        _check(metadata, said['files'])
    except pickle.UnpicklingError as error:
        raise ValueError(
            f'{folder / METADATA} is refused: it asks for {error}, and shares are tensors alone; '
            'take a checkpoint from a source you trust'
        ) from error
    except Exception as error:  # A broken byte can surface as any exception of the unpickler.
        raise ValueError(f'{folder / METADATA} is damaged ({error!r}); take another one') from error
    return metadata


class _Unpickler(pickle._Unpickler):
    """Builds descriptions of tensors, and nothing else."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_build(self) -> None:
        """Give a new object its attributes; torch's classes keep theirs."""
        if isinstance(self.stack[-2], type) or inspect.isroutine(self.stack[-2]):
            raise pickle.UnpicklingError('a change of a class')
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        if module.split('.')[0] == 'pathlib':  # where it lay when it was written
            return lambda *parts: '/'.join(map(str, parts))
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f'{module}.{name}')
        return super().find_class(module, name)


def _check(metadata: Any, files: Mapping[str, int]) -> None:
    """See that what was described are tensors, all of each, in these files."""
    from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

    if type(metadata) is not Metadata:
        raise pickle.UnpicklingError(f'a {type(metadata).__name__}')
    described = 0
    for name, saved in metadata.state_dict_metadata.items():
        if type(saved) is not TensorStorageMetadata:
            raise pickle.UnpicklingError(f'a {type(saved).__name__}')
        if not _is_all(saved):
            raise ValueError(f'not all of {name}')
        described += math.prod(saved.size) * saved.properties.dtype.itemsize
    if described > sum(files.values()):
        raise ValueError(f'{described:,} bytes of tensors')
    for info in metadata.storage_data.values():
        if getattr(info, 'transform_descriptors', None):
            raise pickle.UnpicklingError(f'the transforms {info.transform_descriptors!r}')
        if info.relative_path not in files:
            raise pickle.UnpicklingError(f'the file {info.relative_path!r}')
        if not 0 <= info.offset <= info.offset + info.length <= files[info.relative_path]:
            raise ValueError(f'bytes {info.offset} to {info.offset + info.length}')


def _is_all(saved: Any) -> bool:
    """Whether the parts of a tensor, cut along its first dimension, are all of it."""
    size = tuple(saved.size)
    parts = [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in saved.chunks]
    if not size:
        return parts == [((), ())]
    if min(size) < 0:
        return False
    end = 0
    for offsets, sizes in sorted(part for part in parts if part[1][0] != 0):
        if offsets != (end, *(0 for _ in size[1:])) or sizes[1:] != size[1:] or sizes[0] < 0:
            return False
        end += sizes[0]
    return end == size[0]
