"""A run that is asked to stop finishes its step, saves, and ends with a code that says so.

Clusters ask by SIGTERM (Slurm before the time limit or on preemption, Kubernetes, torchrun) or by
SIGUSR1 (``sbatch --signal=USR1@120``), and a terminal that is closed, or whose connection is lost,
by SIGHUP (not under ``nohup``, which lets a run ignore it). What follows is the same.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook

from mmtimesformer.cli import FAILED, STOPPED, RunStopped, error_message
from mmtimesformer.engine.checkpointing.checkpoint_hook import AtomicCheckpointHook, save_mid_epoch
from mmtimesformer.engine.distributed.collectives import any_rank, smallest
from mmtimesformer.engine.distributed.process_signals import (
    STOP_SIGNALS,
    StopRequested,
    die_with_parent,
    is_ignored,
)
from mmtimesformer.engine.hooks.non_finite_steps import NonFiniteStepHook
from mmtimesformer.engine.loops.resumable_loop import ResumableEpochLoop
from mmtimesformer.fileio.storage_error import StorageError
from mmtimesformer.registry import HOOKS


class StopSignals:
    """While it is entered, signals that ask to stop are noted instead of ending the process.

    Attributes:
        received: The name of the first such signal, and the time it came, or ``None``.
        may_end_wait: Whether a wait for data may be ended in a run of several processes: they
            agree afterwards.
    """

    def __init__(self) -> None:
        self.received: tuple[str, float] | None = None
        self.may_end_wait = False
        self._waits = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> 'StopSignals':
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._note)
                for number in STOP_SIGNALS
                if not is_ignored(number)
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or (signal.Signals(number).name, time.monotonic())
        if self._waits:
            self._waits = False
            raise StopRequested

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal end what is done meanwhile: a wait for data, which leaves nothing half done.

        In a run of several processes only where they agree, see ``may_end_wait``; else the others
        would be in the midst of a step.

        Raises:
            StopRequested: A signal came.
        """
        self._waits = self.may_end_wait or dist.get_world_size() == 1
        try:
            yield
        finally:
            self._waits = False

    def end_wait(self) -> None:
        """End a wait that is looked at again and again, where :meth:`interrupting` would.

        Raises:
            StopRequested: A signal came.
        """
        if self.received is not None and (self.may_end_wait or dist.get_world_size() == 1):
            raise StopRequested


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """End the training at the first whole step after a signal that asks for it.

    All processes of a run end at the same step, whichever of them heard the signal. The state is
    saved as ``mid_epoch.pth``, from which ``--resume`` goes on.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def __init__(self) -> None:
        self.asked = False
        self.common = 0  # validation batches that every process has
        self.next_batch = 0  # of a validation

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Look whether any process was asked to stop; then end after a whole optimiser step."""
        self.asked = self.asked or any_rank(_received(runner) is not None)
        should_update = getattr(runner.optim_wrapper, 'should_update', lambda: True)
        if self.asked and should_update():
            self._end(runner, {'epoch': runner.epoch, 'iter': runner.iter + 1})

    def before_val_epoch(self, runner: Any) -> None:
        """Count the batches at which all processes can meet."""
        self.common = smallest(len(runner.val_loop.dataloader))
        self._come_to(runner, 0)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Let no signal end a wait for data without the other processes."""
        self._come_to(runner, self.common)

    def _come_to(self, runner: Any, batch: int) -> None:
        self.next_batch = batch
        if signals := getattr(runner, 'stop_signals', None):
            signals.may_end_wait = batch < self.common

    def meets_in_validation(self) -> bool:
        """Let the other processes end their validation after the batch at hand.

        Returns:
            Whether they do; they cannot be met in a last batch that not every process has.
        """
        return self.next_batch < self.common and any_rank(True)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End in a validation at once; it is made up for when the run goes on."""
        if batch_idx >= self.common or not isinstance(runner._train_loop, ResumableEpochLoop):
            return
        self._come_to(runner, batch_idx + 1)
        if any_rank(_received(runner) is not None):
            runner._train_loop.leave_validation()
            self._end(runner, {'epoch': runner.epoch, 'iter': runner.iter})

    def end_while_waiting(self, runner: Any, error: BaseException) -> None:
        """End the training between two steps, where it waited for data.

        Args:
            runner: The Runner.
            error: That a signal came, or that videos cannot be reached.

        Raises:
            RunStopped: Always.
        """
        cause = ''
        if isinstance(error, StorageError):  # also with the stack trace of a process around it
            cause = error_message(error).rpartition('StorageError: ')[2]
        self._end(runner, {'epoch': runner.epoch, 'iter': runner.iter}, cause)

    def _end(self, runner: Any, meta: dict[str, Any], cause: str = '') -> None:
        name, since = _received(runner) or ('a signal to another process', time.monotonic())
        saved: bool | None = True
        how_it_goes_on = 'the same command with --resume goes on'
        if any(isinstance(hook, NonFiniteStepHook) and hook.is_unsafe() for hook in runner.hooks):
            what, how_it_goes_on = _end_while_skipping(runner, meta)
        else:
            saved = save_mid_epoch(runner, meta)
            what = {
                None: 'nothing is saved, for the config has no CheckpointHook',
                False: 'its last steps could not be saved, see the log',
                True: f'all is saved {time.monotonic() - since:.1f} s later',
            }[saved]
        runner.visualizer.close()
        dist.barrier()  # the first process to end would have the others killed while one saves
        why, cause = ('stopped', f': {cause}') if cause else (f'stopped by {name}', '')
        raise RunStopped(
            f'{why} after epoch {meta["epoch"]}, step {meta["iter"]}{cause}; {what}; '
            f'{how_it_goes_on}',
            STOPPED if saved or not cause else FAILED,
        )


def _end_while_skipping(runner: Any, meta: dict[str, Any]) -> tuple[str, str]:
    """Save aside what may be ruined; return what was done, and how the run goes on."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)
    aside = hook.save_aside(runner, meta) if hook else None
    good, _ = hook.fall_back(runner) if hook else (None, [])
    return (
        'the last steps were skipped (NaN or infinite losses or gradients), so the weights may be '
        'ruined: they are ' + (f'in {aside}' if aside else 'not saved'),
        f'the same command with --resume goes on from {good}, the last good checkpoint'
        if good
        else 'no checkpoint is known to be good',
    )


def _received(runner: Any) -> tuple[str, float] | None:
    signals = getattr(runner, 'stop_signals', None)
    return signals.received if signals else None


class StartWorker:
    """What a data-loading process does first: as configured, and it leaves signals to the run.

    Slurm and torchrun send SIGTERM to every process of a run; the run wants to finish its step and
    needs its data loaders for that. They go when their parent, and nobody else, tells them to, and
    when it ends.

    Args:
        configured: The ``worker_init_fn`` that was there before.
    """

    def __init__(self, configured: Callable[[int], object] | None) -> None:
        self.configured = configured
        self.parent = os.getpid()

    def __call__(self, worker: int) -> None:
        die_with_parent(self.parent, signal.SIGKILL)
        if self.configured is not None:
            self.configured(worker)
        if hasattr(signal, 'sigwaitinfo'):  # Linux; elsewhere nobody tells who sent a signal
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            threading.Thread(target=_obey, args=(self.parent,), daemon=True).start()


def _obey(parent: int) -> None:
    while True:
        heard = signal.sigwaitinfo(STOP_SIGNALS)
        if heard.si_pid == parent and heard.si_signo == signal.SIGTERM:
            os._exit(0)
