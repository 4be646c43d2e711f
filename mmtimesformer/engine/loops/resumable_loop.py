"""Training that can end at any step and goes on as if it had not.

Two things decide what a step does beside the weights: which samples it sees, and the random numbers
drawn on the way. Here both follow from *where* the training is, so that no generator's state has to
be saved:

- the samples of an epoch are what the sampler gives for the epoch's number, less those already
  seen, which are skipped as numbers, without a file being opened;
- each sample draws from generators seeded by (seed, epoch, index), in whichever process it is
  loaded; each step from those seeded by (seed, number of the step).

So a run that goes on is the run that never stopped, bit for bit where the arithmetic is repeatable
(CPUs; GPUs with ``--deterministic``), with any number of data-loading processes.
"""

import random
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from mmtimesformer.compat.upstream import require_attributes
from mmtimesformer.engine.checkpointing.checkpoint_hook import save_mid_epoch
from mmtimesformer.engine.distributed.collectives import any_rank
from mmtimesformer.engine.distributed.fsdp import shard_like
from mmtimesformer.engine.distributed.process_signals import StopRequested
from mmtimesformer.engine.loops.dataloader_recovery import (
    WorkerDiedError,
    WorkersLostError,
    WorkerWatchdog,
    end_workers,
    loader_like,
)
from mmtimesformer.fileio.storage_error import StorageError
from mmtimesformer.registry import HOOKS, LOOPS

require_attributes(
    EpochBasedTrainLoop, '_decide_current_val_interval', '_epoch', '_iter', '_max_epochs',
    '_max_iters', used_by=__name__,
)  # fmt: skip
require_attributes(EMAHook, '_swap_ema_parameters', used_by=__name__)

ORDER, SAMPLE, STEP, VALIDATION = range(4)  # what is drawn for, the second word of a seed
Key = tuple[int, tuple[int, ...]]  # index of a sample, and the words of its seed


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's ``EpochBasedTrainLoop`` that resumes exactly, within an epoch too.

    It takes the same arguments, and the Runner puts it where a config says ``by_epoch=True`` or
    ``EpochBasedTrainLoop`` (``mmengine.EpochBasedTrainLoop`` is MMEngine's own). Beyond that one,

    - a data-loading process that dies, killed or out of memory, does not end the training: the
      others are replaced with it, and the epoch goes on where it was;
    - a validation that was due when the run ended is made up for.

    Args:
        runner: The Runner.
        dataloader: A data loader or its config.
        max_epochs: Epochs to train.
        val_begin: The first epoch after which to validate.
        val_interval: Epochs between two validations.
        dynamic_intervals: Pairs of an epoch and the ``val_interval`` from there on.
        max_worker_restarts: How often in an epoch data-loading processes may die.

    Raises:
        TypeError: The data set is a stream, in which no position can be found again.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        max_worker_restarts: int = 10,
    ) -> None:
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        if isinstance(self.dataloader.dataset, IterableDataset):
            raise TypeError(
                f'{type(self.dataloader.dataset).__name__} is a stream, and a stream cannot be '
                "resumed exactly; set train_cfg.type='mmengine.EpochBasedTrainLoop'"
            )
        self.max_worker_restarts = max_worker_restarts
        self.step_in_epoch = 0  # steps of this epoch that are done
        self.owes_validation = False
        self.indices: list[int] = []  # of the samples in the batch at hand
        self._keys = _Keys(self.dataloader.batch_sampler)
        self._list = fingerprint(self.dataloader.dataset)
        self._reader: DataLoader | None = None

    def run(self) -> torch.nn.Module:
        """Train from where the checkpoint was, or from the beginning."""
        try:
            return self._run()
        finally:
            if self._reader is not None and self._reader._iterator is not None:  # persistent ones
                end_workers(self._reader._iterator)
            self._reader = None

    def _run(self) -> torch.nn.Module:
        self.runner.call_hook('before_train')
        if self.owes_validation and self.runner.val_loop is not None:
            self.runner.logger.info(f'Validates epoch {self._epoch}, which was due when it ended.')
            self._validate()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            if self._validation_is_due(self._epoch):
                self._validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Do the steps of this epoch that are not done."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        with closing(self._batches()) as batches, self._ending_where_it_waits():
            for batch in self._in_all_processes(batches):
                seed_all(self.runner.seed, STEP, self._iter)
                self.run_iter(self.step_in_epoch, batch)
                self.step_in_epoch += 1
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self.step_in_epoch = 0

    def position_at(self, epoch: int, iteration: int) -> dict[str, Any]:
        """Tell where a checkpoint is that says so many epochs and steps are done."""
        this_epoch = epoch == self._epoch
        began = self._iter - self.step_in_epoch
        return {
            'step': iteration - began if this_epoch else 0,
            'steps': len(self.dataloader),
            'videos_per_step': self._videos_per_step(),
            'videos': len(self.dataloader.dataset),
            'list': self._list,
            'order': self._sampler_seed(),
            'owes_validation': (
                self.owes_validation if this_epoch else self._validation_is_due(epoch)
            ),
        }

    def go_on_from(self, meta: dict[str, Any]) -> None:
        """Take up the position that a checkpoint's ``meta`` tells.

        What is counted in epochs stays where it was, also if an epoch has another number of steps
        now: a training that was half through an epoch is half through it.
        """
        saved = meta.get('position') or {}
        steps = len(self.dataloader)
        before = saved.get('steps', steps)
        step = saved.get('step', meta['iter'] - meta['epoch'] * steps)
        if not 0 <= step <= before:
            step = 0  # MMEngine's, of a loop of another length
        self.owes_validation = saved.get('owes_validation', False)
        if self._keys.sampler is not None and saved.get('order') is not None:
            configured = getattr(self.runner, '_train_dataloader', None)
            seed = (dict(configured).get('sampler') if isinstance(configured, dict) else None) or {}
            if seed.get('seed') not in (None, saved['order']):
                self.runner.logger.warning(
                    f'train_dataloader.sampler.seed: {seed["seed"]} in the config, '
                    f"{saved['order']} in the checkpoint. The checkpoint's takes effect."
                )
            self._keys.sampler.seed = saved['order']
        step = self._step_of_now(step, before, saved)
        self.step_in_epoch = step
        # Steps that are done are those of the checkpoint, whatever their number would be now.
        self._max_iters = meta['iter'] + max((self._max_epochs - meta['epoch']) * steps - step, 0)
        if step:
            self.runner.logger.info(f'Goes on after step {step} of {steps} of the epoch.')
        if meta['epoch'] >= self._max_epochs:
            self.runner.logger.warning(
                f'Nothing is left to train: the checkpoint has {meta["epoch"]} epochs, and '
                f'train_cfg.max_epochs={self._max_epochs}; set it higher to train longer.'
            )

    def _step_of_now(self, step: int, before: int, saved: dict[str, Any]) -> int:
        """Return the step within the epoch, and log what changed in it since the checkpoint."""
        steps, warn = len(self.dataloader), self.runner.logger.warning
        size, videos = len(self.dataloader.dataset), self._videos_per_step()
        size_before = saved.get('videos', size)
        videos_before = saved.get('videos_per_step', videos)
        not_the_same = (
            'the training goes on, but is not the one that would have been without a stop'
        )
        if size_before == size and saved.get('list', self._list) != self._list:
            warn(
                f'The list of training videos has as many videos as in the checkpoint ({size}), '
                f'and others, other labels or another order: {not_the_same}.'
            )
        if size_before != size or (videos_before == videos and before != steps):
            step = step * steps // max(before, 1)
            what = f'{size_before} videos' if size_before != size else f'{before} steps an epoch'
            now = f'{size}' if size_before != size else f'{steps}'
            warn(
                f'The checkpoint is of a training on {what}, and now there are {now}: an epoch has '
                f'{steps} steps instead of {before}. It resumes as far into the epoch as it was, '
                f'after step {step}; {not_the_same}. Schedulers with convert_to_iter_based=True '
                'follow the epochs. For a new training give --work-dir another folder.'
            )
        elif videos_before != videos:
            seen = step * videos_before
            step = min(seen // videos, steps)
            again = seen - step * videos
            warn(
                f'The checkpoint is of steps over {videos_before} videos, and now a step sees '
                f'{videos}: {not_the_same}.'
                + (f' {again} videos of this epoch are seen again.' if again > 0 else '')
            )
        return step

    def _validation_is_due(self, epoch: int) -> bool:
        return (
            self.runner.val_loop is not None
            and epoch >= self.val_begin
            and (epoch % self.val_interval == 0 or epoch == self._max_epochs)
        )

    def _validate(self) -> None:
        self.owes_validation = True  # until its result is there, see LoopStateHook
        seed_all(self.runner.seed, VALIDATION, self._epoch)
        with self._ending_where_it_waits(self.leave_validation):
            try:
                self.runner.val_loop.run()
            except (StopRequested, StorageError) as error:
                hooks = (h for h in self.runner.hooks if hasattr(h, 'meets_in_validation'))
                if self.runner.world_size > 1 and not all(h.meets_in_validation() for h in hooks):
                    raise OSError(str(error)) from error  # the last batch: the others are done
                raise

    def leave_validation(self) -> None:
        """Give the model its own weights back where a validation of averaged ones is broken off."""
        for hook in self.runner.hooks:
            if isinstance(hook, EMAHook):
                hook._swap_ema_parameters()

    @contextmanager
    def _ending_where_it_waits(self, leave: Callable[[], object] | None = None) -> Iterator[None]:
        """Save and end the run when a signal came while it waited for data, or data is gone."""
        try:
            yield
        except (StopRequested, StorageError) as error:
            if leave is not None:
                leave()
            for hook in self.runner.hooks:
                if hasattr(hook, 'end_while_waiting'):
                    hook.end_while_waiting(self.runner, error)
            raise

    def _in_all_processes(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Give batches when every process has its own; else let all end at the same step.

        A process that waits for its videos can so be told to stop, or give up, while the others are
        between two steps, too, and all can save together.

        Raises:
            StopRequested: A process was told to stop while it waited.
            StorageError: A process cannot reach its videos.
        """
        if self.runner.world_size == 1:
            yield from batches
            return
        signals = getattr(self.runner, 'stop_signals', None)
        while True:
            problem: BaseException | None = None
            batch, done = None, False
            if signals is not None:
                signals.may_end_wait = True
            try:
                batch = next(batches)
            except StopIteration:
                done = True
            except (StopRequested, StorageError) as error:
                problem = error
            finally:
                if signals is not None:
                    signals.may_end_wait = False
            if any_rank(problem is not None):
                raise _problem_of_all(problem)
            if done:
                return
            yield batch

    def _batches(self) -> Generator[Any, None, None]:
        """Give the batches of this epoch that are to come; replace data loaders that die."""
        losses = 0
        while self.step_in_epoch < len(self.dataloader):
            seed_all(self.runner.seed, ORDER, self._epoch)
            self._keys.start(self.runner.seed, self._epoch, self.step_in_epoch)
            if self._reader is None:
                self._reader = _reader_like(self.dataloader, self._keys)
            signals = getattr(self.runner, 'stop_signals', None)
            watched = WorkerWatchdog(self._reader, signals)
            try:
                with watched as batches:
                    for batch in batches:
                        self.indices = self._keys.given.popleft()
                        yield batch
                return
            except WorkerDiedError as loss:
                losses += 1
                self._tell_of_loss(loss, losses)
            finally:
                if not watched.is_usable:
                    self._reader = None

    def _tell_of_loss(self, what: WorkerDiedError, losses: int) -> None:
        """Say that data loaders died, and make an end where that has happened too often."""
        if losses > self.max_worker_restarts:
            if self.runner.world_size == 1:  # the others would be in the midst of a step
                save_mid_epoch(self.runner, {'epoch': self._epoch, 'iter': self._iter})
            raise WorkersLostError(losses, str(what)) from what
        self.runner.logger.warning(
            f'Data-loading processes are replaced, for one died ({what}). The epoch goes on after '
            f'step {self.step_in_epoch} ({losses} of {self.max_worker_restarts} such losses).'
        )

    def _videos_per_step(self) -> int:
        return (getattr(self._keys.batch_sampler, 'batch_size', 1) or 1) * self.runner.world_size

    def _sampler_seed(self) -> int | None:
        seed = getattr(self._keys.sampler, 'seed', None)
        return seed if isinstance(seed, int) else None


def _problem_of_all(own: BaseException | None) -> BaseException:
    """Return what ends this process: its own problem, or what another one ended with."""
    told = dist.all_gather_object(str(own) if isinstance(own, StorageError) else None)
    lost = [text for text in told if text]
    return own or (StorageError(lost[0]) if lost else StopRequested())


@HOOKS.register_module()
class LoopStateHook(Hook):
    """Write into each checkpoint where in the epoch it was, and read it when a run goes on.

    With it go the gradients that are accumulated for a step that is not done.
    """

    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add ``meta['position']``, and ``gradients`` where a step is begun."""
        loop, meta = runner._train_loop, checkpoint['meta']
        if isinstance(loop, ResumableEpochLoop):
            meta['position'] = loop.position_at(meta['epoch'], meta['iter'])
        gradients = getattr(runner, 'pending_gradients', None)
        if gradients and 'optimizer' in checkpoint:
            checkpoint['gradients'] = gradients

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take the position up, when it is to be resumed and not only started from."""
        if not getattr(runner, '_resume', False):
            return
        if isinstance(runner._train_loop, ResumableEpochLoop):
            runner._train_loop.go_on_from(checkpoint['meta'])
        if 'ema_state_dict' in checkpoint and not any(isinstance(h, EMAHook) for h in runner.hooks):
            runner.logger.warning(
                'The checkpoint has averaged weights (EMA), and the config has no EMAHook: the '
                'training goes on from the average. Add the hook to custom_hooks to go on from the '
                'weights that were trained.'
            )
        model = getattr(runner.model, 'module', runner.model)
        for name, parameter in model.named_parameters():
            gradient = checkpoint.get('gradients', {}).get(name)
            if gradient is not None:
                parameter.grad = shard_like(parameter, gradient).to(parameter.device)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """The result is there, and is saved with what CheckpointHook saves next."""
        if isinstance(runner._train_loop, ResumableEpochLoop):
            runner._train_loop.owes_validation = False


def fingerprint(dataset: Any) -> int | None:
    """Return a checksum of the annotation files of a data set, or ``None`` where it has none."""
    datasets, checksum = [dataset], None
    while datasets:
        one = datasets.pop()
        datasets += [getattr(one, 'dataset', None), *getattr(one, 'datasets', ())]
        path = getattr(one, 'ann_file', None)
        if isinstance(path, str) and path and Path(path).is_file():
            checksum = zlib.crc32(Path(path).read_bytes(), checksum or 0)
        datasets = [part for part in datasets if part is not None]
    return checksum


def seed_all(*words: int) -> None:
    """Seed the generators of Python, NumPy and torch, each differently for each row of words."""
    python, numpy, one, two = np.random.SeedSequence(words).generate_state(4).tolist()
    random.seed(python)
    np.random.seed(numpy)  # noqa: NPY002 (what MMAction2's transforms draw from)
    if get_worker_info() is None and torch.accelerator.is_available():
        torch.manual_seed(one << 32 | two)
    else:  # a fifth of a millisecond sooner
        torch.default_generator.manual_seed(one << 32 | two)


class _Keys(Sampler):
    """The batches of an epoch, as keys that carry the seed of each sample, from some batch on."""

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler
        self.sampler = getattr(batch_sampler, 'sampler', None)
        self.given: deque[list[int]] = deque()  # read ahead of the training, batch by batch
        self.start(0, 0, 0)

    def start(self, seed: int, epoch: int, done: int) -> None:
        self.seed, self.epoch, self.done = seed, epoch, done
        self.given.clear()

    def __len__(self) -> int:
        return len(self.batch_sampler) - self.done

    def __iter__(self) -> Iterator[list[Key]]:
        seen: Counter[int] = Counter()  # a sampler may give an index twice, to be cut twice
        for number, batch in enumerate(self.batch_sampler):
            keys: list[Key] = []
            for index in batch:
                keys.append((index, (self.seed, SAMPLE, self.epoch, index, seen[index])))
                seen[index] += 1
            if number >= self.done:
                self.given.append(list(batch))
                yield keys


class _Seeded(Dataset):
    """A data set that seeds the generators for each sample, by the sample's key."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        index, words = key
        seed_all(*words)
        return self.dataset[index]

    def __getitems__(self, keys: list[Key]) -> list[Any]:
        read_ahead = getattr(self.dataset, 'read_ahead', None)
        if read_ahead is not None:
            read_ahead([index for index, _ in keys])
        return [self[key] for key in keys]


def _reader_like(loader: DataLoader, keys: _Keys) -> DataLoader:
    """Build a data loader with the settings of another, over keys instead of indices."""
    return loader_like(loader, _Seeded(loader.dataset), keys)
