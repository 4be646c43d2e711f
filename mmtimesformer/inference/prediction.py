"""Predictions of videos: best classes and scores, as text, JSON or CSV."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmtimesformer.terminal import safe_text

PROBABILITY = 'mean of softmax'
LONGEST_NAME = 200  # characters of a class name on a terminal; files have all of them
SIGMOID = 'mean of sigmoid'
NUMBERS = 'mean of numbers'  # of a regression
THRESHOLD = 0.5  # least probability of a label of a multi-label model


@dataclass(frozen=True)
class Prediction:
    """The best classes of a video, the best first.

    Attributes:
        video: The file, or ``array 0`` for the first array.
        labels: Names of the best classes; their numbers as text where no names are known.
        scores: Their scores.
        indices: Their numbers.
        all_scores: The score of each class, in the order of the classifier.
        fusion: What a score is: ``'mean of softmax'`` (a probability; all sum to 1), ``'mean of
            sigmoid'`` (of a multi-label model: a probability of each class by itself), ``'mean of
            logits'``, ``'sum of logits'``; the config's ``cls_head.average_clips`` decides. Or
            ``'mean of numbers'`` of a regression: ``labels`` are the names of all targets in their
            order, and ``scores`` the predicted numbers.
        threshold: For a multi-label model: the least probability of a label.
        above_threshold: The labels that it has by this threshold, the surest first, also beyond
            the best few; ``None`` where a video has one label.
    """

    video: str
    labels: list[str]
    scores: list[float]
    indices: list[int]
    all_scores: np.ndarray
    fusion: str
    threshold: float = THRESHOLD
    above_threshold: list[str] | None = None

    @property
    def top(self) -> str:
        """The best class."""
        return self.labels[0]

    @property
    def is_probability(self) -> bool:
        """Whether scores are probabilities, 0 to 1."""
        return self.fusion in (PROBABILITY, SIGMOID)

    @property
    def is_multi_label(self) -> bool:
        """Whether the video may have several labels, each with a probability of its own."""
        return self.fusion == SIGMOID

    @property
    def is_regression(self) -> bool:
        """Whether scores are predicted numbers, one for each target."""
        return self.fusion == NUMBERS

    def shown(self, rank: int = 0) -> str:
        """Return a score as text: per cent if it is a probability."""
        score = self.scores[rank]
        if self.is_regression:
            return f'{score:.6g}'
        return f'{100 * score:.1f} %' if self.is_probability else f'{score:.2f}'

    def __str__(self) -> str:
        labels = [safe_text(label, LONGEST_NAME) for label in self.labels]
        width = max(map(len, labels))
        lines = [f'  {label:<{width}}  {self.shown(rank):>7}' for rank, label in enumerate(labels)]
        return '\n'.join([safe_text(self.video), *lines, *self.summary()])

    def summary(self) -> list[str]:
        """Return a line that names all labels above the threshold; none for one label a video."""
        if self.above_threshold is None:
            return []
        names = ', '.join(safe_text(name, LONGEST_NAME) for name in self.above_threshold)
        return [f'  at least {100 * self.threshold:g} %: {names or "no label"}']

    def as_dict(self) -> dict[str, Any]:
        """Return the best classes as plain values."""
        if self.is_regression:
            named = zip(self.labels, self.scores, strict=True)
            return {'video': self.video, 'numbers': dict(named)}
        best = zip(self.labels, self.indices, self.scores, strict=True)
        values: dict[str, Any] = {
            'video': self.video,
            'top': [{'label': label, 'class': i, 'score': score} for label, i, score in best],
        }
        if self.above_threshold is not None:
            values |= {'threshold': self.threshold, 'above_threshold': self.above_threshold}
        return values


@dataclass(frozen=True)
class Skipped:
    """A video without a result, and why."""

    video: str
    reason: str
    non_finite: bool = False  # it was read, but its scores or features are NaN or infinite

    def __str__(self) -> str:
        return f'{safe_text(self.video)}\n  skipped: {safe_text(self.reason)}'


class Predictions(list[Prediction]):
    """The predictions of many videos, in the order of the videos.

    Videos that could not be read, or whose scores are not finite, are in ``skipped`` instead.
    """

    def __init__(
        self, predictions: list[Prediction] | None = None, skipped: list[Skipped] | None = None
    ) -> None:
        super().__init__(predictions or [])
        self.skipped = skipped or []

    @property
    def non_finite(self) -> list[str]:
        """Videos whose scores are NaN or infinite, because the model is wrong and not the file."""
        return [one.video for one in self.skipped if one.non_finite]

    def __str__(self) -> str:
        return '\n'.join(map(str, [*self, *self.skipped]))

    def as_dict(self) -> dict[str, Any]:
        """Return all as plain values, for JSON."""
        return {
            'score': self[0].fusion if self else None,
            'videos': [prediction.as_dict() for prediction in self],
            'skipped': [{'video': one.video, 'reason': one.reason} for one in self.skipped],
        }

    def as_csv(self) -> str:
        """Return a table: a line for each of a video's best classes, or for why it was skipped.

        Of a multi-label model there is a last column, whether the video has the label.
        """
        rows: list[list[Any]] = [['video', 'rank', 'label', 'class', 'score', 'skipped']]
        for one in self:
            best = zip(one.labels, one.indices, one.scores, strict=True)
            rows += [[one.video, rank, *cells, ''] for rank, cells in enumerate(best, 1)]
        rows += [[one.video, '', '', '', '', one.reason] for one in self.skipped]
        if any(one.is_multi_label for one in self):  # a last column: yes or no
            above = [score >= one.threshold for one in self for score in one.scores]
            words = ['yes' if one else 'no' for one in above] + [''] * len(self.skipped)
            for row, word in zip(rows, ['above_threshold', *words], strict=True):
                row.append(word)
        return as_csv(rows)


def as_csv(rows: list[list[Any]]) -> str:
    """Write rows as CSV text."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def best_of(
    video: str,
    scores: np.ndarray,
    classes: list[str] | None,
    topk: int,
    fusion: str,
    threshold: float = THRESHOLD,
) -> Prediction:
    """Choose the best classes; of equal scores the first.

    Where scores are sigmoids, also all classes from ``threshold`` on. Numbers of a regression all
    stay, in the order of the targets.

    Shape:
        - scores: ``classes``
    """
    order = np.argsort(-scores, kind='stable').tolist()
    if fusion == NUMBERS:
        order, topk = list(range(len(scores))), len(scores)
    names = classes or [str(i) for i in range(len(scores))]
    best = order[:topk]
    above = [names[i] for i in order if scores[i] >= threshold] if fusion == SIGMOID else None
    return Prediction(
        video=video,
        labels=[names[i] for i in best],
        scores=[float(scores[i]) for i in best],
        indices=best,
        all_scores=scores,
        fusion=fusion,
        threshold=threshold,
        above_threshold=above,
    )
