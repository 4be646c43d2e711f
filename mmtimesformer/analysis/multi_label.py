"""Metrics of a multi-label test: average precision, F1, calibration, agreement of views.

All take ``videos classes`` arrays: labels and predictions as booleans, scores or probabilities. A
class without positives has NaN metrics and is not in the means.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from mmtimesformer.analysis.metrics import Reliability, reliability


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of each class."""

    positives: np.ndarray  # number of videos with the label
    predicted: np.ndarray  # number of videos for which it is predicted
    precision: np.ndarray  # NaN if it is predicted for no video
    recall: np.ndarray  # NaN for a class without positives
    f1: np.ndarray  # likewise


def probabilities_of(scores: np.ndarray, fusion: str | None, views: int = 1) -> np.ndarray:
    """Return the probability of each class of each video.

    Args:
        scores: As the test fused them.
        fusion: One of the values of :data:`mmtimesformer.heads.FUSIONS`; ``None`` if not known,
            then scores outside 0 to 1 are taken as logits.
        views: Number of views in a sum of logits.
    """
    known = fusion in ('mean of sigmoid', 'mean of softmax', 'mean of logits', 'sum of logits')
    inside = bool(((scores >= 0) & (scores <= 1)).all())
    if fusion in ('mean of sigmoid', 'mean of softmax') or (not known and inside):
        return scores
    return sigmoid(scores / (views if fusion == 'sum of logits' else 1))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return probabilities; large logits of either sign do not overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64))))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the average precision of each class, 0 to 1; NaN for a class without positives.

    The mean over the classes that are not NaN is MMAction2's ``mean_average_precision``.
    """
    found = np.full(labels.shape[1], np.nan)
    for i in np.flatnonzero(labels.any(axis=0)):
        found[i] = average_precision_score(labels[:, i], scores[:, i])
    return found


def mean_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean over the classes with positives; NaN if there are none."""
    return mean_of(average_precision(labels, scores))


def mean_of(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float('nan')


def class_scores(labels: np.ndarray, predicted: np.ndarray) -> ClassScores:
    """Return precision, recall and F1 of each class."""
    precision, recall, f1, positives = precision_recall_fscore_support(
        labels.astype(int), predicted.astype(int), average=None, zero_division=np.nan
    )
    f1 = np.where(positives > 0, f1, np.nan)
    return ClassScores(positives, predicted.sum(axis=0), precision, recall, f1)


def f1_scores(labels: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Return F1 over all decisions (micro), and its mean over classes with positives (macro)."""
    rows = labels.astype(int), predicted.astype(int)
    micro = float(f1_score(*rows, average='micro', zero_division=np.nan))
    return micro, mean_of(class_scores(labels, predicted).f1)


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Return the reliability diagram over all decisions: each class of each video."""
    return reliability(probabilities.ravel(), labels.ravel())


def confused_pairs(labels: np.ndarray, predicted: np.ndarray) -> list[tuple[int, int, int]]:
    """Return pairs of a missed label and a wrong one that is predicted in the same video.

    Returns:
        (missed class, predicted class, number of videos), the most frequent first.
    """
    missed = (labels & ~predicted).astype(np.int64)
    wrong = (predicted & ~labels).astype(np.int64)
    counts = missed.T @ wrong
    pairs = [(int(i), int(j), int(counts[i, j])) for i, j in np.argwhere(counts)]
    return sorted(pairs, key=lambda pair: -pair[2])


@dataclass(frozen=True)
class LabelAgreement:
    """Predictions of each view of each video."""

    predicted: np.ndarray  # the labels that each view predicts, ``videos views classes``
    precision: np.ndarray  # mean average precision of each view alone
    fused: float  # mean average precision of all views together

    @property
    def agrees(self) -> np.ndarray:
        """Whether all views of a video predict the same labels."""
        return np.asarray((self.predicted == self.predicted[:, :1]).all(axis=(1, 2)))

    def least(self, number: int) -> list[int]:
        """Return the videos on whose labels the views differ most."""
        differing = (self.predicted != self.predicted[:, :1]).any(axis=1).sum(axis=1)
        order = np.argsort(-differing, kind='stable')
        return [int(i) for i in order if differing[i]][:number]


def label_agreement(
    labels: np.ndarray, view_probabilities: np.ndarray, scores: np.ndarray, threshold: float
) -> LabelAgreement:
    """Compare the views of each video.

    Shape:
        - labels, scores: ``videos classes``
        - view_probabilities: ``videos views classes``
    """
    alone = [
        mean_average_precision(labels, view_probabilities[:, i])
        for i in range(view_probabilities.shape[1])
    ]
    return LabelAgreement(
        view_probabilities >= threshold, np.array(alone), mean_average_precision(labels, scores)
    )
