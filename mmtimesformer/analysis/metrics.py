"""Metrics of a test: top-k accuracy, accuracy by class, calibration."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.non_finite import REASON

BINS = 10  # of confidence


@dataclass
class TestResults:
    """What a test left behind.

    Attributes:
        scores: Of each video and class, ``videos classes``.
        labels: The true class of each video, ``videos``; of a multi-label test whether each video
            has each label, ``videos classes``.
        classes: Names, in the order of the labels.
        videos: The file of each video, if known, in the order of the scores.
        about: ``result.meta.json``, as ``tools/test.py --dump`` writes it.
        work_dir: Of the training, for its curves.
        view_scores: The logits of each view of a video, ``videos views classes``, where they were
            kept.
        failed: By their numbers, the file of each video that could not be read, and why; or whose
            scores are NaN or infinite. They count as wrong, and the model has said nothing of them.
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

    @property
    def is_multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.labels.ndim == 2

    @property
    def guesses(self) -> np.ndarray:
        return self.scores.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The score of the guess, as a probability; sums of logits go through a softmax first."""
        rows = self.scores
        if not np.allclose(rows.sum(axis=1), 1, atol=1e-3) or rows.min() < 0:
            rows = np.exp(rows - rows.max(axis=1, keepdims=True))
            rows = rows / rows.sum(axis=1, keepdims=True)
        return rows.max(axis=1)

    @property
    def non_finite(self) -> list[str]:
        """Names of the videos whose scores are NaN or infinite."""
        return [
            file or (str(self.videos[i]) if len(self.videos) else f'video {i} of the list')
            for i, (file, why) in self.failed.items()
            if why == REASON
        ]

    def seen(self) -> 'TestResults':
        """Return the test without the videos that could not be read or have no finite scores."""
        kept = [i for i in range(len(self.labels)) if i not in self.failed]
        if not self.failed or not kept:
            return self
        return replace(
            self,
            scores=self.scores[kept],
            labels=self.labels[kept],
            videos=[self.videos[i] for i in kept] if len(self.videos) else (),
            view_scores=None if self.view_scores is None else self.view_scores[kept],
            failed={},
        )


def top_k(run: TestResults, k: int) -> float:
    """Return the share of videos whose true class is among the ``k`` best scores."""
    best = np.argsort(-run.scores, axis=1, kind='stable')[:, :k]
    return float((best == run.labels[:, None]).any(axis=1).mean())


def class_accuracy(run: TestResults) -> np.ndarray:
    """Return the share of right videos of each class; NaN for a class without videos."""
    right = run.guesses == run.labels
    counts = np.bincount(run.labels, minlength=len(run.classes)).astype(float)
    counts[counts == 0] = np.nan
    return np.bincount(run.labels, weights=right, minlength=len(run.classes)) / counts


def calibration(run: TestResults) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Compare confidence and accuracy, in bins of equal width.

    Returns:
        For each bin with videos its mean confidence, its accuracy and its number of videos; and the
        expected calibration error, the mean gap between the two (Guo et al., arXiv 1706.04599).
    """
    right = run.guesses == run.labels
    bins = np.minimum((run.confidence * BINS).astype(int), BINS - 1)
    used = np.unique(bins)
    confidence = np.array([run.confidence[bins == b].mean() for b in used])
    accuracy = np.array([right[bins == b].mean() for b in used])
    counts = np.array([(bins == b).sum() for b in used])
    error = float((np.abs(confidence - accuracy) * counts).sum() / counts.sum())
    return confidence, accuracy, counts, error
