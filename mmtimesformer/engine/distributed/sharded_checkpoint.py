"""Write and read sharded checkpoints, gather full tensors and scatter them to processes.

The format is that of :mod:`mmtimesformer.checkpoints.dcp`.
"""

import os
import re
import time
import zlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from mmengine import dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from mmtimesformer.checkpoints.dcp import (
    KEY,
    allocate_full,
    change_tensors,
    is_sharded_checkpoint,
    load_sharded,
    may_be_sharded,
    problem_of,
    tensors_of,
    without_content,
)
from mmtimesformer.checkpoints.dcp_metadata import METADATA, read_description
from mmtimesformer.checkpoints.torch_checkpoints import load_bounded_torch
from mmtimesformer.engine.distributed.collectives import (
    all_ranks,
    broadcast_from_rank0,
    raise_on_all_ranks,
)
from mmtimesformer.fileio.atomic import sync_folder

WRITE_ERROR = re.compile('PytorchStreamWriter|inline_container')  # torch raises RuntimeError
PATIENCE = 10  # seconds until a file of one machine is visible on another


def write_shards(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write each process's shards of tensors into a new folder next to a checkpoint file.

    All processes must call it, on a file system that all of them see. The checkpoint file itself,
    at ``path``, is written afterwards.

    Returns:
        The entries without content, and the one that names the folder and its files.

    Raises:
        OSError: A process could not write; it is raised in all.
        ValueError: This version of torch writes metadata that cannot be read safely.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    folder = path.with_name(f'{path.name}.{broadcast_from_rank0(uuid4().hex[:8])}.shares')
    try:
        save(tensors_of(state), storage_writer=FileSystemWriter(folder))
    except CheckpointException as error:  # a BaseException
        why = problem_of(error)
        if not isinstance(why, OSError) and not (
            isinstance(why, RuntimeError) and WRITE_ERROR.search(str(why))
        ):
            raise why from error
        ranks = ', '.join(map(str, error.failures))
        raise OSError(f'process {ranks} could not write its shard: {why}') from error
    checksum = 0
    with raise_on_all_ranks():
        own = [folder / METADATA] if dist.is_main_process() else []
        own += sorted(folder.glob(f'__{dist.get_rank()}_*'))
        sizes = {file.name: file.stat().st_size for file in own}
        if dist.is_main_process():
            checksum = zlib.crc32((folder / METADATA).read_bytes())
        sync_folder(folder)
    # Each process lists its own files: those of another machine may not be visible yet.
    files = {name: size for part in dist.all_gather_object(sizes) for name, size in part.items()}
    entry = {'folder': folder.name, 'files': files, 'checksum': checksum}
    problem: OSError | ValueError | None = None
    if dist.is_main_process():
        try:
            read_description(entry, folder)
        except (OSError, ValueError) as error:
            problem = error
    if problem := broadcast_from_rank0(problem):
        raise problem
    return {**without_content(state), KEY: entry}


def check_seen_by_all(folder: Path) -> None:
    """Check that a file of one process is visible to all; all processes must call it.

    Raises:
        ValueError: It is not.
    """
    probe = folder / broadcast_from_rank0(f'.{uuid4().hex}.part')
    with raise_on_all_ranks():
        if dist.is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
    deadline = time.monotonic() + PATIENCE
    while not (seen := probe.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    seen_by_all = all_ranks(seen)
    if dist.is_main_process():
        probe.unlink(missing_ok=True)
    if not seen_by_all:
        raise ValueError(
            f"model_wrapper_cfg.checkpoints='sharded' needs a folder that all machines see, and "
            f"{folder} is not one; set work_dir to a network disk, or take 'full'"
        )


def read_own_shards(
    path: str | os.PathLike[str],
    weights: dict[str, Tensor],
    parameters: list[Tensor] | None,
) -> dict[str, Any] | None:
    """Read a sharded checkpoint, of its tensors this process's shards.

    Return ``None`` if it is not sharded, or has other weights than the model's. Without the
    ``parameters`` of the optimizer, its state and the gradients are left out.

    Raises:
        FileNotFoundError: The shards are missing.
        ValueError: They are damaged.
    """
    path = Path(path).expanduser()
    if not may_be_sharded(path):
        return None
    checkpoint = load_bounded_torch(path)
    if not is_sharded_checkpoint(checkpoint):
        return None
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in checkpoint['state_dict'].items()}:
        return None
    if parameters is None:
        checkpoint = {k: v for k, v in checkpoint.items() if k not in ('optimizer', 'gradients')}
    of_optimizer = {f'state/{n}': held for n, held in enumerate(parameters or ())}

    def room(place: str, tensor: Tensor) -> Tensor:
        part, _, name = place.partition('/')
        if part == 'optimizer':
            held = of_optimizer.get(name.rpartition('/')[0])
        else:
            held = weights.get(name.removeprefix('module.'))
        return _room_like(held, tensor)

    return load_sharded(checkpoint, path, room)


def _room_like(held: Tensor | None, saved: Tensor) -> Tensor:
    """Allocate a tensor, sharded as another one of its shape is."""
    if isinstance(held, DTensor) and held.shape == saved.shape:
        return torch.empty_like(held, dtype=saved.dtype, requires_grad=False)
    return allocate_full('', saved)


def gather_full(tree: Any) -> Any:
    """Gather all sharded tensors of a tree, one at a time.

    All processes must call it with the same tree; the main one gets the full tensors, the others
    ``None``.
    """

    def full(_: str, tensor: Tensor) -> Tensor | None:
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        return tensor.detach().cpu() if dist.is_main_process() else None

    return change_tensors(tree, full)


def shard_like(shard: object, full: Any) -> Any:
    """Return this process's shard of a full tensor, cut as another tensor of that shape is.

    Anything but a full tensor of that shape is returned as it is.
    """
    if (
        not isinstance(shard, DTensor)
        or not isinstance(full, Tensor)
        or isinstance(full, DTensor)
        or full.shape != shard.shape
    ):
        return full
    cut = distribute_tensor(full, shard.device_mesh, shard.placements, src_data_rank=None)
    own = torch.empty_like(shard, dtype=full.dtype, requires_grad=False)
    return own.copy_(cut)  # a view would keep the full tensor in memory
