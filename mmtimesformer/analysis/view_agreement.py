"""Compare the predictions of the views (clips and crops) of each test video."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mmtimesformer.analysis.metrics import softmax

BATCH = 1024  # videos, so that the softmax of a large test needs little memory


@dataclass
class ViewAgreement:
    """Predictions of each view of each video.

    Attributes:
        predicted: The best class of each view, ``videos views``.
        overlap: Of each video, the fraction of a view's probability that the mean of all views has
            too, averaged over the views: 1 where all agree, ``1 / views`` where each is certain of
            another class.
        labels: The label of each video.
        fused: The best class of the fused scores.
    """

    predicted: np.ndarray
    overlap: np.ndarray
    labels: np.ndarray
    fused: np.ndarray

    @property
    def views(self) -> int:
        """Number of views of a video."""
        return int(self.predicted.shape[1])

    @property
    def agrees(self) -> np.ndarray:
        """Whether all views of a video have the same best class."""
        return np.asarray((self.predicted == self.predicted[:, :1]).all(axis=1))

    @property
    def accuracy(self) -> np.ndarray:
        """Top-1 accuracy of each view alone."""
        return np.asarray((self.predicted == self.labels[:, None]).mean(axis=0))

    @property
    def fused_accuracy(self) -> float:
        """Top-1 accuracy of the fused scores."""
        return float((self.fused == self.labels).mean())

    @property
    def correct_in_any(self) -> float:
        """Fraction of videos for which at least one view is correct."""
        return float((self.predicted == self.labels[:, None]).any(axis=1).mean())

    def least(self, number: int) -> list[int]:
        """Return the videos whose views overlap least, of those whose best classes differ."""
        order = np.argsort(self.overlap, kind='stable')
        return [int(i) for i in order if not self.agrees[i]][:number]

    def votes(self, video: int) -> list[tuple[int, int]]:
        """Return (class, number of views) of the best classes of a video's views, most first."""
        return Counter(self.predicted[video].tolist()).most_common()


def view_agreement(logits: np.ndarray, labels: np.ndarray, fused: np.ndarray) -> ViewAgreement:
    """Compare the views of each video.

    Args:
        logits: Of each view.
        labels: The label of each video.
        fused: The best class of the scores, as the test fused them.

    Shape:
        - logits: ``videos views classes``
        - labels, fused: ``videos``
    """
    overlap = np.empty(len(logits))
    for start in range(0, len(logits), BATCH):
        rows = softmax(logits[start : start + BATCH].astype(np.float64))
        common = np.minimum(rows, rows.mean(axis=1, keepdims=True))
        overlap[start : start + BATCH] = common.sum(axis=2).mean(axis=1)
    return ViewAgreement(logits.argmax(axis=2), overlap, labels, fused)
