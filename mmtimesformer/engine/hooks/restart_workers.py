"""Restart DataLoader workers that die in a validation or test."""

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from mmtimesformer.engine.distributed.stop_signals import stop_signals
from mmtimesformer.engine.loops.dataloader_recovery import RestartingDataLoader
from mmtimesformer.engine.loops.resumable_loop import ResumableEpochLoop
from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class RestartWorkersHook(Hook):
    """Restart dead DataLoader workers in validations and tests, as the training loop does.

    Args:
        max_worker_restarts: How often workers may be restarted in one validation or test.
    """

    def __init__(self, max_worker_restarts: int = 10) -> None:
        self.max_worker_restarts = max_worker_restarts

    def before_val(self, runner: Runner) -> None:
        self._wrap(runner.val_loop, runner)

    def before_test(self, runner: Runner) -> None:
        self._wrap(runner.test_loop, runner)

    def _wrap(self, loop: BaseLoop, runner: Runner) -> None:
        loader = loop.dataloader
        if isinstance(loader, DataLoader) and loader.batch_sampler is not None:
            # Only ResumableEpochLoop saves the state when a signal interrupts a validation
            interrupts = isinstance(runner._train_loop, ResumableEpochLoop)
            signals = stop_signals() if interrupts else None
            loop.dataloader = RestartingDataLoader(
                loader, runner.logger.warning, self.max_worker_restarts, signals
            )
