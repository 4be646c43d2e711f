"""Learning rate schedule: a linear warm-up, then a cosine over the whole training."""

import math
from typing import Any

from mmengine.optim import CosineAnnealingLR, OptimWrapper
from torch.optim import Optimizer

from mmtimesformer.compat.upstream import overrides
from mmtimesformer.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(CosineAnnealingLR):
    """Warm up linearly to the cosine of the whole training, then follow that cosine to zero.

    Step ``s`` of ``end - begin`` has the rate ``base * (cos(pi * s / (end - begin)) + 1) / 2``.
    Before ``warmup`` it is on the line from ``base * start_factor`` at step 0 to the cosine at step
    ``warmup``, which is below ``base``, as in PaddleVideo and SlowFast.

    MMEngine's ``LinearLR`` followed by ``CosineAnnealingLR`` differs: its cosine starts at ``base``
    after the warm-up, up to a quarter above this one.

    Args:
        optimizer: The optimizer or its wrapper.
        warmup: Length of the warm-up, in steps (in epochs with ``convert_to_iter_based=True``).
        start_factor: Rate of the first step, as a fraction of the base rate.
        begin: First step of the schedule.
        end: Step at which the rate is zero.
        last_step: Index of the last step, -1 at the start.
        by_epoch: Whether a step is an epoch, else an iteration.
        verbose: Print every rate.

    Raises:
        ValueError: ``start_factor`` or ``warmup`` is out of range.

    Example:
        >>> param_scheduler = [dict(
        ...     type='mmtimesformer.WarmupCosineLR', warmup=2, start_factor=0.1,
        ...     begin=0, end=20, convert_to_iter_based=True)]
    """

    def __init__(
        self,
        optimizer: Optimizer | OptimWrapper,
        warmup: float,
        start_factor: float,
        begin: int = 0,
        *,
        end: int,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(
                f'start_factor={start_factor!r} is not above 0 and at most 1; set '
                'param_scheduler.start_factor, such as 0.1'
            )
        if not 0 <= warmup < end - begin:
            raise ValueError(
                f'warmup={warmup!r} is not from 0 to below the length of the schedule, '
                f'{end - begin}; set param_scheduler.warmup'
            )
        self.warmup = warmup
        self.start_factor = start_factor
        super().__init__(
            optimizer,
            begin=begin,
            end=end,
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )

    @classmethod
    def build_iter_from_epoch(
        cls,
        optimizer: Optimizer | OptimWrapper,
        warmup: float,
        end: int,
        begin: int = 0,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> 'WarmupCosineLR':
        """Build the schedule in iterations from one in epochs of ``epoch_length`` iterations.

        Raises:
            ValueError: ``by_epoch`` is False, or there is no iteration in an epoch.
        """
        if not by_epoch or not epoch_length or epoch_length < 1:
            raise ValueError(
                f'by_epoch={by_epoch} with an epoch_length of {epoch_length} iterations cannot be '
                'converted to iterations; remove param_scheduler.convert_to_iter_based'
            )
        return cls(
            optimizer,
            warmup=warmup * epoch_length,
            begin=begin * epoch_length,
            end=end * epoch_length,
            by_epoch=False,
            **kwargs,
        )

    @overrides(CosineAnnealingLR)
    def _get_value(self) -> list[float]:
        """Return the rate of each parameter group, as a multiple of its current one.

        As in MMEngine's schedulers, so that a rate that was changed elsewhere stays changed.
        """
        ratio = self._factor(self.last_step)
        if self.last_step > 0:
            ratio /= self._factor(self.last_step - 1)
        return [group[self.param_name] * ratio for group in self.optimizer.param_groups]

    def _factor(self, step: float) -> float:
        """Return the rate of a step as a fraction of the base rate."""
        if step >= self.warmup:
            return (math.cos(math.pi * step / self.T_max) + 1) / 2
        joint = self._factor(self.warmup)
        return self.start_factor + (joint - self.start_factor) * step / self.warmup
