"""Training what is too large for one card: every process keeps a share of every weight.

With data-parallel training each process holds all weights, gradients and optimiser states, 16 bytes
a weight with AdamW. Here each holds its share of them. The weights of a block come together in all
processes just before the block runs, and go again after it; its gradients are averaged and go where
their shares lie. torch's ``fully_shard`` does this, and what is computed is the same.

Checkpoints are for any number of processes and for all tools: whole ones, the ordinary file of an
ordinary training, or a file with a folder of shares, which no process ever has whole.
"""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine import dist
from mmengine.device import get_device
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from mmtimesformer.config.sharded_training import KEY, check_choices
from mmtimesformer.registry import MODEL_WRAPPERS

DTYPES = {'float32': None, 'bfloat16': torch.bfloat16}


@MODEL_WRAPPERS.register_module()
class FSDPModelWrapper(nn.Module):
    """A model of which every process keeps a share, as MMEngine's Runner wants it wrapped.

    Each of the model's ``blocks`` is one unit of what comes together, the rest of it another. It is
    for training by our Runner, which saves and resumes it whole.

    Args:
        module: The model, whole, the same in every process; it may lie on the CPU.
        shards: Into how many shares the weights are cut; a divisor of the number of processes, and
            all of them if not given. With fewer, each group of ``shards`` processes holds the whole
            model: with the GPUs of one machine, weights never cross the network between machines.
        block_dtype: The type in which the weights of blocks travel and blocks compute.
            ``'bfloat16'`` halves the traffic of weights and computes all of a block in it, in
            validation too; gradients are averaged, and weights updated, in float32. With
            ``'float32'`` the numbers are those of a training that is not sharded, under ``--amp
            bf16`` too.
        checkpoints: ``'whole'``, one file that the main process brings together and writes; or
            ``'shares'``, a small file and beside it a folder to which every process writes what it
            holds, at once, and from which every process reads what it is to hold. All processes
            must see the folder.

    Raises:
        ValueError: ``shards`` does not divide the number of processes, or ``block_dtype`` or
            ``checkpoints`` is not known.

    Example:
        >>> model_wrapper_cfg = dict(type='mmtimesformer.FSDPModelWrapper')
    """

    def __init__(
        self,
        module: nn.Module,
        shards: int | None = None,
        block_dtype: str = 'float32',
        checkpoints: str = 'whole',
    ) -> None:
        super().__init__()
        check_choices(block_dtype=block_dtype, checkpoints=checkpoints)
        mesh = _mesh(shards)
        in_blocks = MixedPrecisionPolicy()
        if DTYPES[block_dtype] is not None:
            in_blocks = MixedPrecisionPolicy(
                param_dtype=DTYPES[block_dtype],
                reduce_dtype=torch.float32,
                output_dtype=torch.float32,  # what stands between blocks computes in it
            )
        for block in blocks_of(module):
            fully_shard(block, mesh=mesh, mp_policy=in_blocks, reshard_after_forward=True)
        # By default the outermost unit would stay together after a validation, and an average that
        # is swapped in then would be written to what is about to go.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        module.to(get_device())
        module.__deepcopy__ = lambda memo: weights_of(module)  # type: ignore[assignment]
        self.module = module
        self.checkpoints = checkpoints

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Take a step. Accumulated batches average their gradients each: whole ones have no room.

        MMEngine would otherwise let every process keep whole gradients until the last of them.
        """
        return self.module.train_step(data, optim_wrapper)  # type: ignore[operator]

    def val_step(self, data: Any) -> list[Any]:
        """Predict, for a validation; all processes together."""
        return self.module.val_step(data)  # type: ignore[operator]

    def test_step(self, data: Any) -> list[Any]:
        """Predict, for a test; all processes together."""
        return self.module.test_step(data)  # type: ignore[operator]


def _mesh(shards: int | None) -> DeviceMesh:
    device, processes = torch.device(get_device()).type, dist.get_world_size()
    if shards is None or shards == processes:
        return init_device_mesh(device, (processes,))
    if not 1 <= shards < processes or processes % shards:
        raise ValueError(
            f'{KEY}.shards={shards} does not divide the {processes} processes of this run; set it '
            'to the number of GPUs of a machine, or leave it out'
        )
    return init_device_mesh(
        device, (processes // shards, shards), mesh_dim_names=('copies', 'shards')
    )


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """Give the members of every list of modules that is called ``blocks``."""
    for module in model.modules():
        blocks = getattr(module, 'blocks', None)
        if isinstance(blocks, nn.ModuleList):
            yield from blocks


def weights_of(model: nn.Module) -> nn.Module:
    """Copy this process's share of a model: all names and weights, nothing that computes.

    A moving average needs no more, and MMEngine's makes its copy by ``deepcopy``, which torch
    refuses for a sharded model.
    """
    weights = nn.Module()
    for name, parameter in model.named_parameters():
        place, leaf = _place(weights, name)
        copied = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        place.register_parameter(leaf, copied)
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        place, leaf = _place(weights, name)
        place.register_buffer(leaf, buffer.detach().clone(), persistent=name in saved)
    return weights


def _place(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    *parts, leaf = name.split('.')
    for part in parts:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root, leaf
