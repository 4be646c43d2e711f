"""Metrics of a test: top-k accuracy, accuracy by class, calibration, confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmtimesformer.compat.regression import regression_errors
from mmtimesformer.non_finite import REASON

BINS = 10  # of confidence
Reliability = tuple[np.ndarray, np.ndarray, np.ndarray, float]


@dataclass
class TestResults:
    """Scores and labels of a test.

    Attributes:
        scores: ``videos classes``.
        labels: The class of each video, ``videos``; in a multi-label test multi-hot rows,
            ``videos classes``.
        classes: Class names, in the order of the scores.
        videos: The file of each video, in the order of the scores; empty if not known.
        about: ``result.meta.json``, as ``tools/test.py --dump`` writes it.
        work_dir: Of the training, for its curves.
        view_scores: Logits of each view, ``videos views classes``; ``None`` if not kept.
        failed: By video index, file and reason of each video that could not be read or whose scores
            are NaN or infinite. They count as wrong.
        is_regression: Whether scores and labels are numbers, ``videos targets``; ``classes`` are
            the names of the targets.
        lines: The line of each video in the annotation file, in the order of the scores; empty if
            not known.
        delimiter: Between the columns of a line.
    """

    __test__ = False  # for pytest, which collects classes of this name

    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    videos: Sequence[Path] = ()
    about: dict[str, Any] = field(default_factory=dict)
    work_dir: Path | None = None
    view_scores: np.ndarray | None = None
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)
    is_regression: bool = False
    lines: Sequence[str] = ()
    delimiter: str = ' '

    @property
    def is_multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.labels.ndim == 2 and not self.is_regression

    @property
    def predicted(self) -> np.ndarray:
        """The best class of each video."""
        return self.scores.argmax(axis=1)

    @property
    def probabilities(self) -> np.ndarray:
        """The scores of one-label videos; sums of logits go through a softmax first."""
        rows = self.scores
        if not np.allclose(rows.sum(axis=1), 1, atol=1e-3) or rows.min() < 0:
            rows = softmax(rows)
        return rows

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the best class."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def non_finite(self) -> list[str]:
        """Names of the videos whose scores are NaN or infinite."""
        return [
            file or (str(self.videos[i]) if len(self.videos) else f'video {i} of the list')
            for i, (file, why) in self.failed.items()
            if why == REASON
        ]

    def without_failed(self) -> 'TestResults':
        """Return the results of the videos that were read and have finite scores."""
        kept = [i for i in range(len(self.labels)) if i not in self.failed]
        if not self.failed or not kept:
            return self
        return replace(
            self,
            scores=self.scores[kept],
            labels=self.labels[kept],
            videos=[self.videos[i] for i in kept] if len(self.videos) else (),
            lines=[self.lines[i] for i in kept] if len(self.lines) else (),
            view_scores=None if self.view_scores is None else self.view_scores[kept],
            failed={},
        )


def top_k(results: TestResults, k: int) -> float:
    """Return the fraction of videos whose label is among the ``k`` best classes."""
    best = np.argsort(-results.scores, axis=1, kind='stable')[:, :k]
    return float((best == results.labels[:, None]).any(axis=1).mean())


def target_errors(results: TestResults) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean absolute error and R² of each target of a regression.

    Shape:
        - errors: ``targets``; R² is NaN where all true numbers are equal
    """
    true, predicted = (torch.from_numpy(one).double() for one in (results.labels, results.scores))
    mae, r2 = regression_errors(true, predicted)
    return mae.numpy(), r2.numpy()


def class_accuracy(results: TestResults) -> np.ndarray:
    """Return the accuracy of each class; NaN for a class without videos."""
    correct = results.predicted == results.labels
    counts = np.bincount(results.labels, minlength=len(results.classes)).astype(float)
    counts[counts == 0] = np.nan
    return np.bincount(results.labels, weights=correct, minlength=len(results.classes)) / counts


def calibration(results: TestResults) -> Reliability:
    """Return the reliability diagram of the best classes, see :func:`reliability`."""
    return reliability(results.confidence, results.predicted == results.labels)


def reliability(probabilities: np.ndarray, correct: np.ndarray) -> Reliability:
    """Compare probabilities with how often they are correct, in bins of equal width.

    Returns:
        Of each bin that is not empty its mean probability, its accuracy and its count; and the
        expected calibration error, the mean gap between the two (Guo et al., arXiv 1706.04599).
    """
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    used = np.unique(bins)
    confidence = np.array([probabilities[bins == b].mean() for b in used])
    accuracy = np.array([correct[bins == b].mean() for b in used])
    counts = np.array([(bins == b).sum() for b in used])
    error = float((np.abs(confidence - accuracy) * counts).sum() / counts.sum())
    return confidence, accuracy, counts, error


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the videos of each label (row) and predicted class (column).

    Shape:
        - labels, predicted: ``videos``, class indices
        - counts: ``classes classes``

    Raises:
        ValueError: A class index is not below ``num_classes``.
    """
    for name, values in (('labels', labels), ('predicted classes', predicted)):
        if len(values) and not 0 <= min(values) <= max(values) < num_classes:
            raise ValueError(
                f'the {name} {min(values)}..{max(values)} do not fit {num_classes} classes; '
                'give the class names that the videos were labelled with'
            )
    counts = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities over the last axis."""
    rows = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True))
