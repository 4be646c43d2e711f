"""Count NaN or infinite class scores in a validation or test as wrong, and end with an error.

A metric would accept them: the arg-max of NaN is class 0, so a model with broken weights scores
``1 / classes``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle

from mmtimesformer.compat.data_samples import SCORES, is_regression, mark_as_wrong, tensor_of
from mmtimesformer.config.speed import EXACT
from mmtimesformer.engine.distributed.collectives import smallest
from mmtimesformer.non_finite import EARLY, NonFiniteError, about_scores
from mmtimesformer.registry import HOOKS

Samples = Sequence[Any] | None


@HOOKS.register_module()
class NonFiniteScoresHook(Hook):
    """Count videos whose scores are NaN or infinite as wrong in every metric, and list them.

    The scores of such a video become those of a wrong prediction before the metrics, see
    :func:`~mmtimesformer.compat.data_samples.wrong_scores`, and its sample gets the reason as
    ``non_finite``, which a dump has too.

    - A test ends with an error that lists them, after its scores and its dump are written; at once
      if at least the first :data:`~mmtimesformer.non_finite.EARLY` videos have no finite scores.
    - A validation within a training logs a warning that lists them. A training ends with an error
      if no video of its last validation has finite scores.

    Attributes:
        videos: Names of such videos; of all ranks after the validation or test.
    """

    priority = 'BELOW_NORMAL'  # before EvalProtocolHook, which writes the names

    def __init__(self) -> None:
        self.videos: list[str] = []
        self.finite = 0  # videos with finite scores
        self.message = ''  # of the last test, or of a validation without finite scores
        self.outcome = ''  # of such videos
        self._is_test = False
        self._common = 0  # batches that every rank has
        self._decided = False  # whether the model is broken for all videos
        self._handle: RemovableHandle | None = None

    def before_val(self, runner: Runner) -> None:
        """Check the model's output before the metrics."""
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        self._remove()
        self._handle = model.register_forward_hook(self._check)

    before_test = before_val

    def before_val_epoch(self, runner: Runner) -> None:
        self.videos, self.finite, self.message, self._is_test = [], 0, '', False

    def before_test_epoch(self, runner: Runner) -> None:
        self.before_val_epoch(runner)
        self._is_test = True
        self._decided = False
        self._common = smallest(len(runner.test_loop.dataloader))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Samples = None
    ) -> None:
        """Note the videos of the batch whose scores are not finite."""
        self._count(runner.val_loop.dataloader, batch_idx, outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Samples = None
    ) -> None:
        """Note the videos of the batch whose scores are not finite.

        Raises:
            NonFiniteError: None of the first videos has finite scores.
        """
        self._count(runner.test_loop.dataloader, batch_idx, outputs)
        if self._decided or batch_idx >= self._common:
            return
        counts = all_gather_object((self.finite, self.videos))
        videos = [name for _, names in counts for name in names]
        self._decided = any(finite for finite, _ in counts)
        if not self._decided and len(videos) >= EARLY:
            self._remove()
            message = about_scores(videos, None, _speed(runner))
            raise NonFiniteError(
                f'{message}. The test ends: none of the first {len(videos)} videos has any'
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log which videos have no finite scores."""
        message = self._gather(runner, len(runner.val_loop.dataloader.dataset))
        if message:
            runner.logger.warning(f'{message[0].upper()}{message[1:]}. {self.outcome}.')
        self.message = '' if self.finite else message

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Collect the names of all ranks; :meth:`after_run` raises the error."""
        self.message = self._gather(runner, len(runner.test_loop.dataloader.dataset))

    def after_val(self, runner: Runner) -> None:
        self._remove()

    after_test = after_val

    def after_run(self, runner: Runner) -> None:
        """End with an error, after scores and dumps are written.

        Raises:
            NonFiniteError: Scores in a test, or all in the last validation, are not finite.
        """
        message, self.message = self.message, ''
        if message and self._is_test:
            raise NonFiniteError(f'{message}. {self.outcome} in the scores above')
        if message:
            raise NonFiniteError(
                f'in the last validation of this training {message}, and continue from it with a '
                'lower optim_wrapper.optimizer.lr'
            )

    def _check(self, model: nn.Module, inputs: object, samples: object) -> None:
        """Replace scores that are not finite by those of a wrong prediction."""
        if not isinstance(samples, list):
            return
        scores = [(sample, list(_scores(sample))) for sample in samples if not _failed(sample)]
        checks = [tensor.isfinite().all() for _, tensors in scores for tensor in tensors]
        if not checks or bool(torch.stack(checks).all()):  # waits once for the device
            return
        for sample, tensors in scores:
            if not all(bool(tensor.isfinite().all()) for tensor in tensors):
                mark_as_wrong(sample)

    def _count(self, dataloader: DataLoader, batch_idx: int, outputs: Samples) -> None:
        for i, sample in enumerate(outputs or ()):
            if not hasattr(sample, 'get'):
                continue
            numbers = is_regression(sample)
            self.outcome = 'They are left out' if numbers else 'They count as wrong'
            if sample.get('non_finite'):
                self.videos.append(_name(sample, dataloader, batch_idx, i))
            elif not sample.get('failed'):  # not an unreadable video
                self.finite += 1

    def _gather(self, runner: Runner, total: int) -> str:
        counts = all_gather_object((self.finite, self.videos))
        self.finite = sum(finite for finite, _ in counts)
        # A sampler gives some videos twice, so that all ranks have equally many
        self.videos = list(dict.fromkeys(name for _, names in counts for name in names))
        return about_scores(self.videos, total, _speed(runner)) if self.videos else ''

    def _remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None


def _failed(sample: Any) -> bool:
    """Whether a video could not be read, which has been noted already."""
    return bool(hasattr(sample, 'get') and sample.get('failed'))


def _scores(sample: Any) -> Iterator[Tensor]:
    for name in SCORES if hasattr(sample, 'get') else ():
        value = tensor_of(sample.get(name))
        if isinstance(value, Tensor):
            yield value


def _name(sample: Any, dataloader: DataLoader, batch_idx: int, i: int) -> str:
    """Return the file of a video, or its index in the data set."""
    for key in ('filename', 'frame_dir'):
        if sample.get(key):
            return str(sample.get(key))
    sampler = getattr(dataloader, 'sampler', None)
    number = batch_idx * (getattr(dataloader, 'batch_size', None) or 1) + i
    size, rank = getattr(sampler, 'world_size', 1), getattr(sampler, 'rank', 0)
    return f'video {number * size + rank} of the list'


def _speed(runner: Runner) -> str:
    if not getattr(runner._test_loop, 'fp16', False):
        return str(runner.cfg.get('speed') or EXACT)
    return str(torch.get_autocast_dtype(get_device())).removeprefix('torch.')
