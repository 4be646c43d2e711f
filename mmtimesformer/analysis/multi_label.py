"""Scores of a multi-label test: average precision, F1 at a threshold, calibration, view agreement.

Everything works on two arrays, ``videos classes`` each: the truth as booleans, and scores or
probabilities. A class that no video has is left out of means; its own scores are NaN.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

BINS = 10  # of probability


@dataclass(frozen=True)
class ClassScores:
    """How well each class is found; arrays over the classes.

    Attributes:
        positives: Videos that have the label.
        predicted: Videos that are given the label.
        precision: Share of the videos given the label that have it; NaN if there are none.
        recall: Share of the videos with the label that are given it; NaN if there are none.
        f1: Harmonic mean of both; NaN for a class without positives.
    """

    positives: np.ndarray
    predicted: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def probabilities_of(scores: np.ndarray, fusion: str | None, views: int = 1) -> np.ndarray:
    """Return the probability of each class of each video.

    Args:
        scores: As a test fused them.
        fusion: One of the values of :data:`mmtimesformer.heads.FUSIONS`; ``None`` if it is not
            known, then scores outside 0 to 1 are logits.
        views: How many views were added up in a sum of logits.
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

    The mean of those that are no NaN is MMAction2's ``mean_average_precision``.
    """
    found = np.full(labels.shape[1], np.nan)
    for i in np.flatnonzero(labels.any(axis=0)):
        found[i] = average_precision_score(labels[:, i], scores[:, i])
    return found


def mean_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean over classes that have positives; NaN if none has."""
    return mean_of(average_precision(labels, scores))


def mean_of(values: np.ndarray) -> float:
    """Return the mean of those values that are no NaN; NaN if there is none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float('nan')


def class_scores(labels: np.ndarray, guesses: np.ndarray) -> ClassScores:
    """Return precision, recall and F1 of each class.

    Shape:
        - labels, guesses: ``videos classes``, booleans
    """
    precision, recall, f1, positives = precision_recall_fscore_support(
        labels.astype(int), guesses.astype(int), average=None, zero_division=np.nan
    )
    f1 = np.where(positives > 0, f1, np.nan)
    return ClassScores(positives, guesses.sum(axis=0), precision, recall, f1)


def f1_scores(labels: np.ndarray, guesses: np.ndarray) -> tuple[float, float]:
    """Return F1 over all decisions (micro), and its mean over classes with positives (macro)."""
    rows, said = labels.astype(int), guesses.astype(int)
    micro = float(f1_score(rows, said, average='micro', zero_division=np.nan))
    return micro, mean_of(class_scores(labels, guesses).f1)


def calibration(
    labels: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Compare probabilities with how often they are right, over all decisions.

    A decision is a class of a video.

    Returns:
        For each bin with decisions their mean probability, the share of them whose label is true
        and their number; and the expected calibration error, the mean gap between the two.
    """
    values, true = probabilities.ravel(), labels.ravel()
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    used = np.unique(bins)
    confidence = np.array([values[bins == b].mean() for b in used])
    share = np.array([true[bins == b].mean() for b in used])
    counts = np.array([(bins == b).sum() for b in used])
    error = float((np.abs(confidence - share) * counts).sum() / counts.sum())
    return confidence, share, counts, error


def confused_pairs(labels: np.ndarray, guesses: np.ndarray) -> list[tuple[int, int, int]]:
    """Return pairs of a label that is missed and one that is wrongly given in the same video.

    Returns:
        (missed class, given class, number of videos), the most frequent first.
    """
    missed = (labels & ~guesses).astype(np.int64)
    given = (guesses & ~labels).astype(np.int64)
    counts = missed.T @ given
    pairs = [(int(i), int(j), int(counts[i, j])) for i, j in np.argwhere(counts)]
    return sorted(pairs, key=lambda pair: -pair[2])


@dataclass(frozen=True)
class LabelAgreement:
    """What the views of each video say.

    Attributes:
        guesses: The labels that each view gives, ``videos views classes``.
        precision: Mean average precision of each view alone.
        fused: Mean average precision of all views together.
    """

    guesses: np.ndarray
    precision: np.ndarray
    fused: float

    @property
    def agrees(self) -> np.ndarray:
        """Whether all views of a video give the same labels."""
        return np.asarray((self.guesses == self.guesses[:, :1]).all(axis=(1, 2)))

    def least(self, number: int) -> list[int]:
        """Return the videos on whose labels the views differ most."""
        differing = (self.guesses != self.guesses[:, :1]).any(axis=1).sum(axis=1)
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
