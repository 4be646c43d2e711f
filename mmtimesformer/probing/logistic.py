"""Logistic regression with many weights: the objective of scikit-learn, minimised by torch."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_STEPS = 1000
GRADIENT, CHANGE = 1e-6, 1e-12  # below which the search ends


def fit_logistic(
    x: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
    c: float,
    multi_label: bool,
    device: str | torch.device = 'cpu',
) -> tuple[np.ndarray, np.ndarray]:
    """Fit all classes at once by L-BFGS, in float64.

    It minimises what ``sklearn.linear_model.LogisticRegression`` minimises: ``c`` times the
    weighted cross-entropy, plus half the squared norm of the weights without the bias. Several
    labels are one such problem for each class. NOTE: with 1,500 samples, 768 features and 200
    classes the probabilities are within 1e-4 of scikit-learn's at ``tol=1e-7``; at its usual
    ``tol=1e-4``, where it stops after 5 to 11 steps, its own are up to 0.008 away.

    Args:
        x: Features.
        rows: Whether a sample has a label.
        weights: Of each label of a sample.
        c: The inverse of the regularisation strength.
        multi_label: Whether a sample may have several labels; else each has exactly one.
        device: Where it is computed.

    Returns:
        The weights ``classes d`` and the biases ``classes``.

    Shape:
        - x: ``samples d``
        - rows, weights: ``samples classes``
    """
    device = device if torch.device(device).type == 'cuda' else 'cpu'  # others lack float64
    features, labels, factors = (
        torch.from_numpy(np.asarray(array, dtype=np.float64)).to(device)
        for array in (x, rows, weights)
    )
    if not multi_label:
        factors = factors * labels
    weight = features.new_zeros(rows.shape[1], x.shape[1]).requires_grad_()
    bias = features.new_zeros(rows.shape[1]).requires_grad_()
    # Of two classes scikit-learn has one row, the difference of these two.
    penalty = 1.0 if rows.shape[1] == 2 and not multi_label else 0.5
    scale = 1 / (c * float(factors.sum()))
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MOST_STEPS,
        tolerance_grad=GRADIENT,
        tolerance_change=CHANGE,
        history_size=10,
        line_search_fn='strong_wolfe',
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = F.linear(features, weight, bias)
        loss = scale * (c * _loss(logits, labels, factors, multi_label))
        loss = loss + scale * penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach().cpu().numpy(), bias.detach().cpu().numpy()


def _loss(logits: Tensor, labels: Tensor, factors: Tensor, multi_label: bool) -> Tensor:
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, labels, factors, reduction='sum')
    return -(factors * logits.log_softmax(-1)).sum()
