"""Train a model that is too large for one GPU: shard weights, gradients and optimizer state (FSDP).

Data-parallel training keeps all weights, gradients and optimizer states in each process, 16 bytes
a weight with AdamW. Here each process keeps a shard of them. torch's ``fully_shard`` gathers the
weights of a block just before the block runs, frees them afterwards, and averages its gradients
into the shards. The numbers are those of data-parallel training.

Checkpoints work in any number of processes and in all tools: full ones (the ordinary file), or a
file with a folder of shards, so that no process ever holds the full model.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.device import get_device
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from mmtimesformer.config.sharded_training import KEY, check_choices
from mmtimesformer.engine.distributed.sharded_checkpoint import gather_full, write_shards
from mmtimesformer.registry import MODEL_WRAPPERS

DTYPES = {'float32': None, 'bfloat16': torch.bfloat16}


@MODEL_WRAPPERS.register_module()
class FSDPModelWrapper(nn.Module):
    """Shard a model between the processes, as a model wrapper of MMEngine's Runner.

    Each of the model's ``blocks`` is one FSDP unit, and the rest of the model another. It is for
    training by our Runner, which saves and resumes it.

    Args:
        module: The full model, the same in every process; it may be on the CPU.
        shards: Into how many shards the weights are cut; a divisor of the number of processes, and
            all of them if not given. With fewer, each group of ``shards`` processes holds a full
            model: with the GPUs of one machine, weights never cross the network between machines.
        block_dtype: The type in which weights of blocks are sent and blocks compute.
            ``'bfloat16'`` halves the traffic of weights and computes all of a block in it, in
            validation too; gradients are averaged, and weights updated, in float32. With
            ``'float32'`` the numbers are those of a training that is not sharded, under ``--amp
            bf16`` too.
        checkpoints: ``'full'``, one file that the main process gathers and writes; or
            ``'sharded'``, a small file and a folder with the same name, to which every process
            writes its shard, in parallel, and from which every process reads it. All processes
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
        checkpoints: str = 'full',
    ) -> None:
        super().__init__()
        check_choices(block_dtype=block_dtype, checkpoints=checkpoints)
        mesh = _mesh(shards)
        in_blocks = MixedPrecisionPolicy()
        if DTYPES[block_dtype] is not None:
            in_blocks = MixedPrecisionPolicy(
                param_dtype=DTYPES[block_dtype],
                reduce_dtype=torch.float32,
                output_dtype=torch.float32,  # layers between blocks compute in it
            )
        for block in blocks_of(module):
            fully_shard(block, mesh=mesh, mp_policy=in_blocks, reshard_after_forward=True)
        # By default the outermost unit would stay gathered after a validation, and averaged weights
        # that are swapped in then would be written to tensors that are about to be freed.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        module.to(get_device())
        module.__deepcopy__ = lambda memo: weights_of(module)  # type: ignore[assignment]
        self.module = module
        self.checkpoints = checkpoints

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Take a step. Gradients of each accumulated batch are averaged: full ones do not fit.

        MMEngine would otherwise keep full gradients in every process until the last batch.
        """
        return self.module.train_step(data, optim_wrapper)  # type: ignore[operator]

    def val_step(self, data: Any) -> list[Any]:
        """Predict, for a validation; all processes together."""
        return self.module.val_step(data)  # type: ignore[operator]

    def test_step(self, data: Any) -> list[Any]:
        """Predict, for a test; all processes together."""
        return self.module.test_step(data)  # type: ignore[operator]

    def checkpoint_state(
        self,
        runner: Runner,
        path: Path,
        gradients: dict[str, Tensor] | None,
        with_optimizer: bool,
    ) -> dict[str, Any]:
        """Return the entries of a checkpoint; all processes must call it.

        Full ones are gathered in the main process; the others get them without tensors. Sharded
        ones are written here, and the entries name their folder.

        The file at ``path`` is written afterwards; ``gradients`` are those of an unfinished step.

        Raises:
            OSError: Shards could not be written.
        """
        state: dict[str, Any] = {'state_dict': self.module.state_dict()}
        if with_optimizer:
            state['optimizer'] = runner.optim_wrapper.state_dict()
            if gradients:
                state['gradients'] = gradients
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.before_save_checkpoint(runner, state)
        return write_shards(state, path) if self.checkpoints == 'sharded' else gather_full(state)


def parameters_of(optim_wrapper: OptimWrapper) -> list[Tensor]:
    """Return the parameters of an optimizer, in the order in which its state numbers them."""
    groups = optim_wrapper.optimizer.param_groups
    return [parameter for group in groups for parameter in group['params']]


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
    """Yield the members of every list of modules that is called ``blocks``."""
    for module in model.modules():
        blocks = getattr(module, 'blocks', None)
        if isinstance(blocks, nn.ModuleList):
            yield from blocks


def weights_of(model: nn.Module) -> nn.Module:
    """Copy this process's shard of a model: all names and weights, without a ``forward``.

    A moving average needs no more, and MMEngine's copies the model by ``deepcopy``, which torch
    refuses for a sharded model.
    """
    weights = nn.Module()
    for name, parameter in model.named_parameters():
        parent, leaf = _parent(weights, name)
        copied = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        parent.register_parameter(leaf, copied)
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        parent, leaf = _parent(weights, name)
        parent.register_buffer(leaf, buffer.detach().clone(), persistent=name in saved)
    return weights


def _parent(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that holds a parameter, which is made if missing, and its own name."""
    *parts, leaf = name.split('.')
    for part in parts:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root, leaf
