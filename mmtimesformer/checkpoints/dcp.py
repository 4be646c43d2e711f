"""Checkpoints of which every process writes its share: a small file, and a folder beside it.

``epoch_3.pth`` holds all but the content of the tensors, and ``epoch_3.pth.1f2e3d4c.shares`` that,
in the format of :mod:`torch.distributed.checkpoint`. The file names its folder and is written last,
so the two are whole together or not at all; a second ``epoch_3.pth`` has a folder of another name.
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
from typing import Any

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

KEY = 'shares'  # in a checkpoint: the folder, the bytes of each of its files, and a checksum
NAME = re.compile(r'(?P<checkpoint>.+)\.[0-9a-f]{8}\.shares')


# -- Trees with tensors ----------------------------------------------------------------------------


def change_tensors(
    tree: Any,
    change: Callable[[str, Tensor], Any],
    name: str = '',
    memo: dict[int, tuple[Any, Any]] | None = None,
) -> Any:
    """Put something else in the place of every tensor; dictionaries keep their kind.

    Args:
        tree: Dictionaries, lists and tuples around tensors and other things.
        change: Is given the place, such as ``'optimizer/state/0/exp_avg'``, and the tensor.
        name: The place of the tree itself.
        memo: Each container that was seen, and what became of it: what is shared stays shared.
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
    elif type(tree) in (list, tuple):
        changed = type(tree)(
            change_tensors(value, change, f'{name}/{i}'.lstrip('/'), memo)
            for i, value in enumerate(tree)
        )
        memo[id(tree)] = tree, changed
    else:
        return tree
    return changed


def tensors_of(tree: Any) -> dict[str, Tensor]:
    """Return the tensors of a tree by their places, as :func:`change_tensors` meets them."""
    found: dict[str, Tensor] = {}
    change_tensors(tree, found.__setitem__)
    return found


def without_content(tree: Any) -> Any:
    """Let every tensor keep its shape and type alone."""
    return change_tensors(
        tree, lambda _, tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device='meta')
    )


# -- Reading ---------------------------------------------------------------------------------------


def is_sharded_checkpoint(checkpoint: Any) -> bool:
    """Whether the tensors of a checkpoint lie in a folder beside it."""
    return isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(KEY), Mapping)


def may_be_sharded(path: Path) -> bool:
    """Whether :func:`is_sharded_checkpoint` may be true of a file, which is not read for it."""
    return b'.shares' in _texts_of(path)


def allocate_full(_: str, tensor: Tensor) -> Tensor:
    """Make room for all of a tensor."""
    return torch.empty_like(tensor, device='cpu')


def load_sharded(
    checkpoint: Any, path: Path, room: Callable[[str, Tensor], Tensor] = allocate_full
) -> Any:
    """Return a checkpoint with its tensors, wherever it has them.

    Args:
        checkpoint: What was read from a file; one without shares comes back as it is.
        path: The file, beside which the shares lie.
        room: Makes room for a tensor, from its place and from one without content; what is cut
            among processes takes this one's share.

    Raises:
        FileNotFoundError: The shares are not there.
        ValueError: They are damaged, or hold a program.
    """
    if not is_sharded_checkpoint(checkpoint):
        return checkpoint
    folder, metadata = read_metadata(checkpoint, path)
    targets: dict[str, Tensor] = {}

    def make_room(place: str, tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor
        saved = metadata.state_dict_metadata.get(place)
        if saved is None or saved.size != tensor.shape or saved.properties.dtype != tensor.dtype:
            raise ValueError(
                f'{folder} has no {place[:200]} of shape {tuple(tensor.shape)} and {tensor.dtype}'
            )
        targets[place] = room(place, tensor)
        return targets[place]

    filled = change_tensors(checkpoint, make_room)
    _fill(targets, folder, metadata)
    del filled[KEY]
    return filled


def _fill(targets: dict[str, Tensor], folder: Path, metadata: Any) -> None:
    """Read tensors by their places, in this process alone; of a cut one, its own share."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.futures import Future

    if 'no_dist' not in inspect.signature(load).parameters:
        raise ValueError(
            f'shares such as {folder} are read with torch 2.7 or newer, and this is '
            f'{torch.__version__}'
        )

    class Reader(FileSystemReader):
        def read_metadata(self, *_: Any, **__: Any) -> Any:
            return metadata

        def read_data(self, plan: Any, planner: Any) -> Any:
            for item in plan.items:
                _read_part(item, planner, folder, metadata)
            done: Future[None] = Future()
            done.set_result(None)
            return done

    class Planner(DefaultLoadPlanner):
        def load_bytes(self, *_: Any, **__: Any) -> None:
            raise ValueError('something else than tensors')  # which torch would execute

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'torch.distributed is disabled')
            load(targets, storage_reader=Reader(folder), planner=Planner(), no_dist=True)
    except CheckpointException as error:  # no Exception, so that it would pass most nets
        why = first_line(problem_of(error))
        raise ValueError(f'{folder} is damaged ({why}); take an earlier checkpoint') from error


def _read_part(item: Any, planner: Any, folder: Path, metadata: Any) -> None:
    """Read what a plan wants of one tensor; no more than its part has bytes."""
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


def _tensor_of(folder: Path, info: Any) -> Tensor:
    with (folder / info.relative_path).open('rb') as file:
        file.seek(info.offset)
        part = io.BytesIO(file.read(info.length))
    try:
        tensor = read_torch(part, info.length)
    except (ZipError, RefusedError, InstructionError) as error:
        raise ValueError(f'{info.relative_path} {why_refused(error)}') from None
    if not isinstance(tensor, Tensor):
        raise ValueError(f'{info.relative_path} has a {type(tensor).__name__}, and no tensor')
    return tensor


def problem_of(error: Any) -> Exception:
    """Return why torch failed, of what it wraps all in; before the disk's fault, somebody's.

    Raises:
        BaseException: It was no error at all, but somebody who wanted the end.
    """
    problems: list[BaseException] = [problem for problem, _ in error.failures.values()]
    for problem in problems:
        if not isinstance(problem, Exception):
            raise problem
    found: list[Any] = [p for p in problems if not isinstance(p, OSError)] or problems
    return found[0]


def read_metadata(checkpoint: Mapping[str, Any], path: Path) -> tuple[Path, Any]:
    """Find a checkpoint's folder, and read what it says of its tensors.

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
        raise ValueError(f'checkpoint {path} does not say where its shares are; take another one')
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
    """Say what is wrong with the shares of a checkpoint file, or ``None``; all bytes are read.

    Args:
        path: The file. One that has no shares is not looked at.
    """
    path = Path(path)
    if not may_be_sharded(path):
        return None
    try:
        checkpoint = load_bounded_torch(path)
    except ValueError:  # of which whoever loads it says more
        return None
    except OSError as error:
        return str(error)
    if not is_sharded_checkpoint(checkpoint):
        return None
    try:
        folder, metadata = read_metadata(checkpoint, path)
        for info in metadata.storage_data.values():
            with (folder / info.relative_path).open('rb') as file:
                file.seek(info.offset)
                part = io.BytesIO(file.read(info.length))
            if SafeZip(part, info.length).corrupt_member():
                return f'{folder / info.relative_path} does not match its checksum'
    except Exception as error:  # whatever surfaces is damage
        return str(error) or repr(error)
    return None


# -- Removing --------------------------------------------------------------------------------------


def remove_stale_shards(
    folder: str | os.PathLike[str], names: Sequence[str] | None = None
) -> list[Path]:
    """Remove shares that no file in the folder names; return what it was.

    Call it only where no other process writes, such as under the lock of a ``work_dir``.

    Args:
        folder: Where checkpoints and their shares are.
        names: Only the shares of checkpoints of these names, which were written or removed.
    """
    folder = Path(folder)
    found = [
        path
        for path in sorted(folder.glob('*.shares'))
        if (named := NAME.fullmatch(path.name))
        and path.is_dir()
        and (names is None or named['checkpoint'] in names)
    ]
    unknown = [path for path in found if path.name.encode() not in _texts_of(_checkpoint_of(path))]
    if unknown:  # a checkpoint may have been copied, or given another name
        texts = [_texts_of(path) for path in folder.iterdir() if path.is_file()]
        unknown = [path for path in unknown if not any(path.name.encode() in t for t in texts)]
    for path in unknown:
        shutil.rmtree(path, ignore_errors=True)
    return unknown


def _checkpoint_of(shares: Path) -> Path:
    return shares.with_suffix('').with_suffix('')


def _texts_of(path: Path) -> bytes:
    """Return the part of a torch file in which all text is, nothing of which is executed.

    Of a damaged one, in which anything may have been, it names the shares that bear its name.
    """
    if not path.is_file():  # a pipe would be waited for
        return b''
    try:
        with path.open('rb') as file:
            archive = SafeZip(file, path.stat().st_size)
            return b''.join(archive.read(n) for n in archive.members if n.endswith('/data.pkl'))
    except Exception:  # a checkpoint that was one, or another file
        shards = path.parent.glob(f'{glob.escape(path.name)}.*.shares')
        return '\n'.join(folder.name for folder in shards).encode()
