"""Skip optimizer steps whose loss or gradients are NaN or Inf; stop after ``max_in_row`` of them.

One NaN in a gradient makes every weight NaN, and MMEngine trains on to the last epoch, saving that
as the best model.
"""

from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmtimesformer.engine.checkpointing.good_checkpoints import are_finite_here, size_of_weights
from mmtimesformer.engine.distributed.collectives import all_ranks, any_rank
from mmtimesformer.registry import HOOKS

MAX_FRACTION = 0.5  # a training with more skipped steps than this has failed
SCALER_SKIPS = 3  # in a row, with finite losses: float16's loss scaler adjusts its scale
RECENT = 50  # steps with which the loss of a step is compared
UNUSUAL = 10  # times their median, from which on a step does not confirm a checkpoint
SEVERAL = 5  # of them in a row cause a warning
LOSS, GRADIENT = 'the loss is NaN or infinite', 'a gradient is NaN or infinite'
# Keys of the message hub, which is in checkpoints
SKIPPED, SKIPPED_IN_ROW, STEPS = 'left_out', 'left_out_in_row', 'steps_in_all'
Losses = Mapping[str, Tensor] | None


class NonFiniteStepsError(ValueError):
    """The training has diverged: losses, gradients or weights are NaN or infinite."""


class _Batch(NamedTuple):
    has_finite_loss: bool
    videos: list[str]


@runtime_checkable
class _Fallback(Protocol):  # AtomicCheckpointHook, which imports this module
    def fall_back(self, runner: Runner) -> tuple[str | None, list[str]]: ...
    def save_aside(self, runner: Runner, meta: dict[str, int]) -> str | None: ...


@runtime_checkable
class _HasIndices(Protocol):  # ResumableEpochLoop, which imports this module
    indices: list[int]


@HOOKS.register_module()
class NonFiniteStepHook(Hook):
    """Skip optimizer steps whose loss or gradients are NaN or infinite.

    Weights, their moving average and the optimizer's state do not change in a skipped step;
    schedulers continue. The log names the videos of the step. All ranks skip the same steps, since
    averaged gradients carry a NaN to every rank. Steps that float16's loss scaler skips while it
    adjusts its scale are counted too.

    While steps are skipped no checkpoint is saved, see
    :class:`~mmtimesformer.engine.checkpointing.checkpoint_hook.AtomicCheckpointHook`. A training
    whose last steps were skipped, or more than half of all its steps, ends with an error.

    Args:
        max_in_row: Skipped steps in a row after which the run ends with an error.

    Attributes:
        is_skipping: Whether the last step was skipped, not by float16's loss scaler alone.
        took_step: Whether the last batch completed an optimizer step.
        took_sound_step: Whether it did, with a loss of the usual size.
        bad_scores: Whether the last validation had NaN or infinite scores.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, max_in_row: int = 20) -> None:
        if max_in_row < 1:
            raise ValueError(f'max_in_row={max_in_row} is not a positive number of steps')
        self.max_in_row = max_in_row
        self.taken: bool | None = None  # the current step; None before its end
        self.batches: list[_Batch] = []  # of the current step
        self.is_skipping = self.took_step = self.took_sound_step = self.bad_scores = False
        self.unusual_in_row = 0
        self.losses: deque[float] = deque(maxlen=RECENT)  # of steps that were not skipped
        self.reason = LOSS  # of the last skipped step
        self.size_at_start = 0.0

    def before_train(self, runner: Runner) -> None:
        """Check gradients before each optimizer step, and mark those of a non-finite loss."""
        hub = runner.message_hub
        self.is_skipping = hub.get_info(SKIPPED_IN_ROW, 0) > 0
        wrapper = runner.optim_wrapper
        if hub.get_info(STEPS) is None:
            batches = wrapper._accumulative_counts if isinstance(wrapper, OptimWrapper) else 1
            hub.update_info(STEPS, runner.iter // batches)
        self.size_at_start = size_of_weights(runner)
        for one in [wrapper] if isinstance(wrapper, OptimWrapper) else list(wrapper.values()):
            if hasattr(one.optimizer, 'register_step_pre_hook'):  # all of torch have it
                one.optimizer.register_step_pre_hook(self._check_gradients)
                one.backward = _marking(one.backward)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Losses = None
    ) -> None:
        """Count and log a skipped step.

        Raises:
            NonFiniteStepsError: ``max_in_row`` steps in a row were skipped.
        """
        loss = (outputs or {}).get('loss')
        is_finite = loss is None or bool(torch.as_tensor(loss).isfinite().all())
        self.batches.append(_Batch(is_finite, _videos_of_batch(runner)))
        self.took_step = self.took_sound_step = False
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and not wrapper.should_update():
            return  # more batches belong to this step
        has_scaler = isinstance(wrapper, AmpOptimWrapper)
        skipped = self.taken is False or (self.taken is None and has_scaler)
        batches, self.batches, self.taken = self.batches, [], None
        hub = runner.message_hub
        hub.update_info(STEPS, hub.get_info(STEPS, 0) + 1)
        if skipped:
            self._skip(runner, batches, has_scaler)
            return
        if hub.get_info(SKIPPED_IN_ROW):
            hub.update_info(SKIPPED_IN_ROW, 0)
        self.is_skipping, self.took_step = False, True
        self.took_sound_step = loss is None or self._is_usual(
            float(torch.as_tensor(loss).detach().mean()), runner
        )

    def _skip(self, runner: Runner, batches: list[_Batch], has_scaler: bool) -> None:
        hub = runner.message_hub
        in_row = hub.get_info(SKIPPED_IN_ROW, 0) + 1
        total = hub.get_info(SKIPPED, 0) + 1
        hub.update_info_dict({SKIPPED_IN_ROW: in_row, SKIPPED: total})
        self.reason, videos = _reason(batches)
        by_scaler = has_scaler and self.reason != LOSS and in_row <= SCALER_SKIPS
        self.is_skipping = not by_scaler
        where = f'epoch {runner.epoch + 1}, step {runner.iter + 1}'
        runner.logger.warning(
            f'{where} is skipped: {self.reason} ({in_row} in a row, {total} in total). Its videos: '
            f'{videos}'
        )
        if in_row >= self.max_in_row:
            raise NonFiniteStepsError(
                f'{self.reason} for {in_row} steps in a row, the last one {where}; nothing was '
                f'saved meanwhile. {self.remedy(runner)}'
            )

    def _is_usual(self, loss: float, runner: Runner) -> bool:
        """Whether a loss is of the size of those before it on this rank; warn of several others."""
        usual = median(self.losses) if len(self.losses) >= RECENT // 5 else None
        self.losses.append(loss)
        if usual is None or abs(loss) <= UNUSUAL * abs(usual):
            self.unusual_in_row = 0
            return True
        self.unusual_in_row += 1
        if self.unusual_in_row == SEVERAL:
            runner.logger.warning(
                f'epoch {runner.epoch + 1}, step {runner.iter + 1}: the loss, {loss:g}, was more '
                f'than {UNUSUAL} times as large as usual ({usual:g}) for {SEVERAL} steps in a row. '
                'The training may be diverging.'
            )
        return False

    def is_unsafe(self) -> bool:
        """Whether the current state may be ruined; all ranks must call it."""
        return any_rank(self.is_skipping or not all(one.has_finite_loss for one in self.batches))

    def before_val_epoch(self, runner: Runner) -> None:
        self.bad_scores = False

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Note NaN or infinite scores: such a validation has no best checkpoint."""
        self.bad_scores = self.bad_scores or not _are_finite_scores(outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.bad_scores = any_rank(self.bad_scores)

    def after_train(self, runner: Runner) -> None:
        """End with an error if the training failed.

        Raises:
            NonFiniteStepsError: Its last steps were skipped, or more than half of all.
        """
        hub = runner.message_hub
        total, steps = hub.get_info(SKIPPED, 0), hub.get_info(STEPS, 0)
        if self.is_skipping:
            for hook in runner.hooks:
                if isinstance(hook, _Fallback):
                    hook.save_aside(runner, {'epoch': runner.epoch, 'iter': runner.iter})
            raise NonFiniteStepsError(
                f'the training is over, but {self.reason} in its last '
                f'{hub.get_info(SKIPPED_IN_ROW)} steps (of {steps}, {total} were skipped), so its '
                f'last state is not saved as a regular checkpoint. {self.remedy(runner)}'
            )
        if total > MAX_FRACTION * steps:
            raise NonFiniteStepsError(
                f'the training is over, but {total} of its {steps} steps were skipped because '
                'losses or gradients were NaN or infinite; do not trust its result. '
                + self.remedy(runner)
            )

    def remedy(self, runner: Runner) -> str:
        """Return what to do now, and let ``last_checkpoint`` name the last good checkpoint.

        All ranks must call it.
        """
        hooks = [hook for hook in runner.hooks if isinstance(hook, _Fallback)]
        good, later = hooks[0].fall_back(runner) if hooks else (None, [])
        wrapper = runner.optim_wrapper
        single = isinstance(wrapper, OptimWrapper)
        lower = 'optim_wrapper.optimizer.lr'
        if single and 'lr' in wrapper.optimizer.defaults:
            lower += f'={float(wrapper.optimizer.defaults["lr"]) / 10:g}'
        further = (
            ('' if not single or wrapper.clip_grad_kwargs else ', set optim_wrapper.clip_grad')
            + (', train with --amp bf16' if isinstance(wrapper, AmpOptimWrapper) else '')
            + ', or check the videos of skipped steps, which are in the log'
        )
        newer = f'; {", ".join(later)}: newer, but no finite step followed' if later else ''
        if good is not None:
            return (
                f'The last good checkpoint is {good}{newer}. Resume from it with a lower learning '
                f'rate, --resume {good} --cfg-options {lower}{further}'
            )
        return (
            f'No checkpoint is known to be good{newer}. Start again without --resume and with a '
            f'lower learning rate, --cfg-options {lower}{further}'
        )

    def _check_gradients(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        """Remove all gradients if one is NaN or infinite, so that the step changes nothing."""
        parameters = [
            parameter
            for group in optimizer.param_groups
            for parameter in group['params']
            if parameter.grad is not None
        ]
        finite = are_finite([parameter.grad for parameter in parameters])
        self.taken = finite and self.taken is not False
        if not finite:
            for parameter in parameters:
                parameter.grad = None


def are_finite(gradients: list[Tensor]) -> bool:
    """Whether all numbers of all tensors are finite; of sharded ones, on all ranks."""
    sharded = any(hasattr(gradient, 'to_local') for gradient in gradients)
    finite = are_finite_here(gradients)
    return all_ranks(finite) if sharded else finite


def _marking(backward: Callable[..., None]) -> Callable[..., None]:
    """Make all gradients of a non-finite loss NaN, which reaches the other ranks too.

    A finite loss is multiplied by one, which changes no bit.
    """

    def marking_backward(loss: Tensor, **kwargs: Any) -> None:
        mark = torch.where(loss.detach().isfinite(), 1.0, torch.nan).to(loss.dtype)
        backward(loss * mark, **kwargs)

    return marking_backward


def _videos_of_batch(runner: Runner) -> list[str]:
    """Return the names of the videos in the current batch, or their indices."""
    dataset, loop, names = runner.train_dataloader.dataset, runner.train_loop, []
    for index in loop.indices if isinstance(loop, _HasIndices) else ():
        info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
        name = info.get('filename') or info.get('frame_dir') or f'sample {index}'
        names.append(str(name))
    return names


def _reason(batches: list[_Batch]) -> tuple[str, str]:
    """Return what was not finite, and in which videos of all ranks."""
    of_all_ranks: list[_Batch] = [one for rank in dist.all_gather_object(batches) for one in rank]
    bad = [batch for batch in of_all_ranks if not batch.has_finite_loss]
    videos = [name for batch in bad or of_all_ranks for name in batch.videos]
    return LOSS if bad else GRADIENT, ', '.join(videos) or 'not known'


def _are_finite_scores(outputs: object) -> bool:
    """Whether the predictions for a batch are all finite."""
    for sample in outputs if isinstance(outputs, list | tuple) else ():
        fields = dict(sample.all_items()) if hasattr(sample, 'all_items') else {}
        if fields.get('non_finite'):  # NonFiniteScoresHook has replaced the scores
            return False
        for name in ('pred_score', 'pred_scores'):
            scores = fields.get(name)
            if isinstance(scores, BaseDataElement):
                scores = scores.get('item')
            if isinstance(scores, Tensor) and not bool(scores.isfinite().all()):
                return False
    return True
