"""Skip optimizer steps whose loss or gradients are NaN or Inf; stop after ``max_in_row`` of them.

One NaN in a gradient makes every weight NaN, and MMEngine trains on to the last epoch, saving that
as the best model.
"""

from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch import Tensor

from mmtimesformer.engine.checkpointing.good_checkpoints import are_finite_here, size_of_weights
from mmtimesformer.engine.distributed.collectives import all_ranks, any_rank
from mmtimesformer.registry import HOOKS

MOST = 0.5  # share of skipped steps from which on a training has failed
SCALER_SKIPS = 3  # in a row, with finite losses: float16's loss scaler looks for its scale


RECENT = 50  # steps with which the loss of a step is compared
UNUSUAL = 10  # times as large as these, from which on a step speaks for no checkpoint
SEVERAL = 5  # of them in a row are worth a warning
LOSS = 'the loss is not a finite number'


class NonFiniteStepsError(ValueError):
    """The training has diverged: losses, gradients or weights are not finite."""


@HOOKS.register_module()
class NonFiniteStepHook(Hook):
    """Take no optimiser step where the loss or a gradient is NaN or infinite.

    Weights, their moving average and the optimiser's state stay what they were; learning rates go
    on. The videos of the step are in the log. All processes of a run leave the same steps out: the
    gradients they average carry a NaN to everyone. float16's loss scaler leaves out steps of its
    own while it finds its scale; they count too.

    While steps are skipped no checkpoint is saved, see
    :class:`~mmtimesformer.engine.checkpointing.checkpoint_hook.AtomicCheckpointHook`. A training
    whose last steps were skipped, or more than half of all its steps, ends with an error.

    Args:
        max_in_row: Steps left out in a row after which the run ends with an error.

    Attributes:
        is_skipping: Whether the last step was skipped, and not by float16's loss scaler alone.
        took_step: Whether the last batch ended a step that was taken.
        took_sound_step: Whether it did, and with a loss like those before it.
        bad_scores: Whether the last validation gave scores that are not finite.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, max_in_row: int = 20) -> None:
        if max_in_row < 1:
            raise ValueError(f'max_in_row={max_in_row} is not a positive number of steps')
        self.max_in_row = max_in_row
        self.taken: bool | None = None  # of the step at hand: taken, left out, or not come to
        self.batches: list[tuple[bool, list[str]]] = []  # of the step: is its loss a number; videos
        self.is_skipping = self.took_step = self.took_sound_step = self.bad_scores = False
        self.unusual_in_row = 0
        self.losses: deque[float] = deque(maxlen=RECENT)  # of steps that were taken
        self.what = LOSS  # of the last step that was skipped
        self.size_at_start = 0.0

    def before_train(self, runner: Any) -> None:
        """Look at gradients before each optimiser step, and mark those of a loss that is none."""
        hub = runner.message_hub
        self.is_skipping = hub.get_info('left_out_in_row', 0) > 0
        if hub.get_info('steps_in_all') is None:
            batches = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
            hub.update_info('steps_in_all', runner.iter // batches)
        self.size_at_start = size_of_weights(runner)
        for wrapper in _wrappers(runner.optim_wrapper):
            if hasattr(wrapper.optimizer, 'register_step_pre_hook'):  # as all of torch's have
                wrapper.optimizer.register_step_pre_hook(self._look)
                wrapper.backward = _marking(wrapper.backward)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Say what was left out, and end the run where that has become the rule.

        Raises:
            NonFiniteStepsError: ``max_in_row`` steps in a row were left out.
        """
        loss = (outputs or {}).get('loss')
        is_number = loss is None or bool(torch.as_tensor(loss).isfinite().all())
        self.batches.append((is_number, _names(runner)))
        self.took_step = self.took_sound_step = False
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and not wrapper.should_update():
            return  # more batches belong to this step
        left_out = self.taken is False or (self.taken is None and hasattr(wrapper, 'loss_scaler'))
        batches, self.batches, self.taken = self.batches, [], None
        hub = runner.message_hub
        hub.update_info('steps_in_all', hub.get_info('steps_in_all', 0) + 1)
        if not left_out:
            if hub.get_info('left_out_in_row'):
                hub.update_info('left_out_in_row', 0)
            self.is_skipping, self.took_step = False, True
            self.took_sound_step = loss is None or self._is_usual(
                float(torch.as_tensor(loss).detach().mean()), runner
            )
            return
        in_row = hub.get_info('left_out_in_row', 0) + 1
        total = hub.get_info('left_out', 0) + 1
        hub.update_info_dict({'left_out_in_row': in_row, 'left_out': total})
        what, videos = _blame(batches)
        of_scaler = hasattr(wrapper, 'loss_scaler') and what != LOSS and in_row <= SCALER_SKIPS
        self.is_skipping, self.what = not of_scaler, what
        where = f'epoch {runner.epoch + 1}, step {runner.iter + 1}'
        runner.logger.warning(
            f'{where} is left out: {what} ({in_row} in a row, {total} in all). Its videos: {videos}'
        )
        if in_row >= self.max_in_row:
            raise NonFiniteStepsError(
                f'{what} for {in_row} steps in a row, the last one {where}; nothing was saved '
                f'meanwhile. {self.remedy(runner)}'
            )

    def _is_usual(self, loss: float, runner: Any) -> bool:
        """Whether a loss is of the size of those before it, in this process.

        Several in a row that are not are worth a warning.
        """
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
        """Whether what would be saved now may be ruined; all processes must call it."""
        return any_rank(self.is_skipping or not all(is_number for is_number, _ in self.batches))

    def before_val_epoch(self, runner: Any) -> None:
        """Forget the scores of the validation before."""
        self.bad_scores = False

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Notice scores that are not finite: such a validation has no best checkpoint."""
        self.bad_scores = self.bad_scores or not _are_finite_scores(outputs)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Let all processes know what one of them saw."""
        self.bad_scores = any_rank(self.bad_scores)

    def after_train(self, runner: Any) -> None:
        """End with an error where the training has not come to a good end.

        Raises:
            NonFiniteStepsError: Its last steps were skipped, or more than half of all.
        """
        hub = runner.message_hub
        total, steps = hub.get_info('left_out', 0), hub.get_info('steps_in_all', 0)
        if self.is_skipping:
            for hook in runner.hooks:
                if hasattr(hook, 'save_aside'):
                    hook.save_aside(runner, {'epoch': runner.epoch, 'iter': runner.iter})
            raise NonFiniteStepsError(
                f'the training is over, but {self.what} in its last '
                f'{hub.get_info("left_out_in_row")} steps (of {steps}, {total} were skipped), so '
                f'its end is not saved as a checkpoint to use. {self.remedy(runner)}'
            )
        if total > MOST * steps:
            raise NonFiniteStepsError(
                f'the training is over, but {total} of its {steps} steps were skipped, for losses '
                f'or gradients were not finite; do not trust its result. {self.remedy(runner)}'
            )

    def remedy(self, runner: Any) -> str:
        """Say what to do now, and let ``last_checkpoint`` name the last good one.

        All processes must call it.
        """
        hooks = [hook for hook in runner.hooks if hasattr(hook, 'fall_back')]
        good, later = hooks[0].fall_back(runner) if hooks else (None, [])
        wrapper = runner.optim_wrapper
        one = isinstance(wrapper, OptimWrapper)
        lower = 'optim_wrapper.optimizer.lr'
        if one and 'lr' in wrapper.optimizer.defaults:
            lower += f'={float(wrapper.optimizer.defaults["lr"]) / 10:g}'
        further = (
            ('' if not one or wrapper.clip_grad_kwargs else ', set optim_wrapper.clip_grad')
            + (', train with --amp bf16' if hasattr(wrapper, 'loss_scaler') else '')
            + ', or look at the videos of skipped steps, which are in the log'
        )
        newer = f'; {", ".join(later)}: newer, but no finite step followed' if later else ''
        if good is not None:
            return (
                f'The last good checkpoint is {good}{newer}. Go on from it with a lower learning '
                f'rate, --resume {good} --cfg-options {lower}{further}'
            )
        return (
            f'No checkpoint is known to be good{newer}. Start again without --resume and with a '
            f'lower learning rate, --cfg-options {lower}{further}'
        )

    def _look(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        """Let a step see no gradient where one of them is no number; then it changes nothing."""
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
    """Whether all numbers of all tensors are finite; of sharded ones, in all processes."""
    sharded = any(hasattr(gradient, 'to_local') for gradient in gradients)
    finite = are_finite_here(gradients)
    return all_ranks(finite) if sharded else finite


def _marking(backward: Callable[..., None]) -> Callable[..., None]:
    """Let the gradients of an infinite loss be NaN, which also tells the other processes.

    A finite loss is multiplied by one, which changes no bit.
    """

    def marking_backward(loss: Tensor, **kwargs: Any) -> None:
        mark = torch.where(loss.detach().isfinite(), 1.0, torch.nan).to(loss.dtype)
        backward(loss * mark, **kwargs)

    return marking_backward


def _wrappers(wrapper: Any) -> list[Any]:
    return [wrapper] if isinstance(wrapper, OptimWrapper) else list(wrapper.values())


def _names(runner: Any) -> list[str]:
    """Name the videos of the batch at hand, as far as loop and data set tell."""
    dataset = runner.train_dataloader.dataset
    names = []
    for index in getattr(runner.train_loop, 'indices', ()):
        info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
        name = info.get('filename') or info.get('frame_dir') or f'sample {index}'
        names.append(str(name))
    return names


def _blame(batches: list[tuple[bool, list[str]]]) -> tuple[str, str]:
    """Say what was no number, and in which videos, of all processes."""
    told: list[tuple[bool, list[str]]] = []
    for of_one in dist.all_gather_object(batches):
        told += of_one
    losses = [names for is_number, names in told if not is_number]
    what = LOSS if losses else 'a gradient is not a finite number'
    videos = [name for names in losses or [names for _, names in told] for name in names]
    return what, ', '.join(videos) or 'not known'


def _are_finite_scores(outputs: Any) -> bool:
    """Whether what a model predicted for a batch has no NaN and no Inf in it."""
    for sample in outputs if isinstance(outputs, list | tuple) else ():
        fields = dict(sample.all_items()) if hasattr(sample, 'all_items') else {}
        if fields.get('non_finite'):  # by NonFiniteScoresHook, which replaced the scores
            return False
        for name in ('pred_score', 'pred_scores'):
            scores = fields.get(name)
            if scores is not None and not isinstance(scores, Tensor):
                scores = getattr(scores, 'item', None)
            if isinstance(scores, Tensor) and not bool(scores.isfinite().all()):
                return False
    return True
