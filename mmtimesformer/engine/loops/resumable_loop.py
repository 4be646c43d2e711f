"""An epoch loop that resumes mid-epoch, bit for bit.

Besides the weights, a step depends on its samples and on random numbers. Both follow from the
position of the training here, so no state of a generator is saved:

- the samples of an epoch are those of the sampler for this epoch, without those already done, which
  are skipped by index, without opening a file;
- generators are seeded for each sample by (seed, epoch, index), in whichever worker it is loaded,
  and for each step by (seed, number of the step).

So a resumed run equals an uninterrupted one, bit for bit where the arithmetic is deterministic
(CPUs; GPUs with ``--deterministic``), with any number of workers.
"""

import random
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import EMAHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    get_worker_info,
)

from mmtimesformer.compat.upstream import require_attributes
from mmtimesformer.engine.checkpointing.checkpoint_hook import save_mid_epoch
from mmtimesformer.engine.distributed.collectives import any_rank
from mmtimesformer.engine.distributed.process_signals import StopRequested
from mmtimesformer.engine.distributed.stop_signals import stop_signals
from mmtimesformer.engine.loops.dataloader_recovery import (
    WorkerDiedError,
    WorkersLostError,
    WorkerWatchdog,
    end_workers,
    loader_like,
)
from mmtimesformer.fileio.storage_error import StorageError
from mmtimesformer.registry import LOOPS

require_attributes(
    EpochBasedTrainLoop, '_decide_current_val_interval', '_epoch', '_iter', '_max_epochs',
    '_max_iters', used_by=__name__,
)  # fmt: skip
require_attributes(EMAHook, '_swap_ema_parameters', used_by=__name__)

ORDER, SAMPLE, STEP, VALIDATION = range(4)  # the second word of a seed: what it is for
Key = tuple[int, tuple[int, ...]]  # index of a sample, and the words of its seed


class LoopState(TypedDict, total=False):
    """``meta['position']`` of a checkpoint."""

    step: int  # done in this epoch
    steps: int  # of an epoch
    videos_per_step: int  # of all ranks
    videos: int  # of the data set
    list: int | None  # checksum of its annotation files
    order: int | None  # seed of the sampler
    owes_validation: bool  # one is due


@runtime_checkable
class _StopHandler(Protocol):  # StopOnSignalHook, which imports this module
    def all_leave_validation(self) -> bool: ...
    def stop_while_waiting(self, runner: Runner, error: BaseException) -> None: ...


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's ``EpochBasedTrainLoop`` that resumes exactly, also mid-epoch.

    It takes the same arguments. The Runner uses it for ``by_epoch=True`` and
    ``EpochBasedTrainLoop`` in a config (``mmengine.EpochBasedTrainLoop`` is MMEngine's own).
    Besides, it

    - restarts DataLoader workers that die (killed, out of memory) and continues the epoch;
    - runs a validation that was due when the run ended.

    Args:
        runner: The Runner.
        dataloader: A data loader or its config.
        max_epochs: Epochs to train.
        val_begin: The first epoch after which to validate.
        val_interval: Epochs between two validations.
        dynamic_intervals: Pairs of an epoch and the ``val_interval`` from there on.
        max_worker_restarts: How often workers may be restarted in an epoch.

    Raises:
        TypeError: The data set is a stream, which has no positions.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict[str, Any],
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        max_worker_restarts: int = 10,
    ) -> None:
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        if isinstance(self.dataloader.dataset, IterableDataset):
            raise TypeError(
                f'{type(self.dataloader.dataset).__name__} is a stream, which cannot resume '
                "exactly; set train_cfg.type='mmengine.EpochBasedTrainLoop'"
            )
        self.max_worker_restarts = max_worker_restarts
        self.step_in_epoch = 0  # steps of this epoch that are done
        self.owes_validation = False
        self.indices: list[int] = []  # samples of the current batch
        self._keys = _Keys(self.dataloader.batch_sampler)
        self._list = fingerprint(self.dataloader.dataset)
        self._reader: DataLoader | None = None

    def run(self) -> torch.nn.Module:
        """Train from the position of the checkpoint, or from the beginning."""
        try:
            return self._run()
        finally:
            if self._reader is not None and self._reader._iterator is not None:  # persistent ones
                end_workers(self._reader._iterator)
            self._reader = None

    def _run(self) -> torch.nn.Module:
        self.runner.call_hook('before_train')
        if self.owes_validation and self.runner.val_loop is not None:
            self.runner.logger.info(f'Runs the validation of epoch {self._epoch}, which was due.')
            self._validate()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            if self._validation_is_due(self._epoch):
                self._validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train the remaining steps of this epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        with closing(self._batches()) as batches, self._stop_while_waiting():
            for batch in self._on_all_ranks(batches):
                seed_all(self.runner.seed, STEP, self._iter)
                self.run_iter(self.step_in_epoch, batch)
                self.step_in_epoch += 1
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self.step_in_epoch = 0

    def state_dict(self, epoch: int, iteration: int) -> LoopState:
        """Return the position in the data after so many epochs and steps."""
        this_epoch = epoch == self._epoch
        start = self._iter - self.step_in_epoch
        due = self.owes_validation if this_epoch else self._validation_is_due(epoch)
        seed = getattr(self._keys.sampler, 'seed', None)
        return {
            'step': iteration - start if this_epoch else 0,
            'steps': len(self.dataloader),
            'videos_per_step': self._videos_per_step(),
            'videos': len(self.dataloader.dataset),
            'list': self._list,
            'order': seed if isinstance(seed, int) else None,
            'owes_validation': due,
        }

    def load_state_dict(self, saved: LoopState, epoch: int, iteration: int) -> None:
        """Resume after so many epochs and steps, at the position of :meth:`state_dict`.

        If an epoch has another number of steps now, the fraction of the epoch that is done stays.
        A checkpoint of MMEngine's loop has an empty state.
        """
        steps = len(self.dataloader)
        before = saved.get('steps', steps)
        step = saved.get('step', iteration - epoch * steps)
        if not 0 <= step <= before:
            step = 0  # of MMEngine's loop with another length
        self.owes_validation = saved.get('owes_validation', False)
        self._load_order(saved.get('order'))
        step = self._adapted_step(step, before, saved)
        self.step_in_epoch = step
        # The steps done are those of the checkpoint, whatever their number would be now
        self._max_iters = iteration + max((self._max_epochs - epoch) * steps - step, 0)
        if step:
            self.runner.logger.info(f'Resumes after step {step} of {steps} of the epoch.')
        if epoch >= self._max_epochs:
            self.runner.logger.warning(
                f'Nothing is left to train: the checkpoint has {epoch} epochs, and '
                f'train_cfg.max_epochs={self._max_epochs}; set it higher to train longer.'
            )

    def _load_order(self, order: int | None) -> None:
        """Set the sampler's seed to that of the checkpoint."""
        if self._keys.sampler is None or order is None:
            return
        configured = self.runner._train_dataloader
        sampler = (configured.get('sampler') if isinstance(configured, dict) else None) or {}
        if sampler.get('seed') not in (None, order):
            self.runner.logger.warning(
                f'train_dataloader.sampler.seed: {sampler["seed"]} in the config, {order} in the '
                "checkpoint. The checkpoint's takes effect."
            )
        self._keys.sampler.seed = order

    def _adapted_step(self, step: int, before: int, saved: LoopState) -> int:
        """Return the step within the epoch, and log what changed since the checkpoint."""
        steps, warn = len(self.dataloader), self.runner.logger.warning
        size, videos = len(self.dataloader.dataset), self._videos_per_step()
        size_before = saved.get('videos', size)
        videos_before = saved.get('videos_per_step', videos)
        differs = 'the training resumes, but differs from an uninterrupted one'
        if size_before == size and saved.get('list', self._list) != self._list:
            warn(
                f'The list of training videos has {size} videos as in the checkpoint, but other '
                f'videos, labels or another order: {differs}.'
            )
        if size_before != size or (videos_before == videos and before != steps):
            step = step * steps // max(before, 1)
            what = f'{size_before} videos' if size_before != size else f'{before} steps an epoch'
            now = f'{size}' if size_before != size else f'{steps}'
            warn(
                f'The checkpoint is of a training on {what}, and now there are {now}: an epoch has '
                f'{steps} steps instead of {before}. It resumes at the same fraction of the epoch, '
                f'after step {step}; {differs}. Schedulers with convert_to_iter_based=True '
                'follow the epochs. For a new training give --work-dir another folder.'
            )
        elif videos_before != videos:
            seen = step * videos_before
            step = min(seen // videos, steps)
            again = seen - step * videos
            warn(
                f'A step had {videos_before} videos in the checkpoint, and now has {videos}: '
                f'{differs}.' + (f' {again} videos of this epoch come twice.' if again > 0 else '')
            )
        return step

    def _validation_is_due(self, epoch: int) -> bool:
        return (
            self.runner.val_loop is not None
            and epoch >= self.val_begin
            and (epoch % self.val_interval == 0 or epoch == self._max_epochs)
        )

    def _validate(self) -> None:
        self.owes_validation = True  # until LoopStateHook.after_val_epoch
        seed_all(self.runner.seed, VALIDATION, self._epoch)
        with self._stop_while_waiting(self.leave_validation):
            try:
                self.runner.val_loop.run()
            except (StopRequested, StorageError) as error:
                several = self.runner.world_size > 1
                if several and not all(hook.all_leave_validation() for hook in self._stop_handlers):
                    raise OSError(str(error)) from error  # the last batch: other ranks are done
                raise

    def leave_validation(self) -> None:
        """Restore the trained weights when a validation of the moving average is interrupted."""
        for hook in self.runner.hooks:
            if isinstance(hook, EMAHook):
                hook._swap_ema_parameters()

    @property
    def _stop_handlers(self) -> list[_StopHandler]:
        return [hook for hook in self.runner.hooks if isinstance(hook, _StopHandler)]

    @contextmanager
    def _stop_while_waiting(self, leave: Callable[[], object] | None = None) -> Iterator[None]:
        """Save and end the run on a signal during a wait for data, or if the data is gone."""
        try:
            yield
        except (StopRequested, StorageError) as error:
            if leave is not None:
                leave()
            for hook in self._stop_handlers:
                hook.stop_while_waiting(self.runner, error)
            raise

    def _on_all_ranks(self, batches: Iterator[object]) -> Iterator[object]:
        """Yield a batch when every rank has one; otherwise stop all ranks before the same step.

        So a rank that waits for its videos can stop or fail while the others are between two steps
        as well, and all can save together.

        Raises:
            StopRequested: A rank got a signal while it waited.
            StorageError: A rank cannot reach its videos.
        """
        if self.runner.world_size == 1:
            yield from batches
            return
        signals = stop_signals()
        while True:
            problem: BaseException | None = None
            batch, done = None, False
            signals.may_end_wait = True
            try:
                batch = next(batches)
            except StopIteration:
                done = True
            except (StopRequested, StorageError) as error:
                problem = error
            finally:
                signals.may_end_wait = False
            if any_rank(problem is not None):
                raise _problem_of_all(problem)
            if done:
                return
            yield batch

    def _batches(self) -> Generator[object, None, None]:
        """Yield the remaining batches of this epoch; restart workers that die."""
        deaths = 0
        while self.step_in_epoch < len(self.dataloader):
            seed_all(self.runner.seed, ORDER, self._epoch)
            self._keys.start(self.runner.seed, self._epoch, self.step_in_epoch)
            if self._reader is None:
                seeded = _Seeded(self.dataloader.dataset)
                self._reader = loader_like(self.dataloader, seeded, self._keys)
            watchdog = WorkerWatchdog(self._reader, stop_signals())
            try:
                with watchdog as batches:
                    for batch in batches:
                        self.indices = self._keys.read.popleft()
                        yield batch
                return
            except WorkerDiedError as error:
                deaths += 1
                self._log_death(error, deaths)
            finally:
                if not watchdog.is_usable:
                    self._reader = None

    def _log_death(self, cause: WorkerDiedError, deaths: int) -> None:
        """Log a dead worker, and save and end the run if there were too many."""
        if deaths > self.max_worker_restarts:
            if self.runner.world_size == 1:  # other ranks would be within a step
                save_mid_epoch(self.runner, {'epoch': self._epoch, 'iter': self._iter})
            raise WorkersLostError(deaths, str(cause)) from cause
        self.runner.logger.warning(
            f'DataLoader workers are restarted: one died ({cause}). The epoch continues after step '
            f'{self.step_in_epoch} (restart {deaths} of at most {self.max_worker_restarts}).'
        )

    def _videos_per_step(self) -> int:
        return (getattr(self._keys.batch_sampler, 'batch_size', 1) or 1) * self.runner.world_size


def _problem_of_all(own: BaseException | None) -> BaseException:
    """Return the error to raise: that of this rank, or else that of another one."""
    errors = dist.all_gather_object(str(own) if isinstance(own, StorageError) else None)
    lost = [text for text in errors if text]
    return own or (StorageError(lost[0]) if lost else StopRequested())


def fingerprint(dataset: Any) -> int | None:
    """Return a checksum of the annotation files of a data set, or ``None`` without any."""
    checksum = None
    for one in nested_datasets(dataset):
        path = getattr(one, 'ann_file', None)
        if isinstance(path, str) and path and Path(path).is_file():
            checksum = zlib.crc32(Path(path).read_bytes(), checksum or 0)
    return checksum


def nested_datasets(dataset: Any) -> Iterator[Any]:
    """Yield a data set and those inside wrappers such as ``ConcatDataset``, the last one first."""
    yield dataset
    inside = getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())
    for part in reversed(inside):
        if part is not None:
            yield from nested_datasets(part)


def seed_all(*words: int) -> None:
    """Seed the generators of Python, NumPy and torch."""
    python, numpy, one, two = np.random.SeedSequence(words).generate_state(4).tolist()
    random.seed(python)
    np.random.seed(numpy)  # noqa: NPY002 (MMAction2's transforms use it)
    if get_worker_info() is None and torch.accelerator.is_available():
        torch.manual_seed(one << 32 | two)
    else:  # 0.2 ms faster
        torch.default_generator.manual_seed(one << 32 | two)


class _Keys(Sampler):
    """The remaining batches of an epoch: for each sample its index and its seed."""

    def __init__(self, batch_sampler: BatchSampler) -> None:
        self.batch_sampler = batch_sampler
        self.sampler = getattr(batch_sampler, 'sampler', None)
        self.read: deque[list[int]] = deque()  # indices of batches that were read ahead
        self.start(0, 0, 0)

    def start(self, seed: int, epoch: int, done: int) -> None:
        self.seed, self.epoch, self.done = seed, epoch, done
        self.read.clear()

    def __len__(self) -> int:
        return len(self.batch_sampler) - self.done

    def __iter__(self) -> Iterator[list[Key]]:
        seen: Counter[int] = Counter()  # an index that comes twice gets two seeds
        for number, batch in enumerate(self.batch_sampler):
            keys: list[Key] = []
            for index in batch:
                keys.append((index, (self.seed, SAMPLE, self.epoch, index, seen[index])))
                seen[index] += 1
            if number >= self.done:
                self.read.append(list(batch))
                yield keys


class _Seeded(Dataset):
    """A data set that seeds the generators before each sample."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> object:
        index, words = key
        seed_all(*words)
        return self.dataset[index]

    def __getitems__(self, keys: list[Key]) -> list[object]:
        read_ahead = getattr(self.dataset, 'read_ahead', None)
        if read_ahead is not None:
            read_ahead([index for index, _ in keys])
        return [self[key] for key in keys]
