"""Load and save checkpoints of sharded models (FSDP)."""

from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from torch import Tensor

from mmtimesformer.config.sharded_training import KEY
from mmtimesformer.engine.checkpointing.checkpoint_hook import AtomicCheckpointHook
from mmtimesformer.engine.distributed.fsdp import FSDPModelWrapper
from mmtimesformer.engine.distributed.sharded_checkpoint import (
    check_seen_by_all,
    gather_full,
    read_own_shards,
    shard_like,
    write_shares,
)
from mmtimesformer.registry import HOOKS


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


def own_checkpoint(runner: Any, path: str) -> dict[str, Any] | None:
    """Read what this process holds of a sharded model, see :func:`read_own_shards`."""
    parameters = None
    if getattr(runner, '_resume', False):
        groups = runner.optim_wrapper.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group['params']]
    return read_own_shards(path, dict(runner.model.module.state_dict()), parameters)
