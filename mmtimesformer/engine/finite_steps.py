"""A step that is no number is left out, named, and counted; too many in a row end the run.

One NaN in a gradient makes every weight NaN, and MMEngine trains on to the last epoch, saving that
as the best model.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch import Tensor

from mmtimesformer.engine.agreement import everywhere
from mmtimesformer.registry import HOOKS


class NotFiniteError(ValueError):
    """The loss or its gradient was no finite number too often in a row."""


@HOOKS.register_module()
class SkipNonFiniteSteps(Hook):
    """Take no optimiser step where the loss or a gradient is NaN or infinite.

    Weights, their moving average and the optimiser's state stay what they were; learning rates go
    on. The videos of the step are in the log. All processes of a run leave the same steps out: the
    gradients they average carry a NaN to everyone. float16's loss scaler leaves out steps of its
    own while it finds its scale; they count too.

    Args:
        max_in_row: Steps left out in a row after which the run ends with an error.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, max_in_row: int = 20) -> None:
        if max_in_row < 1:
            raise ValueError(f'max_in_row={max_in_row} is not a positive number of steps')
        self.max_in_row = max_in_row
        self.taken: bool | None = None  # of the step at hand: taken, left out, or not come to
        self.batches: list[tuple[bool, list[str]]] = []  # of the step: is its loss a number; videos

    def before_train(self, runner: Any) -> None:
        """Look at gradients before each optimiser step, and mark those of a loss that is none."""
        for wrapper in _wrappers(runner.optim_wrapper):
            if hasattr(wrapper.optimizer, 'register_step_pre_hook'):  # as all of torch's have
                wrapper.optimizer.register_step_pre_hook(self._look)
                wrapper.backward = _marking(wrapper.backward)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Say what was left out, and end the run where that has become the rule.

        Raises:
            NotFiniteError: ``max_in_row`` steps in a row were left out.
        """
        loss = (outputs or {}).get('loss')
        is_number = loss is None or bool(torch.as_tensor(loss).isfinite().all())
        self.batches.append((is_number, _names(runner)))
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and not wrapper.should_update():
            return  # more batches belong to this step
        left_out = self.taken is False or (self.taken is None and hasattr(wrapper, 'loss_scaler'))
        batches, self.batches, self.taken = self.batches, [], None
        hub = runner.message_hub
        if not left_out:
            if hub.get_info('left_out_in_row'):
                hub.update_info('left_out_in_row', 0)
            return
        in_row = hub.get_info('left_out_in_row', 0) + 1
        total = hub.get_info('left_out', 0) + 1
        hub.update_info_dict({'left_out_in_row': in_row, 'left_out': total})
        what, videos = _blame(batches)
        where = f'epoch {runner.epoch + 1}, step {runner.iter + 1}'
        runner.logger.warning(
            f'{where} is left out: {what} ({in_row} in a row, {total} in all). Its videos: {videos}'
        )
        if in_row >= self.max_in_row:
            half = hasattr(wrapper, 'loss_scaler')
            raise NotFiniteError(
                f'{what} for {in_row} steps in a row, the last one {where}; their videos are in '
                'the log. Set optim_wrapper.optimizer.lr lower'
                + ('' if wrapper.clip_grad_kwargs else ', set optim_wrapper.clip_grad')
                + (', train with --amp bf16' if half else '')
                + ', or look at these videos; the last checkpoint is good'
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
    local = [g.to_local() if hasattr(g, 'to_local') else g for g in gradients]
    dense = [g.coalesce().values() if g.is_sparse else g for g in local]
    norms = torch._foreach_norm([g for g in dense if g.numel()]) if dense else []
    finite = all(bool(torch.stack(part).isfinite().all()) for part in _by_device(norms))
    return everywhere(finite) if sharded else finite


def _by_device(norms: Any) -> Iterator[list[Tensor]]:
    for device in {norm.device for norm in norms}:
        yield [norm.float() for norm in norms if norm.device == device]


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
    what = 'the loss is not a finite number' if losses else 'a gradient is not a finite number'
    videos = [name for names in losses or [names for _, names in told] for name in names]
    return what, ', '.join(videos) or 'not known'
