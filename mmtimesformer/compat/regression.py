"""Errors of predicted numbers: mean absolute error and R², for metrics and for reports."""

import math

from torch import Tensor


def regression_errors(true: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean absolute error and R² of each target; R² is NaN where ``true`` is constant.

    Shape:
        - true, predicted: ``videos targets``, of float64
        - errors: ``targets``
    """
    errors = predicted - true
    spread = (true - true.mean(0)).square().sum(0)
    r2 = 1 - errors.square().sum(0) / spread
    return errors.abs().mean(0), r2.where(spread > 0, math.nan)
