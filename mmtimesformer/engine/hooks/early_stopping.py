"""Early stopping that resumes right: its state is in the checkpoints."""

from typing import Any

from mmengine.hooks import EarlyStoppingHook as MMEngineEarlyStoppingHook
from mmengine.runner import Runner

from mmtimesformer.registry import HOOKS

KEY = 'early_stopping'  # of a checkpoint


@HOOKS.register_module()
class EarlyStoppingHook(MMEngineEarlyStoppingHook):
    """MMEngine's ``EarlyStoppingHook``, which forgets its state when a training resumes.

    It ends the training when the monitored score of the validation has not improved for
    ``patience`` validations. The best checkpoint is that of ``checkpoint.save_best``. Arguments
    are those of MMEngine's hook, first ``monitor`` (such as ``'acc/top1'``), ``patience`` and
    ``rule``.

    Best score and number of validations without improvement go into each checkpoint, so that a
    resumed training stops where an uninterrupted one does; one that has stopped stays so, unless
    ``patience`` is larger now.
    """

    priority = 'LOW'  # before CheckpointHook, which saves after a validation

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the state."""
        state = {'best_score': float(self.best_score), 'wait_count': int(self.wait_count)}
        checkpoint[KEY] = {'monitor': self.monitor, **state}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the same score, if the training resumes."""
        state = checkpoint.get(KEY)
        if runner._resume and isinstance(state, dict) and state.get('monitor') == self.monitor:
            self.best_score, self.wait_count = state['best_score'], state['wait_count']
            if self.wait_count >= self.patience:
                runner.train_loop.stop_training = True
                runner.logger.warning(
                    f'{self.monitor} has not improved in {self.wait_count} validations, so the '
                    'training has ended; set a larger patience of EarlyStoppingHook to continue.'
                )
