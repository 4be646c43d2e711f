"""Warn if a moving average of the weights (EMA) is too slow for a short training."""

import math

from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage

MAX_REST = 0.05  # fraction of the final average that may be the initial weights


def note_on_average(hook: EMAHook, steps: int, steps_per_epoch: int) -> str | None:
    """Return a warning if the final average has too much of the initial weights, or ``None``.

    An average with ``momentum`` covers about ``1 / momentum`` steps: after ``n`` steps, a fraction
    of ``(1 - momentum) ** n`` is the initial weights. ``steps`` are the batches of the whole
    training.
    """
    average = hook.ema_model
    if type(average) is not ExponentialMovingAverage:
        return None  # MMEngine's other averages warm up
    begin = hook.begin_iter or max(hook.begin_epoch - 1, 0) * steps_per_epoch
    updates = max(steps - begin, 0) // average.interval
    momentum = float(average.momentum)
    rest = (1 - momentum) ** updates
    if rest <= MAX_REST:
        return None
    least = math.log(MAX_REST) / math.log1p(-momentum)
    return (
        f'EMAHook: momentum={momentum:g} averages over about {1 / momentum:.0f} steps, and this '
        f'training has {updates}: {100 * rest:.0f} % of the final average are the initial weights '
        f'({100 * MAX_REST:.0f} % after {least:.0f} steps). Validations and checkpoints use that '
        "average. Set ema_type='MomentumAnnealingEMA' and gamma=10 of the hook in custom_hooks, an "
        'average that warms up, or a larger momentum.'
    )
