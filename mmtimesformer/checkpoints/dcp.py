"""Read, verify and remove sharded (distributed) checkpoints: a small file and a folder of shards.

``epoch_3.pth`` holds all but the content of the tensors. The folder ``epoch_3.pth.1f2e3d4c.shares``
holds that, one shard from each rank, in the format of :mod:`torch.distributed.checkpoint`. The file
names its folder and is written last, so a file that exists has a complete folder. A second
``epoch_3.pth`` has a folder of another name.
"""

import copy
import glob
import inspect
import io
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from mmtimesformer.checkpoints.dcp_metadata import METADATA, read_description
from mmtimesformer.checkpoints.torch_checkpoints import (
    first_line,
    load_bounded_torch,
    read_torch,
    why_refused,
)
from mmtimesformer.fileio.safe_pickle import InstructionError, RefusedError
from mmtimesformer.fileio.safe_zip import SafeZip, ZipError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem

KEY = 'shares'  # in a checkpoint: the folder, the bytes of each of its files, and a checksum
NAME = re.compile(r'(?P<checkpoint>.+)\.[0-9a-f]{8}\.shares')


# -- Nested containers of tensors ------------------------------------------------------------------


def change_tensors(
    tree: object,
    change: Callable[[str, Tensor], object],
    name: str = '',
    memo: dict[int, tuple[object, object]] | None = None,
) -> Any:
    """Replace every tensor of nested containers; dictionaries keep their type.

    Args:
        tree: Dictionaries, lists and tuples around tensors and other things.
        change: Takes the path, such as ``'optimizer/state/0/exp_avg'``, and the tensor.
        name: The path of the tree itself.
        memo: The containers that were changed already, so that references stay the same.
    """
    memo = {} if memo is None else memo
    if isinstance(tree, Tensor):
        return change(name, tree)
    if id(tree) in memo:
        return memo[id(tree)][1]
    if isinstance(tree, dict):
        changed: Any = copy.copy(tree)  # a state dict has attributes of its own
        memo[id(tree)] = tree, changed
        for key, value in tree.items():
            changed[key] = change_tensors(value, change, f'{name}/{key}'.lstrip('/'), memo)
    elif isinstance(tree, list | tuple) and type(tree) in (list, tuple):
        changed = type(tree)(
            change_tensors(value, change, f'{name}/{i}'.lstrip('/'), memo)
            for i, value in enumerate(tree)
        )
        memo[id(tree)] = tree, changed
    else:
        return tree
    return changed


def tensors_of(tree: object) -> dict[str, Tensor]:
    """Return the tensors of nested containers by their paths, as in :func:`change_tensors`."""
    found: dict[str, Tensor] = {}
    change_tensors(tree, found.__setitem__)
    return found


def without_content(tree: object) -> Any:
    """Replace every tensor by one of its shape and type without content."""
    return change_tensors(
        tree, lambda _, tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device='meta')
    )


# -- Reading ---------------------------------------------------------------------------------------


def is_sharded_checkpoint(checkpoint: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether the tensors of a checkpoint are in a folder of shards."""
    return isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(KEY), Mapping)


def may_be_sharded(path: Path) -> bool:
    """Whether a file can be a sharded checkpoint, without reading all of it."""
    return b'.shares' in _texts_of(path)


def allocate_full(_: str, tensor: Tensor) -> Tensor:
    """Allocate a complete tensor."""
    return torch.empty_like(tensor, device='cpu')


def load_sharded(
    checkpoint: object, path: Path, allocate: Callable[[str, Tensor], Tensor] = allocate_full
) -> Any:
    """Return a checkpoint with the content of its tensors.

    Args:
        checkpoint: What was read from a file; one that is not sharded is returned as it is.
        path: The file, in whose folder the folder of shards is.
        allocate: Takes the path of a tensor and one without content, and returns the tensor to
            fill; of a ``DTensor`` this rank's part is filled.

    Raises:
        FileNotFoundError: A shard is missing.
        ValueError: They are damaged, or hold a program.
    """
    if not is_sharded_checkpoint(checkpoint):
        return checkpoint
    folder, metadata = read_metadata(checkpoint, path)
    targets: dict[str, Tensor] = {}

    def target_of(place: str, tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor
        saved: Any = metadata.state_dict_metadata.get(place)
        if saved is None or saved.size != tensor.shape or saved.properties.dtype != tensor.dtype:
            raise ValueError(
                f'{folder} has no {place[:200]} of shape {tuple(tensor.shape)} and {tensor.dtype}'
            )
        targets[place] = allocate(place, tensor)
        return targets[place]

    filled = change_tensors(checkpoint, target_of)
    _fill(targets, folder, metadata)
    del filled[KEY]
    return filled


def _fill(targets: dict[str, Tensor], folder: Path, metadata: 'Metadata') -> None:
    """Read tensors by their paths, in this process alone; of a ``DTensor``, its local part."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.futures import Future

    if 'no_dist' not in inspect.signature(load).parameters:
        raise ValueError(
            f'the shards in {folder} are read with torch 2.7 or newer, and this is '
            f'{torch.__version__}'
        )

    class Reader(FileSystemReader):
        def read_metadata(self, *_: object, **__: object) -> 'Metadata':
            return metadata

        def read_data(self, plan: 'LoadPlan', planner: 'LoadPlanner') -> Future[None]:
            for item in plan.items:
                _read_part(item, planner, folder, metadata)
            done: Future[None] = Future()
            done.set_result(None)
            return done

    class Planner(DefaultLoadPlanner):
        def load_bytes(self, *_: object, **__: object) -> None:
            raise ValueError('something else than tensors')  # which torch would execute

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'torch.distributed is disabled')
            load(targets, storage_reader=Reader(folder), planner=Planner(), no_dist=True)
    except CheckpointException as error:  # a BaseException
        why = first_line(problem_of(error))
        raise ValueError(f'{folder} is damaged ({why}); take an earlier checkpoint') from error


def _read_part(
    item: 'ReadItem', planner: 'LoadPlanner', folder: Path, metadata: 'Metadata'
) -> None:
    """Read what a plan asks for of one tensor, and no more bytes than its part has."""
    from torch.distributed.checkpoint.planner import LoadItemType

    if item.type is LoadItemType.BYTE_IO:
        planner.load_bytes(item, io.BytesIO())
        return
    info = metadata.storage_data[item.storage_index]
    tensor = _tensor_of(folder, info)
    for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
        tensor = tensor.narrow(dim, start, length)
    target = planner.resolve_tensor(item).detach()
    if target.shape != tensor.shape or target.dtype != tensor.dtype:
        raise ValueError(f'{info.relative_path} has a tensor of another shape or type')
    target.copy_(tensor)
    planner.commit_tensor(item, target)


def _bytes_of(folder: Path, info: Any) -> io.BytesIO:
    with (folder / info.relative_path).open('rb') as file:
        file.seek(info.offset)
        return io.BytesIO(file.read(info.length))


def _tensor_of(folder: Path, info: Any) -> Tensor:
    content = _bytes_of(folder, info)
    try:
        tensor = read_torch(content, info.length)
    except (ZipError, RefusedError, InstructionError) as error:
        raise ValueError(f'{info.relative_path} {why_refused(error)}') from None
    if not isinstance(tensor, Tensor):
        raise ValueError(f'{info.relative_path} has a {type(tensor).__name__}, not a tensor')
    return tensor


def problem_of(error: 'CheckpointException') -> Exception:
    """Return the exception of a rank that torch wraps, if possible one that is no ``OSError``.

    Raises:
        BaseException: A rank was interrupted.
    """
    problems = []
    for problem, _ in error.failures.values():
        if not isinstance(problem, Exception):
            raise problem
        problems.append(problem)
    return min(problems, key=lambda problem: isinstance(problem, OSError))


def read_metadata(checkpoint: Mapping[str, Any], path: Path) -> tuple[Path, 'Metadata']:
    """Find a checkpoint's folder of shards, and read its metadata.

    Raises:
        FileNotFoundError: The folder, or a file of it, is not there.
        ValueError: It is damaged, asks for anything else, or points out of the folder.
    """
    name, files = checkpoint[KEY].get('folder'), checkpoint[KEY].get('files')
    if (
        not (isinstance(name, str) and Path(name).name == name and NAME.fullmatch(name))
        or not isinstance(files, Mapping)
        or not all(type(f) is str and type(size) is int for f, size in files.items())
        or METADATA not in files
    ):
        raise ValueError(f'checkpoint {path} does not name the folder of its shards; take another')
    folder = path.parent / name
    for file, size in files.items():
        if Path(file).name != file or not (folder / file).is_file():
            raise FileNotFoundError(
                f'checkpoint {path} has its weights in {folder}, where {file} is missing; copy the '
                'folder to where the checkpoint is, or take another one'
            )
        if (folder / file).stat().st_size != size:
            raise ValueError(
                f'checkpoint {path}: {folder / file} has {(folder / file).stat().st_size:,} bytes '
                f'and had {size:,}; copy it again, or take an earlier checkpoint'
            )
    return folder, read_description(checkpoint[KEY], folder)


def corruption_of_shards(path: str | os.PathLike[str]) -> str | None:
    """Return what is wrong with the shards of a checkpoint file, if it has any; read all bytes."""
    path = Path(path)
    if not may_be_sharded(path):
        return None
    try:
        checkpoint = load_bounded_torch(path)
    except ValueError:  # reported when it is loaded
        return None
    except OSError as error:
        return str(error)
    if not is_sharded_checkpoint(checkpoint):
        return None
    try:
        folder, metadata = read_metadata(checkpoint, path)
        for info in metadata.storage_data.values():
            if SafeZip(_bytes_of(folder, info), info.length).corrupt_member():
                return f'{folder / info.relative_path} does not match its checksum'
    except Exception as error:  # whatever surfaces is damage
        return str(error) or repr(error)
    return None


# -- Removing --------------------------------------------------------------------------------------


def remove_stale_shards(
    folder: str | os.PathLike[str], names: Sequence[str] | None = None
) -> list[Path]:
    """Remove folders of shards that no file in the folder names; return them.

    Call it only where no other process writes, such as under the lock of a ``work_dir``.

    Args:
        folder: Where the checkpoints are.
        names: Only the shards of checkpoints of these names, which were written or removed.
    """
    folder = Path(folder)
    found = [
        path
        for path in sorted(folder.glob('*.shares'))
        if (named := NAME.fullmatch(path.name))
        and path.is_dir()
        and (names is None or named['checkpoint'] in names)
    ]
    unknown = [
        path
        for path in found
        if path.name.encode() not in _texts_of(path.with_suffix('').with_suffix(''))
    ]
    if unknown:  # a checkpoint may have been copied or renamed
        texts = [_texts_of(path) for path in folder.iterdir() if path.is_file()]
        unknown = [path for path in unknown if not any(path.name.encode() in t for t in texts)]
    for path in unknown:
        shutil.rmtree(path, ignore_errors=True)
    return unknown


def _texts_of(path: Path) -> bytes:
    """Return the part of a torch file that holds all text, of which nothing is executed.

    For a damaged file, these are the names of all folders of shards that may be its own.
    """
    if not path.is_file():  # opening a pipe would block
        return b''
    try:
        with path.open('rb') as file:
            archive = SafeZip(file, path.stat().st_size)
            return b''.join(archive.read(n) for n in archive.members if n.endswith('/data.pkl'))
    except Exception:  # a damaged checkpoint, or another file
        shards = path.parent.glob(f'{glob.escape(path.name)}.*.shares')
        return '\n'.join(folder.name for folder in shards).encode()
