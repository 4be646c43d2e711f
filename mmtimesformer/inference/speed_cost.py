"""Measure on given videos what a speed gains in time, and how far it moves scores."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmtimesformer.inference.batches import collate
from mmtimesformer.inference.classifier import VideoClassifier
from mmtimesformer.inference.inputs import is_many, videos_of
from mmtimesformer.inference.prediction import Predictions


@dataclass(frozen=True)
class Measured:
    """What a classifier returned for some videos.

    Attributes:
        found: Their labels, and what was skipped.
        logits: Of every view of every video that could be read, ``views classes``.
        seconds: A video, with reading; the first one is run once before.
    """

    found: Predictions
    logits: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Cost:
    """How a speed compares with ``exact``.

    Attributes:
        speed: The switch, as text.
        videos: How many were compared.
        seconds: A video, with reading.
        gain: Seconds of ``exact`` divided by these.
        largest: Largest difference of a score.
        mean: Mean difference of a score.
        cosine: Of the logits of a view at both speeds, the lowest.
        changed: Videos with another best class.
    """

    speed: str
    videos: int
    seconds: float
    gain: float
    largest: float
    mean: float
    cosine: float
    changed: int

    def __str__(self) -> str:
        return (
            f'speed {self.speed}, against exact on {self.videos} videos: {self.gain:.2f} times as '
            f'fast; scores move by at most {self.largest:.2g} (mean {self.mean:.2g}), the lowest '
            f'cosine of logits is {self.cosine:.5f}, the best class changes in {self.changed}'
        )


def measure(classifier: VideoClassifier, video: Any, fps: float | None = None) -> Measured:
    """Run a classifier on a video, or on many, one by one.

    Raises: as :meth:`VideoClassifier.__call__`.
    """
    logits: list[np.ndarray] = []
    _warm_up(classifier, video, fps)
    hook = classifier.model.cls_head.register_forward_hook(
        lambda head, inputs, output: logits.append(output.float().flatten(0, -2).cpu().numpy())
    )
    start = time.perf_counter()
    try:
        found = classifier(video, fps=fps, batch_size=1)
    finally:
        hook.remove()
    seconds = time.perf_counter() - start
    found = found if is_many(video) else Predictions([found])
    return Measured(found, np.concatenate(logits), seconds / (len(found) + len(found.skipped)))


def _warm_up(classifier: VideoClassifier, video: Any, fps: float | None) -> None:
    """Run the first readable video, of which the time is not measured: it may be compiled for."""
    for given in videos_of(video, classifier.views.form):
        try:
            data = classifier.views.of(given, fps)
        except Exception:  # each reader has its own; the measured run reports it
            continue
        inputs = classifier.model.data_preprocessor(collate([data]), False)['inputs']
        classifier.model.backbone(inputs.flatten(0, 1))
        return


def compare(speed: str, fast: Measured, exact: Measured, videos: Collection[str]) -> Cost:
    """Compare two runs on the videos of these names, whose scores are finite in both."""
    one, other = (_scores(run.found, videos) for run in (fast, exact))
    difference = np.abs(one - other)
    return Cost(
        speed=speed,
        videos=len(one),
        seconds=fast.seconds,
        gain=exact.seconds / fast.seconds,
        largest=float(difference.max()),
        mean=float(difference.mean()),
        cosine=lowest_cosine(fast.logits, exact.logits),
        changed=int((one.argmax(1) != other.argmax(1)).sum()),
    )


def finite_in_all(runs: Collection[Measured]) -> list[str]:
    """Return the names of the videos whose scores are finite in every run."""
    first, *others = [[one.video for one in run.found] for run in runs]
    return [name for name in first if all(name in names for names in others)]


def lowest_cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the lowest cosine of two rows; rows that are not finite in both are left out."""
    finite = np.isfinite(one).all(1) & np.isfinite(other).all(1)
    one, other = one[finite].astype(float), other[finite].astype(float)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(1) / np.maximum(lengths, 1e-30)).min())


def _scores(found: Predictions, videos: Collection[str]) -> np.ndarray:
    by_name = {one.video: one.all_scores for one in found}
    return np.stack([by_name[name] for name in videos])
