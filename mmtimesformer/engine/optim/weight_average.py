"""Warn about a moving average of the weights (EMA) that is too slow for a short training."""

import math
from typing import Any

from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage

MOST = 0.05  # of the average at the end, that may still be the weights at the start


def note_on_average(hook: EMAHook, steps: int, steps_per_epoch: int) -> str | None:
    """Return a sentence about an average that would still be the start, or ``None``.

    An average with ``momentum`` remembers about ``1 / momentum`` steps: after ``n`` steps a share
    of ``(1 - momentum) ** n`` of it is still what it began with.

    Args:
        hook: The hook, whose average is built.
        steps: Steps (batches) of the whole training.
        steps_per_epoch: Steps of an epoch.
    """
    average: Any = hook.ema_model
    if type(average) is not ExponentialMovingAverage:
        return None  # the others of MMEngine warm up
    begin = hook.begin_iter or max(hook.begin_epoch - 1, 0) * steps_per_epoch
    updates = max(steps - begin, 0) // average.interval
    momentum = float(average.momentum)
    rest = (1 - momentum) ** updates
    if rest <= MOST:
        return None
    least = math.log(MOST) / math.log1p(-momentum)
    return (
        f'EMAHook: momentum={momentum:g} averages over about {1 / momentum:.0f} steps, and this '
        f'training has {updates}, after which {100 * rest:.0f} % of the average is still the start '
        f'(of which {100 * MOST:.0f} % are left after {least:.0f} steps). Validations and '
        "checkpoints show that average. Set ema_type='MomentumAnnealingEMA' and gamma=10 of the "
        'hook in custom_hooks, an average that warms up, or a larger momentum.'
    )
