"""Checkpoints of a sharded model that no process ever has whole, see ``checkpoints.shares``."""

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
    change_tensors,
    is_sharded_checkpoint,
    load_sharded,
    may_be_sharded,
    problem_of,
    tensors_of,
    whole,
    without_content,
)
from mmtimesformer.checkpoints.dcp_metadata import METADATA, read_description
from mmtimesformer.checkpoints.readers import sync_folder
from mmtimesformer.checkpoints.torch_checkpoints import load_bounded_torch
from mmtimesformer.engine.distributed.collectives import (
    all_ranks,
    broadcast_from_rank0,
    raise_on_all_ranks,
)

WRITING = re.compile('PytorchStreamWriter|inline_container')  # torch's words for an OSError
PATIENCE = 10  # seconds, until a file of one machine is seen by another


def write_shares(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write what each process holds of tensors into a new folder beside a checkpoint to be.

    All processes must call it, on a file system that all of them see.

    Args:
        state: Entries of the checkpoint, with tensors that are cut into shares.
        path: The checkpoint, which is to be written when this is done.

    Returns:
        The entries without content, and the one that names the folder and its files.

    Raises:
        OSError: A process could not write; it is raised in all.
        ValueError: What was written could not be read again, by this version of torch.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    folder = path.with_name(f'{path.name}.{broadcast_from_rank0(uuid4().hex[:8])}.shares')
    try:
        save(tensors_of(state), storage_writer=FileSystemWriter(folder))
    except CheckpointException as error:  # no Exception, so that it would pass most nets
        why = problem_of(error)
        if not isinstance(why, OSError) and not (
            isinstance(why, RuntimeError) and WRITING.search(str(why))
        ):
            raise why from error
        ranks = ', '.join(map(str, error.failures))
        raise OSError(f'process {ranks} could not write its share: {why}') from error
    checksum = 0
    with raise_on_all_ranks():
        own = [folder / METADATA] if dist.is_main_process() else []
        own += sorted(folder.glob(f'__{dist.get_rank()}_*'))
        sizes = {file.name: file.stat().st_size for file in own}
        if dist.is_main_process():
            checksum = zlib.crc32((folder / METADATA).read_bytes())
        sync_folder(folder)
    # Each its own: what another machine wrote may not be seen yet.
    files = {name: size for part in dist.all_gather_object(sizes) for name, size in part.items()}
    said = {'folder': folder.name, 'files': files, 'checksum': checksum}
    problem: OSError | ValueError | None = None
    if dist.is_main_process():
        try:
            read_description(said, folder)
        except (OSError, ValueError) as error:
            problem = error
    if problem := broadcast_from_rank0(problem):
        raise problem
    return {**without_content(state), KEY: said}


def check_seen_by_all(folder: Path) -> None:
    """See that what one process writes is there for all; each must ask.

    Raises:
        ValueError: It is not.
    """
    probe = folder / broadcast_from_rank0(f'.{uuid4().hex}.part')
    with raise_on_all_ranks():
        if dist.is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
    given_up = time.monotonic() + PATIENCE
    while not (seen := probe.exists()) and time.monotonic() < given_up:
        time.sleep(0.1)
    seen_by_all = all_ranks(seen)
    if dist.is_main_process():
        probe.unlink(missing_ok=True)
    if not seen_by_all:
        raise ValueError(
            f"model_wrapper_cfg.checkpoints='shares' needs a folder that all machines see, and "
            f"{folder} is not one; set work_dir to a network disk, or take 'whole'"
        )


def read_own_shards(
    path: str | os.PathLike[str],
    weights: dict[str, Tensor],
    parameters: list[Tensor] | None,
) -> dict[str, Any] | None:
    """Read a checkpoint, of its tensors what this process holds.

    Args:
        path: The checkpoint file.
        weights: The model's, by name, each as this process holds it.
        parameters: The optimiser's; without them, its state and begun steps are left out.

    Returns:
        The checkpoint; ``None`` if it has no shares, or other weights than the model.

    Raises:
        FileNotFoundError: The shares are not there.
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
    """Make room for a tensor, cut as another one of its shape is."""
    if isinstance(held, DTensor) and held.shape == saved.shape:
        return torch.empty_like(held, dtype=saved.dtype, requires_grad=False)
    return whole('', saved)


def gather_full(tree: Any) -> Any:
    """Make whole all that is cut into shares, one tensor at a time.

    All processes must call it with the same tree; the main one gets the tensors, the others
    ``None``.
    """

    def whole(_: str, tensor: Tensor) -> Tensor | None:
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        return tensor.detach().cpu() if dist.is_main_process() else None

    return change_tensors(tree, whole)


def shard_like(share: Any, whole: Any) -> Any:
    """Return this process's share of a whole tensor, cut as another share of such a tensor is.

    What is no tensor of that shape, or not cut, comes back as it is.
    """
    if (
        not isinstance(share, DTensor)
        or not isinstance(whole, Tensor)
        or isinstance(whole, DTensor)
        or whole.shape != share.shape
    ):
        return whole
    cut = distribute_tensor(whole, share.device_mesh, share.placements, src_data_rank=None)
    own = torch.empty_like(share, dtype=whole.dtype, requires_grad=False)
    return own.copy_(cut)  # else the whole one would stay in memory, of which the cut one is a view
