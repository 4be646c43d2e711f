"""CheckpointHook that always leaves one complete, good checkpoint to resume from.

Also after a kill, on a full disk, and when the training diverges.
"""

import copy
import inspect
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.fileio import BaseStorageBackend
from mmengine.hooks import CheckpointHook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner

from mmtimesformer.checkpoints.dcp import remove_stale_shards
from mmtimesformer.cli import STOPPED, RunStopped
from mmtimesformer.compat.upstream import overrides
from mmtimesformer.engine.checkpointing.atomic_backend import sweep_partial_files
from mmtimesformer.engine.checkpointing.good_checkpoints import CheckpointHistory, problem_of_state
from mmtimesformer.engine.checkpointing.resume import MID_EPOCH, note_checkpoint
from mmtimesformer.engine.distributed.collectives import (
    all_ranks,
    any_rank,
    broadcast_from_rank0,
    raise_on_all_ranks,
)
from mmtimesformer.engine.distributed.stop_signals import stop_signals
from mmtimesformer.engine.hooks.non_finite_steps import NonFiniteStepHook, NonFiniteStepsError
from mmtimesformer.registry import HOOKS

ASIDE = 'while_skipping.pth'  # of a run that ended while steps were skipped; only resumed by name
PAUSE = 0.5  # seconds between two checks for a signal while a save is retried


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, which never leaves a run without a checkpoint.

    It takes the same arguments, and the Runner uses it for every ``CheckpointHook`` of a config.
    Beyond that one,

    - an old checkpoint is removed only after the new one is complete and named in
      ``last_checkpoint`` (the disk needs room for one more than ``max_keep_ckpts``);
    - on a full disk the run logs a warning, continues, and tries again, ``retry_interval`` steps
      later and at the next regular checkpoint; the last one of a run is tried for ``patience``
      seconds before the run ends with an error;
    - a moved or copied ``work_dir`` does not touch the best checkpoint of the original;
    - while steps are skipped (their losses or gradients are NaN or Inf), nothing is saved; what was
      due is saved as ``mid_epoch.pth`` when a step is finite again;
    - the last good checkpoint, after which finite steps followed, stays on the disk beyond
      ``max_keep_ckpts`` until the next one is known to be good, and a run that diverges leaves
      ``last_checkpoint`` naming it;
    - a validation with NaN or Inf in its scores has no best checkpoint;
    - SIGTERM and SIGUSR1 end the retries of the last checkpoint.

    Args:
        retry_interval: Steps between two attempts after one that failed.
        patience: How long the last checkpoint of a run is tried, in seconds.
        **kwargs: As MMEngine's hook takes them.

    Raises:
        TypeError: MMEngine's hook has no such argument; it would fail only when it saves.
    """

    out_dir: str
    file_backend: BaseStorageBackend
    keep_ckpt_ids: deque[int]
    last_ckpt: str | None

    def __init__(self, *, retry_interval: int = 100, patience: float = 600, **kwargs: Any) -> None:
        for name in set(kwargs) - set(inspect.signature(CheckpointHook).parameters):
            raise TypeError(f'CheckpointHook has no argument {name!r}')
        super().__init__(**kwargs)
        self.retry_interval = retry_interval
        self.patience = patience
        self.failed_at: int | None = None  # step of an attempt that no successful one followed yet
        self.is_postponed = False  # a save that was due while steps were skipped
        self.history = CheckpointHistory()
        self.outdated: list[str] = []  # beyond max_keep_ckpts, and not yet removed

    def before_train(self, runner: Runner) -> None:
        """Remove what a killed process left, and find the best checkpoint in a moved folder."""
        if self.out_dir and '://' not in self.out_dir:
            self.out_dir = str(Path(self.out_dir).expanduser())
        self._restore_outdated(runner)
        super().before_train(runner)
        self._relocate_history(runner)
        if '://' in str(self.out_dir):
            return
        for name, path in list(runner.message_hub.runtime_info.items()):
            if name.startswith('best_ckpt') and path:
                here = self.file_backend.join_path(self.out_dir, Path(path).name)
                runner.message_hub.update_info(name, here)
                if name == 'best_ckpt':
                    self.best_ckpt_path = here
                else:
                    self.best_ckpt_path_dict[name.removeprefix('best_ckpt_')] = here
        if dist.is_main_process():
            for path in sweep_partial_files(self.out_dir):
                runner.logger.info(f'Removed {path}, which a killed process left unfinished.')
            self._remove_outdated(runner)
            for path in remove_stale_shards(self.out_dir):
                runner.logger.info(f'Removed {path}: no checkpoint in the folder refers to it.')

    def _restore_outdated(self, runner: Runner) -> None:
        """Restore which checkpoints are outdated, also those of a smaller ``max_keep_ckpts``.

        MMEngine would remove the latter at once, the last good one among them.
        """
        hub = runner.message_hub
        kept = list(hub.get_info('keep_ckpt_ids', ()))
        if 0 < self.max_keep_ckpts < len(kept):
            outdated, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            hub.update_info('keep_ckpt_ids', kept)
        else:
            outdated = []
        names = [*hub.get_info('outdated_ckpt_ids', ()), *outdated]
        self.outdated = [
            name if isinstance(name, str) else self.filename_tmpl.format(name) for name in names
        ]

    def _relocate_history(self, runner: Runner) -> None:
        """Restore the history in the checkpoint that is resumed, wherever its folder is now."""
        hub = runner.message_hub
        self.history = CheckpointHistory()
        resumed = runner._load_from
        if not runner._resume or not resumed:
            return
        for path, steps in dict(hub.get_info('steps_since_saved') or {}).items():
            here = self.file_backend.join_path(self.out_dir, Path(path).name)
            self.history.add(here, steps)
        remote = '://' in str(resumed)
        self.history.add(str(resumed if remote else Path(resumed).expanduser().absolute()))

    def fall_back(self, runner: Runner) -> tuple[str | None, list[str]]:
        """Write the last good checkpoint to ``last_checkpoint``; all processes must call it.

        Return that checkpoint, or ``None`` if none is known to be good, and the newer ones, after
        which no step was finite and of a usual loss.
        """
        found: tuple[str | None, list[str]] = None, []
        if dist.is_main_process():
            for path in list(self.history.steps):
                if '://' not in path and not Path(path).exists():
                    del self.history.steps[path]
            good = self.history.last_good()
            later = [path for path, steps in self.history.steps.items() if steps == 0]
            found = good, later
            if good is not None:
                with suppress(OSError):
                    note_checkpoint(runner.work_dir, good)
        return broadcast_from_rank0(found)

    def save_aside(self, runner: Runner, meta: dict[str, int]) -> str | None:
        """Save a state that may be ruined under a name that is resumed only if it is given.

        Return its path, or ``None`` if it could not be written.
        """
        path: str = self.file_backend.join_path(self.out_dir, ASIDE)
        try:
            self._write(runner, ASIDE, meta)
        except OSError as error:
            runner.logger.warning(f'{path} could not be written: {error}')
            return None
        self._remove_stale_shards([ASIDE])
        runner.logger.warning(
            f'{path} has the state of a training whose last steps were skipped. It may be ruined, '
            'and is resumed only if it is named.'
        )
        return path

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Save when it is due, and when an earlier attempt failed."""
        watch = _watch(runner)
        if watch is not None and watch.took_sound_step:
            self.history.count_step()
            if self.outdated:
                self._remove_outdated(runner)
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        step = runner.iter + 1
        is_due = self.failed_at is not None and step >= self.failed_at + self.retry_interval
        if is_due or (self.is_postponed and watch is not None and watch.took_step):
            self.save_mid_epoch(runner, {'epoch': runner.epoch, 'iter': step})

    def after_train(self, runner: Runner) -> None:
        """Make sure that the last checkpoint is saved before the run ends."""
        deadline = time.monotonic() + self.patience
        while self.failed_at is not None:
            if not all_ranks(time.monotonic() < deadline):
                raise OSError(
                    f'the training is done, and its last checkpoint could not be written to '
                    f'{self.out_dir} for {self.patience:g} s; make room and run the same command '
                    'with --resume'
                )
            self._pause(runner, min(10, self.patience / 10))
            self._save_and_note(
                runner,
                self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter),
                {'epoch': runner.epoch, 'iter': runner.iter},
            )
        self.history = CheckpointHistory()  # no step follows; the files were checked
        self._remove_outdated(runner)
        super().after_train(runner)

    def _pause(self, runner: Runner, seconds: float) -> None:
        """Wait until the next attempt, unless a signal asks to stop.

        Raises:
            RunStopped: A process of the run was asked to stop.
        """
        until = time.monotonic() + seconds
        signals = stop_signals()
        while True:
            if any_rank(signals.received is not None):
                name = signals.received[0] if signals.received else 'a signal'
                before = (
                    f'{self.last_ckpt}, and repeats the steps after it'
                    if self.last_ckpt
                    else 'the beginning, as nothing was saved'
                )
                raise RunStopped(
                    f'stopped by {name} while the last checkpoint of a training that is done was '
                    f'retried: it could not be written to {self.out_dir}, and is lost; make room, '
                    f'then the same command with --resume resumes from {before}',
                    STOPPED,
                )
            if not all_ranks(time.monotonic() < until):
                return
            time.sleep(min(PAUSE, seconds))

    def save_mid_epoch(self, runner: Runner, meta: dict[str, int]) -> bool:
        """Save the current state as ``mid_epoch.pth``; return whether it worked.

        ``meta`` has the epochs and steps that are done: ``{'epoch': …, 'iter': …}``.
        """
        return self._save_and_note(runner, MID_EPOCH, meta)

    @overrides(CheckpointHook)
    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, int]) -> None:
        name = self.filename_tmpl.format(step)
        if self.max_keep_ckpts <= 0:
            self._save_and_note(runner, name, meta)
            return
        hub = runner.message_hub
        self._remove_outdated(runner)
        before, outdated = list(self.keep_ckpt_ids), list(self.outdated)
        after = [*(old for old in before if old != step), step]
        surplus, after = after[: -self.max_keep_ckpts], after[-self.max_keep_ckpts :]
        names = [self.filename_tmpl.format(old) for old in surplus]
        self.outdated = [old for old in dict.fromkeys([*outdated, *names]) if old != name]
        hub.update_info('keep_ckpt_ids', after)
        # If this process ends before they are removed, the run that resumes removes them.
        hub.update_info('outdated_ckpt_ids', self.outdated)
        if self._save_and_note(runner, name, meta):
            self.keep_ckpt_ids = deque(after, self.max_keep_ckpts)
            self._remove_outdated(runner)
        else:
            self.outdated = outdated
            hub.update_info('keep_ckpt_ids', before)
            hub.update_info('outdated_ckpt_ids', outdated)

    def _remove_outdated(self, runner: Runner) -> None:
        """Remove what is beyond ``max_keep_ckpts``, except what may be the last good one."""
        watched = _watch(runner) is not None
        needed = {Path(path).name for path in self.history.needed()} if watched else set()
        names = [name for name in self.outdated if name not in needed]
        self.outdated = [name for name in self.outdated if name in needed]
        self.history.forget(names)
        if names and dist.is_main_process():
            for name in names:
                self._remove(name)
            self._remove_stale_shards(names)

    def _may_save(self, runner: Runner, name: str, meta: dict[str, int]) -> bool:
        """Whether the current state is worth saving; all processes must call it.

        Raises:
            NonFiniteStepsError: The weights are ruined.
        """
        watch = _watch(runner)
        if watch is None:
            return True
        if watch.is_unsafe():
            self.is_postponed = True
            runner.logger.warning(
                f'{name} is not saved: the last steps were skipped, so the weights may be ruined. '
                f'{MID_EPOCH} is saved when a step is finite again.'
            )
            return False
        problem = problem_of_state(runner, watch.size_at_start)
        if problem is not None:
            raise NonFiniteStepsError(
                f'the training has diverged: after {meta["epoch"]} epochs and {meta["iter"]} steps '
                f'{problem}, so {name} is not saved. {watch.remedy(runner)}'
            )
        return True

    def _write(self, runner: Runner, name: str, meta: dict[str, int]) -> None:
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )

    def _save_and_note(self, runner: Runner, name: str, meta: dict[str, int]) -> bool:
        """Save, update ``last_checkpoint``, remove ``mid_epoch.pth``; return whether it worked."""
        if not self._may_save(runner, name, meta):
            return False
        path = self.file_backend.join_path(self.out_dir, name)
        hub = runner.message_hub
        if name in self.outdated:
            self.outdated.remove(name)
            hub.update_info('outdated_ckpt_ids', self.outdated)
        hub.update_info('last_ckpt', path)
        hub.update_info(
            'steps_since_saved', {p: n for p, n in self.history.steps.items() if p != path}
        )
        try:
            self._write(runner, name, meta)
            with raise_on_all_ranks():
                if dist.is_main_process():
                    note_checkpoint(runner.work_dir, path)
        except OSError as error:
            hub.update_info('last_ckpt', self.last_ckpt)
            self.failed_at = meta['iter']
            self._remove_stale_shards([name])
            runner.logger.warning(
                f'{path} could not be written: {error}. The training continues and keeps '
                f'{self.last_ckpt or "what was saved before"}; the next attempt is in '
                f'{self.retry_interval} steps.'
            )
            return False
        self.last_ckpt = path
        self.failed_at = None
        self.is_postponed = False
        self.history.add(path)
        if name != MID_EPOCH:
            self.outdated = list(dict.fromkeys([*self.outdated, MID_EPOCH]))
            self._remove_outdated(runner)
        self._remove_stale_shards([name])
        return True

    @overrides(CheckpointHook)
    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best one as MMEngine does, but remove the previous one only afterwards."""
        for key in getattr(self, 'key_indicators', None) or ():
            if key != 'auto' and key not in metrics:
                raise ValueError(
                    f'default_hooks.checkpoint.save_best={key!r} is none of the scores of the '
                    f'validation: {", ".join(metrics)}'
                )
        watch = _watch(runner)
        if watch is not None and self.save_best:
            if watch.is_unsafe() or watch.bad_scores:
                why = (
                    'scores of the validation are not finite (NaN or infinite)'
                    if watch.bad_scores
                    else 'steps are being skipped'
                )
                runner.logger.warning(f'No best checkpoint is saved: {why}.')
                return
            if (problem := problem_of_state(runner, watch.size_at_start)) is not None:
                raise NonFiniteStepsError(
                    f'the training has diverged by epoch {runner.epoch}: {problem}. '
                    + watch.remedy(runner)
                )
        scores = {name: _or_none(score) for name, score in metrics.items()}
        hub = runner.message_hub
        known = {k: v for k, v in hub.runtime_info.items() if k.startswith('best_')}
        own = {k: copy.copy(v) for k, v in vars(self).items() if k.startswith('best_ckpt_path')}
        try:
            with self._removing_afterwards():
                super()._save_best_checkpoint(runner, scores)
        except OSError as error:
            for name in [name for name in hub.runtime_info if name.startswith('best_')]:
                hub.pop_info(name)
            hub.update_info_dict(known)
            self.__dict__.update(own)
            self._remove_stale_shards()
            runner.logger.warning(
                f'The best checkpoint could not be written: {error}. The training continues, and '
                'the best one before it stays.'
            )

    @contextmanager
    def _removing_afterwards(self) -> Iterator[None]:
        """Delay what MMEngine removes until the end; after a failure nothing is removed."""
        backend, removals = self.file_backend, []

        class Backend:
            def __getattr__(self, name: str) -> Any:
                return getattr(backend, name)

            def remove(self, path: str) -> None:
                removals.append((backend.remove, path))

            def rmtree(self, path: str) -> None:
                removals.append((backend.rmtree, path))

        self.file_backend = Backend()
        try:
            yield
        finally:
            self.file_backend = backend
        for remove, path in removals:
            with suppress(OSError):  # else the main process alone would fail
                remove(path)
        self._remove_stale_shards([Path(path).name for _, path in removals])

    def _remove(self, name: str) -> None:
        path = self.file_backend.join_path(self.out_dir, name)
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # of an engine that saves folders
            self.file_backend.rmtree(path)

    def _remove_stale_shards(self, names: Sequence[str] | None = None) -> None:
        """Remove shards of checkpoints that were removed, or never completed; ``None`` is all."""
        if dist.is_main_process() and '://' not in str(self.out_dir):
            with suppress(OSError):  # the next start tries again
                remove_stale_shards(self.out_dir, names)


def _watch(runner: Runner) -> NonFiniteStepHook | None:
    """Return the hook that skips steps, if the run has one."""
    return next((hook for hook in runner.hooks if isinstance(hook, NonFiniteStepHook)), None)


def _or_none(score: float) -> float | None:
    """Return a score, or ``None``, which is never the best one, for NaN and Inf."""
    return None if isinstance(score, Real) and not math.isfinite(score) else score


def save_mid_epoch(runner: Runner, meta: dict[str, int]) -> bool | None:
    """Save as :meth:`AtomicCheckpointHook.save_mid_epoch` does; ``None`` without such a hook."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)]
    return hooks[0].save_mid_epoch(runner, meta) if hooks else None
