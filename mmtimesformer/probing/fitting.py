"""Fit a probe on frozen features: logistic regression, k-NN, or attentive pooling.

A fit returns the state dict of its head (:mod:`mmtimesformer.heads`). Every view of a video is one
row with the labels of the video; the views of a video together weigh as much as one video.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from mmengine.registry import DefaultScope
from torch import Tensor

from mmtimesformer import heads
from mmtimesformer.compat.data_samples import LOWEST_LOGIT
from mmtimesformer.registry import MODELS

BALANCED = 'balanced'
ClassWeights = str | list[float] | None
State = dict[str, Tensor]
# Of the attentive probe: 40 epochs, and more where these are few steps
EPOCHS, LEAST_STEPS, ROWS_PER_STEP, LEARNING_RATE = 40, 300, 64, 2e-3


@dataclass(frozen=True)
class ProbeSettings:
    """What a fit needs besides features and labels.

    Attributes:
        num_classes: Number of classes.
        in_channels: Width of a feature.
        num_heads: Attention heads of the backbone.
        multi_label: Whether a video may have several labels.
        class_weights: ``None``, ``'balanced'``, or a weight for each class.
        seed: Of the random numbers of a fit.
        device: Where the attentive probe is trained.
    """

    num_classes: int
    in_channels: int
    num_heads: int
    multi_label: bool = False
    class_weights: ClassWeights = None
    seed: int = 0
    device: str | torch.device = 'cpu'

    def label_rows(self, targets: np.ndarray) -> np.ndarray:
        """Return multi-hot rows, also of single labels.

        Shape:
            - targets: ``videos`` or ``videos classes`` -> ``videos classes``, booleans
        """
        return targets if self.multi_label else np.eye(self.num_classes, dtype=bool)[targets]

    def weights_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights of the positives and of the negatives of each class.

        Balanced weights are scikit-learn's: the number of videos divided by that of the class and
        by the number of alternatives (the classes that occur; two for each of several labels).
        """
        if isinstance(self.class_weights, list):
            weights = np.array(self.class_weights, dtype=float)
            return weights, weights
        if self.class_weights is None:
            return np.ones(self.num_classes), np.ones(self.num_classes)
        counts = rows.sum(axis=0)
        alternatives = 2 if self.multi_label else (counts > 0).sum()
        positives = len(rows) / np.maximum(counts, 1) / alternatives
        return positives, len(rows) / np.maximum(len(rows) - counts, 1) / 2


@dataclass(frozen=True)
class Kind:
    """A kind of probe.

    Attributes:
        feature: What of the backbone it reads, see :mod:`mmtimesformer.inference.features`.
        setting: Name of what cross-validation chooses.
        choices: Its values, the strongest regularisation first.
        default: Its value without cross-validation.
        fit: From features, targets, settings and choice to the state dict of the head.
        head: Its class.
    """

    feature: str
    setting: str
    choices: tuple[float, ...]
    default: float
    fit: Callable[[np.ndarray, np.ndarray, ProbeSettings, float], State]
    head: type[heads.TimeSformerHead]

    def head_config(self, settings: ProbeSettings, choice: float, samples: int) -> dict[str, Any]:
        """Return the config of the head in a model."""
        config: dict[str, Any] = {
            'type': f'mmtimesformer.{self.head.__name__}',
            'num_classes': settings.num_classes,
            'in_channels': settings.in_channels,
            'average_clips': 'sigmoid' if settings.multi_label else 'prob',
        }
        if settings.multi_label:
            config |= {'multi_class': True, 'loss_cls': {'type': 'BCELossWithLogits'}}
        if self.head is heads.KNNHead:
            config |= {'num_samples': samples, 'num_neighbors': min(int(choice), samples)}
        if self.head is heads.AttentiveHead:
            config['num_heads'] = settings.num_heads
        return config

    def build(
        self, features: np.ndarray, targets: np.ndarray, settings: ProbeSettings, choice: float
    ) -> heads.TimeSformerHead:
        """Fit a probe and return it as a head, in evaluation mode."""
        config = self.head_config(settings, choice, len(features))
        with DefaultScope.overwrite_default_scope('mmaction'):  # of the losses
            head = MODELS.build(config)
        head.load_state_dict(self.fit(features, targets, settings, choice))
        return head.eval()


def fit_linear(
    features: np.ndarray, targets: np.ndarray, settings: ProbeSettings, choice: float
) -> State:
    """Fit scikit-learn's logistic regression on standardised features.

    The standardisation is folded into the weights. A class without a video gets a logit that no
    other is below.

    Args:
        features: Of the class token, ``videos views d``.
        targets: See :meth:`ProbeSettings.label_rows`.
        settings: See there.
        choice: ``C``, the inverse of the regularisation strength.
    """
    from sklearn.preprocessing import StandardScaler

    views = features.shape[1]
    x = rearrange(features, 'videos views d -> (videos views) d').astype(np.float64)
    scaler = StandardScaler().fit(x)
    x = scaler.transform(x)
    weight = np.zeros((settings.num_classes, x.shape[1]))
    bias = np.full(settings.num_classes, LOWEST_LOGIT)
    weights = settings.class_weights
    if settings.multi_label:
        for i, row in enumerate(np.repeat(targets, views, axis=0).T):
            c = choice / views * (weights[i] if isinstance(weights, list) else 1)
            if row.all():
                bias[i] = -LOWEST_LOGIT
            elif row.any():
                balanced = weights if isinstance(weights, str) else None
                (weight[i],), (bias[i],) = _logistic(x, row, balanced, c)
    else:
        known = np.unique(targets)
        by_class = {i: weights[i] for i in known} if isinstance(weights, list) else weights
        found = _logistic(x, np.repeat(targets, views), by_class, choice / views)
        weight[known], bias[known] = _both_classes(*found)
    weight /= scaler.scale_
    bias -= weight @ scaler.mean_
    return {'fc_cls.weight': _float(weight), 'fc_cls.bias': _float(bias)}


def _logistic(x: np.ndarray, labels: np.ndarray, weights: Any, c: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # more steps do not change what is predicted
        warnings.simplefilter('ignore', ConvergenceWarning)
        found = LogisticRegression(C=c, class_weight=weights, max_iter=1000, tol=1e-6)
        found.fit(x, labels)
    return found.coef_, found.intercept_


def _both_classes(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a row for each class: of two classes scikit-learn has the second's alone."""
    if len(weight) > 1:
        return weight, bias
    return np.stack([-weight[0], weight[0]]) / 2, np.stack([-bias[0], bias[0]]) / 2


def fit_knn(
    features: np.ndarray, targets: np.ndarray, settings: ProbeSettings, choice: float
) -> State:
    """Store the features: of each video the mean over its views, of length 1.

    Args:
        features: Of the class token, ``videos views d``.
        targets: See :meth:`ProbeSettings.label_rows`.
        settings: See there.
        choice: Not used; the number of neighbours is in the config of the head.
    """
    views = F.normalize(torch.from_numpy(features).float(), dim=-1)
    rows = settings.label_rows(targets)
    positives, negatives = settings.weights_of(rows)
    votes = rows * positives
    if settings.multi_label:  # balanced: the fraction of the weights that are of positives
        votes = rows * (positives / (positives + negatives) * 2)
    return {'features': F.normalize(views.mean(1), dim=-1), 'votes': _float(votes)}


def fit_attentive(
    features: np.ndarray, targets: np.ndarray, settings: ProbeSettings, choice: float
) -> State:
    """Train attentive pooling and a linear classifier by AdamW with a cosine schedule.

    Args:
        features: Tokens, ``videos views t h w d``.
        targets: See :meth:`ProbeSettings.label_rows`.
        settings: See there.
        choice: The weight decay.
    """
    rows = settings.label_rows(targets)
    positives, negatives = (_float(w).to(settings.device) for w in settings.weights_of(rows))
    tokens = torch.from_numpy(features)
    labels = _float(rows)
    videos, views = tokens.shape[:2]
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmaction'):
        torch.manual_seed(settings.seed)
        head = heads.AttentiveHead(
            settings.num_classes, settings.in_channels, settings.num_heads
        ).to(settings.device)
    steps_per_epoch = -(-videos * views // ROWS_PER_STEP)
    epochs = max(EPOCHS, -(-LEAST_STEPS // steps_per_epoch))
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=choice)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * steps_per_epoch + 1, pct_start=0.1
    )
    for _ in range(epochs):
        for places in torch.randperm(videos * views, generator=generator).split(ROWS_PER_STEP):
            x = tokens[places // views, places % views].to(settings.device)
            y = labels[places // views].to(settings.device)
            loss = _loss(head((x, x)), y, positives, negatives, settings.multi_label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}


def _loss(
    logits: Tensor, labels: Tensor, positives: Tensor, negatives: Tensor, multi_label: bool
) -> Tensor:
    if multi_label:
        weights = labels * positives + (1 - labels) * negatives
        return F.binary_cross_entropy_with_logits(logits, labels, weights)
    return F.cross_entropy(logits, labels.argmax(1), positives)


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


#: The classifiers ``'linear'``, ``'knn'`` and ``'attentive'``, each with its features and settings.
KINDS = {
    'linear': Kind(
        'cls', 'C', (0.001, 0.01, 0.1, 1.0, 10.0), 1.0, fit_linear, heads.TimeSformerHead
    ),
    'knn': Kind('cls', 'neighbours', (20, 10, 5, 1), 10, fit_knn, heads.KNNHead),
    'attentive': Kind(
        'tokens', 'weight decay', (0.5, 0.05), 0.05, fit_attentive, heads.AttentiveHead
    ),
}
