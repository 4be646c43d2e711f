"""Training what is too large for one card: every process keeps a share of every weight.

With data-parallel training each process holds all weights, gradients and optimiser states, 16 bytes
a weight with AdamW. Here each holds its share of them. The weights of a block come together in all
processes just before the block runs, and go again after it; its gradients are averaged and go where
their shares lie. torch's ``fully_shard`` does this, and what is computed is the same.

Checkpoints are for any number of processes and for all tools: whole ones, the ordinary file of an
ordinary training, or a file with a folder of shares, which no process ever has whole.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mmtimesformer.checkpoints.dcp import change_tensors
from mmtimesformer.cli import near_name
from mmtimesformer.engine.checkpointing.checkpoint_hook import AtomicCheckpointHook
from mmtimesformer.engine.distributed.sharded_checkpoint import (
    check_seen_by_all,
    read_own_shards,
    write_shares,
)
from mmtimesformer.registry import HOOKS, MODEL_WRAPPERS

NAME = 'mmtimesformer.FSDPModelWrapper'
KEY = 'model_wrapper_cfg'
ARGUMENTS = 'shards', 'block_dtype', 'checkpoints'
DTYPES = {'float32': None, 'bfloat16': torch.bfloat16}
CHOICES = {'block_dtype': tuple(DTYPES), 'checkpoints': ('whole', 'shares')}


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
        _check_choices(block_dtype=block_dtype, checkpoints=checkpoints)
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


def _check_choices(**values: Any) -> None:
    for name, value in values.items():
        if value not in CHOICES[name]:
            raise ValueError(
                f'{name}={value!r} is not known; set {KEY}.{name} to one of '
                + ', '.join(CHOICES[name])
            )


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


def is_sharded(model_wrapper_cfg: Any) -> bool:
    """Whether a config asks for sharded training."""
    kind = model_wrapper_cfg.get('type') if isinstance(model_wrapper_cfg, dict) else None
    return kind in (NAME, FSDPModelWrapper)


def check_sharding(cfg: Any) -> None:
    """Refuse a config with parts that cannot work on shares, or would wait for ever.

    Raises:
        TypeError: The wrapper has no such argument.
        ValueError: Something else in the config does not go together with it.
    """
    if not is_sharded(cfg.get(KEY)):
        return
    for name in set(cfg[KEY]) - {'type', *ARGUMENTS}:
        near = near_name(name, ARGUMENTS)
        raise TypeError(f'{KEY}.{name}: FSDPModelWrapper has no such argument{near}')
    if 'src_data_rank' not in inspect.signature(distribute_tensor).parameters:
        raise ValueError(
            f'{KEY}.type={NAME!r} needs torch 2.7 or newer, and this is {torch.__version__}'
        )
    _check_choices(**{name: cfg[KEY][name] for name in CHOICES if name in cfg[KEY]})
    if cfg[KEY].get('checkpoints') == 'shares':
        hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        for key, wrong in (
            ('out_dir', '://' in str(hook.get('out_dir'))),  # no file system
            ('type', hook.get('type') == 'mmengine.CheckpointHook'),  # which never removes shares
        ):
            if wrong:
                raise ValueError(
                    f"{KEY}.checkpoints='shares' does not go together with "
                    f'default_hooks.checkpoint.{key}={hook[key]!r}; leave that out, or take '
                    f"{KEY}.checkpoints='whole'"
                )
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper and 'optimizer' not in wrapper:
        raise ValueError(
            f'{KEY}.type={NAME!r} knows one optimiser, and optim_wrapper has several optimisers; '
            'set optim_wrapper.optimizer, and learning rates by paramwise_cfg'
        )
    if str(wrapper.get('type')).endswith('AmpOptimWrapper'):
        raise ValueError(
            f'{KEY}.type={NAME!r} trains in bfloat16 or float32, and optim_wrapper.type='
            f'{wrapper["type"]!r} in float16; use --amp bf16 instead of --amp'
        )
    for key, instead in (
        ('activation_checkpointing', 'set model.backbone.with_cp instead'),
        ('compile', 'leave it out'),
        ('sync_bn', 'leave it out: a TimeSformer has no batch norms'),
    ):
        if cfg.get(key):
            raise ValueError(f'{KEY}.type={NAME!r} does not go together with {key!r}; {instead}')
    for loader in ('train_dataloader', 'val_dataloader'):
        sampler = (cfg.get(loader) or {}).get('sampler')
        if isinstance(sampler, dict) and not sampler.get('round_up', True):
            raise ValueError(
                f'{loader}.sampler.round_up=False gives some processes fewer batches, and a model '
                f'of which each has a share runs in all or in none; leave it out (videos that come '
                'twice count once)'
            )


@HOOKS.register_module()
class ScatterCheckpointHook(Hook):
    """Let each process take its share of a whole checkpoint that is loaded into a sharded model."""

    priority = (
        'HIGH'  # after AdaptCheckpointHook, which wants it whole; before a moving average loads it
    )

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Change the checkpoint in place: weights, their average, and the optimiser's state."""
        if not isinstance(runner.model, FSDPModelWrapper):
            return
        shares = dict(runner.model.module.state_dict())
        for key, prefix in (('state_dict', ''), ('ema_state_dict', 'module.')):
            whole = checkpoint.get(key) or {}
            for name, tensor in whole.items():
                whole[name] = shard_like(shares.get(name.removeprefix(prefix)), tensor)
        if getattr(runner, '_resume', False) and 'optimizer' in checkpoint:
            groups = runner.optim_wrapper.optimizer.param_groups
            parameters = [parameter for group in groups for parameter in group['params']]
            for number, state in checkpoint['optimizer'].get('state', {}).items():
                for name, tensor in state.items():
                    state[name] = shard_like(parameters[number], tensor)


@HOOKS.register_module()
class SaveShardedHook(Hook):
    """Let a checkpoint of a sharded model hold what :func:`parts_to_save` gave."""

    priority = 'LOWEST'  # after all that puts tensors into a checkpoint

    def before_train(self, runner: Any) -> None:
        """Refuse data with which some processes would wait for others that are done.

        Raises:
            ValueError: Processes have different numbers of batches, or do not see one folder.
        """
        if not isinstance(runner.model, FSDPModelWrapper):
            return
        if runner.model.checkpoints == 'shares':
            for hook in runner.hooks:
                if isinstance(hook, CheckpointHook):
                    if not isinstance(hook, AtomicCheckpointHook):
                        raise ValueError(
                            f"{KEY}.checkpoints='shares' needs a hook that removes shares, and "
                            f'{type(hook).__module__}.CheckpointHook does not; take '
                            "type='mmtimesformer.AtomicCheckpointHook'"
                        )
                    check_seen_by_all(Path(hook.out_dir))
        for name, loop in (('train', runner.train_loop), ('val', runner.val_loop)):
            batches = dist.all_gather_object(len(loop.dataloader)) if loop else []
            if len(set(batches)) > 1:
                raise ValueError(
                    f'the {len(batches)} processes have {batches} batches of {name}_dataloader, '
                    'and a model of which each has a share runs in all or in none; take a '
                    f"{name}_dataloader.sampler that gives all the same number, 'DefaultSampler'"
                )

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put it in; this is called in the main process alone."""
        checkpoint.update(getattr(runner, 'parts_to_save', None) or {})


def parts_to_save(
    runner: Any, path: Path, gradients: dict[str, Tensor] | None, with_optimizer: bool = True
) -> dict[str, Any]:
    """Make what a checkpoint of a sharded model holds of it: whole in the main process, or shares.

    All processes must call it. Shares are written by it.

    Args:
        runner: The Runner.
        path: Where the checkpoint is to be.
        gradients: Those of a step that is begun, each as this process holds it.
        with_optimizer: Whether the checkpoint is to be one to go on from.

    Returns:
        Entries of a checkpoint. Whole, they are those of an ordinary training, in the other
        processes without tensors.

    Raises:
        OSError: Shares could not be written.
    """
    parts: dict[str, Any] = {'state_dict': runner.model.module.state_dict()}
    if with_optimizer:
        parts['optimizer'] = runner.optim_wrapper.state_dict()
        if gradients:
            parts['gradients'] = gradients
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.before_save_checkpoint(runner, parts)
    if runner.model.checkpoints == 'shares':
        return write_shares(parts, path)
    return gather_full(parts)


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


def own_checkpoint(runner: Any, path: str) -> dict[str, Any] | None:
    """Read what this process holds of a sharded model, see :func:`read_own_shards`."""
    parameters = None
    if getattr(runner, '_resume', False):
        groups = runner.optim_wrapper.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group['params']]
    return read_own_shards(path, dict(runner.model.module.state_dict()), parameters)


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
