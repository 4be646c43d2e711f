"""Hooks for checkpoints of sharded models (FSDP): scatter what is loaded, check what is saved."""

from pathlib import Path

from mmengine import dist
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmtimesformer.config.sharded_training import KEY
from mmtimesformer.engine.checkpointing.checkpoint_hook import AtomicCheckpointHook
from mmtimesformer.engine.checkpointing.safe_loading import Checkpoint
from mmtimesformer.engine.distributed.fsdp import FSDPModelWrapper, parameters_of
from mmtimesformer.engine.distributed.sharded_checkpoint import check_seen_by_all, shard_like
from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class ScatterCheckpointHook(Hook):
    """Replace full tensors by this process's shard when a sharded model loads a checkpoint."""

    priority = 'HIGH'  # after AdaptCheckpointHook, which takes full ones; before EMAHook loads it

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Change the checkpoint in place: weights, averaged weights and optimizer state."""
        if not isinstance(runner.model, FSDPModelWrapper):
            return
        shards = dict(runner.model.module.state_dict())
        for key, prefix in (('state_dict', ''), ('ema_state_dict', 'module.')):
            full = checkpoint.get(key) or {}
            for name, tensor in full.items():
                full[name] = shard_like(shards.get(name.removeprefix(prefix)), tensor)
        if runner._resume and 'optimizer' in checkpoint:
            parameters = parameters_of(runner.optim_wrapper)
            for number, state in checkpoint['optimizer'].get('state', {}).items():
                for name, tensor in state.items():
                    state[name] = shard_like(parameters[number], tensor)


@HOOKS.register_module()
class SaveShardedHook(Hook):
    """Check before a sharded training that all processes can step and save together."""

    priority = 'LOWEST'  # after CheckpointHook has its folder

    def before_train(self, runner: Runner) -> None:
        """Refuse data or a folder with which processes would wait for each other for ever.

        Raises:
            ValueError: Processes have different numbers of batches, or do not see one folder.
        """
        if not isinstance(runner.model, FSDPModelWrapper):
            return
        if runner.model.checkpoints == 'sharded':
            for hook in runner.hooks:
                if isinstance(hook, CheckpointHook):
                    _check_hook(hook)
        for name, loop in (('train', runner.train_loop), ('val', runner.val_loop)):
            batches = dist.all_gather_object(len(loop.dataloader)) if loop else []
            if len(set(batches)) > 1:
                raise ValueError(
                    f'the {len(batches)} processes have {batches} batches of {name}_dataloader, '
                    'and a sharded model runs in all processes or in none; take a '
                    f"{name}_dataloader.sampler that gives all the same number, 'DefaultSampler'"
                )


def _check_hook(hook: CheckpointHook) -> None:
    if not isinstance(hook, AtomicCheckpointHook):
        raise ValueError(
            f"{KEY}.checkpoints='sharded' needs a hook that removes shards, and "
            f'{type(hook).__module__}.CheckpointHook does not; take '
            "type='mmtimesformer.AtomicCheckpointHook'"
        )
    check_seen_by_all(Path(hook.out_dir))
