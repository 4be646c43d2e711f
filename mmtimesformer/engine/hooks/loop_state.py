"""Save the position within an epoch in each checkpoint, and restore it on resume."""

from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmtimesformer.engine.distributed.sharded_checkpoint import shard_like
from mmtimesformer.engine.loops.resumable_loop import LoopState, ResumableEpochLoop
from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class LoopStateHook(Hook):
    """Save and restore the state of ``ResumableEpochLoop``; restore accumulated gradients.

    The Runner saves the gradients, as all ranks average them.
    """

    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add ``meta['position']``."""
        loop, meta = runner._train_loop, checkpoint['meta']
        if isinstance(loop, ResumableEpochLoop):
            meta['position'] = loop.state_dict(meta['epoch'], meta['iter'])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore them on resume."""
        if not runner._resume:
            return
        loop, meta = runner._train_loop, checkpoint['meta']
        if isinstance(loop, ResumableEpochLoop):
            position: LoopState = meta.get('position', LoopState())
            loop.load_state_dict(position, meta['epoch'], meta['iter'])
        if 'ema_state_dict' in checkpoint and not any(isinstance(h, EMAHook) for h in runner.hooks):
            runner.logger.warning(
                'The checkpoint has averaged weights (EMA), and the config has no EMAHook: the '
                'training resumes from the average. Add the hook to custom_hooks to resume from '
                'the trained weights.'
            )
        gradients = checkpoint.get('gradients', {})
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, parameter in model.named_parameters():
            gradient = gradients.get(name)
            if gradient is not None:
                parameter.grad = shard_like(parameter, gradient).to(parameter.device)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note that the validation is done, before CheckpointHook saves."""
        if isinstance(runner._train_loop, ResumableEpochLoop):
            runner._train_loop.owes_validation = False
