"""Stop a training on SIGTERM, SIGUSR1 or SIGHUP: finish the step, save, exit with code 75.

Slurm (before the time limit or on preemption), Kubernetes and torchrun send SIGTERM; with
``sbatch --signal=USR1@120`` Slurm sends SIGUSR1. A closed terminal or a lost connection sends
SIGHUP, which ``nohup`` lets a run ignore.
"""

import os
import signal
import threading
import time
from collections.abc import Callable

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmtimesformer.cli import FAILED, STOPPED, RunStopped, error_message
from mmtimesformer.engine.checkpointing.checkpoint_hook import AtomicCheckpointHook, save_mid_epoch
from mmtimesformer.engine.distributed.collectives import any_rank, smallest
from mmtimesformer.engine.distributed.process_signals import STOP_SIGNALS, die_with_parent
from mmtimesformer.engine.distributed.stop_signals import stop_signals
from mmtimesformer.engine.hooks.non_finite_steps import NonFiniteStepHook
from mmtimesformer.engine.loops.resumable_loop import ResumableEpochLoop
from mmtimesformer.fileio.storage_error import StorageError
from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Stop the training after the optimizer step in which a signal came.

    All ranks stop at the same step, whichever got the signal. The state is saved as
    ``mid_epoch.pth``, from which ``--resume`` resumes.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def __init__(self) -> None:
        self.requested = False
        self.common = 0  # validation batches that every rank has
        self.next_batch = 0  # of a validation

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Stop after a complete optimizer step if any rank got a signal."""
        self.requested = self.requested or any_rank(stop_signals().received is not None)
        wrapper = runner.optim_wrapper
        if self.requested and (not isinstance(wrapper, OptimWrapper) or wrapper.should_update()):
            self._stop(runner, {'epoch': runner.epoch, 'iter': runner.iter + 1})

    def before_val_epoch(self, runner: Runner) -> None:
        self.common = smallest(len(runner.val_loop.dataloader))
        self._set_next_batch(0)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """From here on, no signal interrupts the wait of one rank alone."""
        self._set_next_batch(self.common)

    def _set_next_batch(self, batch: int) -> None:
        self.next_batch = batch
        stop_signals().may_end_wait = batch < self.common

    def all_leave_validation(self) -> bool:
        """End the validation of all ranks, unless this is a last batch that some ranks lack."""
        return self.next_batch < self.common and any_rank(True)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Stop within a validation at once; a resumed run repeats it."""
        if batch_idx >= self.common or not isinstance(runner._train_loop, ResumableEpochLoop):
            return
        self._set_next_batch(batch_idx + 1)
        if any_rank(stop_signals().received is not None):
            runner._train_loop.leave_validation()
            self._stop(runner, {'epoch': runner.epoch, 'iter': runner.iter})

    def stop_while_waiting(self, runner: Runner, error: BaseException) -> None:
        """Stop the training between two steps, after ``StopRequested`` or ``StorageError``.

        Raises:
            RunStopped: Always.
        """
        cause = ''
        if isinstance(error, StorageError):  # also one with the stack trace of a worker
            cause = error_message(error).rpartition('StorageError: ')[2]
        self._stop(runner, {'epoch': runner.epoch, 'iter': runner.iter}, cause)

    def _stop(self, runner: Runner, meta: dict[str, int], cause: str = '') -> None:
        name, since = stop_signals().received or ('a signal to another process', time.monotonic())
        saved: bool | None = True
        hint = 'the same command with --resume continues'
        if any(isinstance(hook, NonFiniteStepHook) and hook.is_unsafe() for hook in runner.hooks):
            state, hint = _save_while_skipping(runner, meta)
        else:
            saved = save_mid_epoch(runner, meta)
            state = {
                None: 'nothing is saved, for the config has no CheckpointHook',
                False: 'its last steps could not be saved, see the log',
                True: f'all is saved {time.monotonic() - since:.1f} s later',
            }[saved]
        runner.visualizer.close()
        dist.barrier()  # if a rank exits first, the launcher kills the others while they save
        why, cause = ('stopped', f': {cause}') if cause else (f'stopped by {name}', '')
        raise RunStopped(
            f'{why} after epoch {meta["epoch"]}, step {meta["iter"]}{cause}; {state}; {hint}',
            STOPPED if saved or not cause else FAILED,
        )


def _save_while_skipping(runner: Runner, meta: dict[str, int]) -> tuple[str, str]:
    """Save a possibly ruined state aside; return what was saved, and how to resume."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)
    aside = hook.save_aside(runner, meta) if hook else None
    good, _ = hook.fall_back(runner) if hook else (None, [])
    return (
        'the last steps were skipped (NaN or infinite losses or gradients), so the weights may be '
        'ruined: they are ' + (f'in {aside}' if aside else 'not saved'),
        f'the same command with --resume continues from {good}, the last good checkpoint'
        if good
        else 'no checkpoint is known to be good',
    )


class StartWorker:
    """A ``worker_init_fn`` that keeps stop signals away from DataLoader workers.

    Slurm and torchrun send SIGTERM to every process of a run, but the run needs its workers to
    finish the step. Workers end only when their parent ends or sends them SIGTERM. The
    ``worker_init_fn`` of the config is called too.
    """

    def __init__(self, configured: Callable[[int], object] | None) -> None:
        self.configured = configured
        self.parent = os.getpid()

    def __call__(self, worker: int) -> None:
        die_with_parent(self.parent, signal.SIGKILL)
        if self.configured is not None:
            self.configured(worker)
        if hasattr(signal, 'sigwaitinfo'):  # Linux; elsewhere the sender of a signal is unknown
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            threading.Thread(target=_exit_with_parent, args=(self.parent,), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while True:
        received = signal.sigwaitinfo(STOP_SIGNALS)
        if received.si_pid == parent and received.si_signo == signal.SIGTERM:
            os._exit(0)
