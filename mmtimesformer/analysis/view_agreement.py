"""A test looks at a video several times: do its views say the same?

Views are the clips and crops of a test. Each by itself is a test of one view; the answer that
counts fuses them all.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

AT_A_TIME = 1024  # videos, so that the softmax of a large test needs little memory


@dataclass
class ViewAgreement:
    """What the views of each video said.

    Attributes:
        guesses: The best class of each view, ``videos views``.
        overlap: Of each video, the share of a view's probability that lies where the mean of all
            views puts it, averaged over the views: 1 where all say the same, ``1 / views`` where
            each is sure of another class.
        labels: The true class of each video.
        fused: The best class of all views together.
    """

    guesses: np.ndarray
    overlap: np.ndarray
    labels: np.ndarray
    fused: np.ndarray

    @property
    def views(self) -> int:
        """How many there are of a video."""
        return int(self.guesses.shape[1])

    @property
    def agrees(self) -> np.ndarray:
        """Whether all views of a video have the same best class."""
        return np.asarray((self.guesses == self.guesses[:, :1]).all(axis=1))

    @property
    def accuracy(self) -> np.ndarray:
        """Share of videos that each view gets right by itself."""
        return np.asarray((self.guesses == self.labels[:, None]).mean(axis=0))

    @property
    def fused_accuracy(self) -> float:
        """Share of videos that all views together get right."""
        return float((self.fused == self.labels).mean())

    @property
    def right_in_any(self) -> float:
        """Share of videos that at least one view gets right."""
        return float((self.guesses == self.labels[:, None]).any(axis=1).mean())

    def least(self, number: int) -> list[int]:
        """Return the videos whose views agree least, of those whose best classes differ."""
        order = np.argsort(self.overlap, kind='stable')
        return [int(i) for i in order if not self.agrees[i]][:number]

    def votes(self, video: int) -> list[tuple[int, int]]:
        """Return each class that a view of a video names, and how many do; the most first."""
        return Counter(self.guesses[video].tolist()).most_common()


def view_agreement(logits: np.ndarray, labels: np.ndarray, fused: np.ndarray) -> ViewAgreement:
    """Compare the views of each video.

    Args:
        logits: Of each view.
        labels: The true class of each video.
        fused: The best class of all views together, by the test's own fusion.

    Shape:
        - logits: ``videos views classes``
        - labels, fused: ``videos``
    """
    overlap = np.empty(len(logits))
    for start in range(0, len(logits), AT_A_TIME):
        rows = logits[start : start + AT_A_TIME].astype(np.float64)
        rows = np.exp(rows - rows.max(axis=2, keepdims=True))
        rows /= rows.sum(axis=2, keepdims=True)
        shared = np.minimum(rows, rows.mean(axis=1, keepdims=True))
        overlap[start : start + AT_A_TIME] = shared.sum(axis=2).mean(axis=1)
    return ViewAgreement(logits.argmax(axis=2), overlap, labels, fused)
