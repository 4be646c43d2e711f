"""Saving so that something to resume from exists at every moment, also on a full disk."""

import copy
import inspect
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import CheckpointHook

from mmtimesformer.checkpoints.shares import sweep_shares
from mmtimesformer.engine.agreement import everywhere, failing_together
from mmtimesformer.engine.resuming import MID_EPOCH, note_checkpoint
from mmtimesformer.engine.storage import sweep_partial_files
from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, which never leaves a run without a checkpoint.

    It takes the same arguments, and the Runner puts it wherever a config says ``CheckpointHook``.
    Beyond that one,

    - an old checkpoint goes only after the new one is complete and noted in ``last_checkpoint``
      (so for a moment there is room needed for one more than ``max_keep_ckpts``);
    - where the disk is full the run goes on, says so, and tries again, ``retry_interval`` steps
      later and at the next regular checkpoint; the last one of a run is tried for ``patience``
      seconds before the run ends with an error;
    - a moved or copied ``work_dir`` keeps its hands off the best checkpoint of the original.

    Args:
        retry_interval: Steps between two attempts after one that failed.
        patience: How long the last checkpoint of a run is tried, in seconds.
        **kwargs: As MMEngine's hook takes them.

    Raises:
        TypeError: MMEngine's hook has no such argument; it would find out when it saves.
    """

    out_dir: str
    file_backend: Any
    keep_ckpt_ids: deque[int]
    last_ckpt: str | None

    def __init__(self, *, retry_interval: int = 100, patience: float = 600, **kwargs: Any) -> None:
        for name in set(kwargs) - set(inspect.signature(CheckpointHook).parameters):
            raise TypeError(f'CheckpointHook has no argument {name!r}')
        super().__init__(**kwargs)
        self.retry_interval = retry_interval
        self.patience = patience
        self.failed_at: int | None = None  # step of an attempt that no successful one followed yet

    def before_train(self, runner: Any) -> None:
        """Sweep up what a killed process left, and find the best checkpoint in a moved folder."""
        if self.out_dir and '://' not in self.out_dir:
            self.out_dir = str(Path(self.out_dir).expanduser())
        super().before_train(runner)
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
                runner.logger.info(f'Removed {path}, which a killed process left half written.')
            for step in runner.message_hub.get_info('outdated_ckpt_ids', ()):
                self._remove(self.filename_tmpl.format(step))
            for path in sweep_shares(self.out_dir):
                runner.logger.info(
                    f'Removed {path}: no checkpoint in the folder has its weights there.'
                )

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save where it is time, and where an earlier attempt failed."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        step = runner.iter + 1
        if self.failed_at is not None and step >= self.failed_at + self.retry_interval:
            self.save_mid_epoch(runner, {'epoch': runner.epoch, 'iter': step})

    def after_train(self, runner: Any) -> None:
        """See that the last checkpoint is there before the run ends."""
        given_up = time.monotonic() + self.patience
        while self.failed_at is not None:
            if not everywhere(time.monotonic() < given_up):
                raise OSError(
                    f'the training is done, and its last checkpoint could not be written to '
                    f'{self.out_dir} for {self.patience:g} s; make room and run the same command '
                    'with --resume'
                )
            time.sleep(min(10, self.patience / 10))
            self._save_and_note(
                runner,
                self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter),
                {'epoch': runner.epoch, 'iter': runner.iter},
            )
        super().after_train(runner)

    def save_mid_epoch(self, runner: Any, meta: dict[str, Any]) -> bool:
        """Save what is there now as ``mid_epoch.pth``, and note it; return whether it worked.

        Args:
            runner: The Runner.
            meta: Epochs and steps that are done: ``{'epoch': …, 'iter': …}``.
        """
        return self._save_and_note(runner, MID_EPOCH, meta)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        name = self.filename_tmpl.format(step)
        if self.max_keep_ckpts <= 0:
            self._save_and_note(runner, name, meta)
            return
        hub = runner.message_hub
        before = list(self.keep_ckpt_ids)
        after = [*(old for old in before if old != step), step]
        outdated, after = after[: -self.max_keep_ckpts], after[-self.max_keep_ckpts :]
        hub.update_info('keep_ckpt_ids', after)
        # For the one who resumes from the new one, should this process end before they are gone.
        hub.update_info('outdated_ckpt_ids', outdated)
        if self._save_and_note(runner, name, meta):
            self.keep_ckpt_ids = deque(after, self.max_keep_ckpts)
            if dist.is_main_process():
                for old in outdated:
                    self._remove(self.filename_tmpl.format(old))
                self._sweep_shares([self.filename_tmpl.format(step) for step in outdated])
        else:
            hub.update_info('keep_ckpt_ids', before)
            hub.update_info('outdated_ckpt_ids', [])

    def _save_and_note(self, runner: Any, name: str, meta: dict[str, Any]) -> bool:
        """Save, note, and only then drop ``mid_epoch.pth``; return whether it worked."""
        path = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', path)
        try:
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
            with failing_together():
                if dist.is_main_process():
                    note_checkpoint(runner.work_dir, path)
        except OSError as error:
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
            self.failed_at = meta['iter']
            self._sweep_shares([name])
            runner.logger.warning(
                f'{path} could not be written: {error}. The training goes on and keeps '
                f'{self.last_ckpt or "what was saved before"}; the next attempt is '
                f'{self.retry_interval} steps away.'
            )
            return False
        self.last_ckpt = path
        self.failed_at = None
        if name != MID_EPOCH and dist.is_main_process():
            self._remove(MID_EPOCH)
        self._sweep_shares([name, MID_EPOCH])
        return True

    def _save_best_checkpoint(self, runner: Any, metrics: Any) -> None:
        """Save the best one as MMEngine does, but remove the one before it afterwards."""
        for key in getattr(self, 'key_indicators', None) or ():
            if key != 'auto' and key not in metrics:
                raise ValueError(
                    f'default_hooks.checkpoint.save_best={key!r} is none of the scores of the '
                    f'validation: {", ".join(metrics)}'
                )
        hub = runner.message_hub
        known = {k: v for k, v in hub.runtime_info.items() if k.startswith('best_')}
        own = {k: copy.copy(v) for k, v in vars(self).items() if k.startswith('best_ckpt_path')}
        try:
            with self._removing_afterwards():
                super()._save_best_checkpoint(runner, metrics)
        except OSError as error:
            for name in [name for name in hub.runtime_info if name.startswith('best_')]:
                hub.pop_info(name)
            hub.update_info_dict(known)
            self.__dict__.update(own)
            self._sweep_shares()
            runner.logger.warning(
                f'The best checkpoint could not be written: {error}. The training goes on, and the '
                'best one before it stays.'
            )

    @contextmanager
    def _removing_afterwards(self) -> Iterator[None]:
        """Let what MMEngine removes be removed at the end, and after a failure not at all."""
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
            with suppress(OSError):  # else the main process alone would forget the new best one
                remove(path)
        self._sweep_shares([Path(path).name for _, path in removals])

    def _remove(self, name: str) -> None:
        path = self.file_backend.join_path(self.out_dir, name)
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # of an engine that saves folders
            self.file_backend.rmtree(path)

    def _sweep_shares(self, names: Sequence[str] | None = None) -> None:
        """Remove the shares of checkpoints that are gone, or that did not come to be.

        Args:
            names: Those that were written or removed; all are looked at if not given.
        """
        if dist.is_main_process() and '://' not in str(self.out_dir):
            with suppress(OSError):  # the checkpoint is there; at the next start it is tried again
                sweep_shares(self.out_dir, names)


def save_mid_epoch(runner: Any, meta: dict[str, Any]) -> bool | None:
    """Save between two regular checkpoints, see :meth:`SafeCheckpointHook.save_mid_epoch`.

    Returns:
        Whether it worked; ``None`` where the run has no hook that saves.
    """
    hooks = [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
    return hooks[0].save_mid_epoch(runner, meta) if hooks else None
