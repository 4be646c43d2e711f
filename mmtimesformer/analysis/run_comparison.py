"""Compare the tests of two or more runs on the same videos: metrics, classes, changed videos."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.analysis.metrics import (
    TestResults,
    calibration,
    class_accuracy,
    target_errors,
    top_k,
)
from mmtimesformer.analysis.multi_label import (
    average_precision,
    f1_scores,
    mean_of,
    probabilities_of,
)
from mmtimesformer.analysis.multi_label import calibration as multi_label_calibration

THRESHOLD = 0.5  # from which on a label is predicted


@dataclass(frozen=True)
class Metric:
    """A metric of each run.

    Attributes:
        name: As in the report.
        values: One for each run.
        is_percent: Whether it is a fraction.
        higher_is_better: Whether a larger value is better.
    """

    name: str
    values: list[float]
    is_percent: bool = True
    higher_is_better: bool = True


@dataclass(frozen=True)
class Changes:
    """What changed from the first run to another.

    Attributes:
        fixed: Videos that the first run has wrong and the other right.
        broken: Videos that the first run has right and the other wrong.
        p_value: Of the exact McNemar test: how probable so unequal numbers of the two are if both
            models are equally good.
    """

    fixed: list[int]
    broken: list[int]
    p_value: float


def check_comparable(runs: Sequence[TestResults], names: Sequence[str]) -> None:
    """Refuse runs of different tasks, classes, videos or labels.

    Raises:
        ValueError: With the first difference, in one sentence.
    """
    first = runs[0]
    for run, name in zip(runs[1:], names[1:], strict=True):
        where = f'{names[0]} and {name} cannot be compared:'
        if _task(run) != _task(first):
            raise ValueError(f'{where} one is a {_task(first)} test, the other a {_task(run)} test')
        if list(run.classes) != list(first.classes):
            raise ValueError(f'{where} {_difference("classes", first.classes, run.classes)}')
        if len(run.labels) != len(first.labels):
            count = f'{len(first.labels):,} videos, the other {len(run.labels):,}'
            raise ValueError(f'{where} one has {count}; test both on the same list')
        if len(first.lines) and len(run.lines) and video_names(run) != video_names(first):
            difference = _difference('videos', video_names(first), video_names(run))
            raise ValueError(f'{where} {difference}')
        if not np.array_equal(run.labels, first.labels, equal_nan=first.is_regression):
            row = int(np.flatnonzero(_differs(run.labels, first.labels))[0])
            raise ValueError(
                f'{where} video {video_names(first)[row]!r} has other labels; test both on the '
                'same list'
            )


def _differs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    different = a != b
    return np.asarray(different.any(axis=1) if different.ndim == 2 else different)


def _task(run: TestResults) -> str:
    if run.is_regression:
        return 'regression'
    return 'multi-label' if run.is_multi_label else 'single-label'


def _difference(what: str, first: Sequence[str], other: Sequence[str]) -> str:
    if len(first) != len(other):
        return f'one has {len(first):,} {what}, the other {len(other):,}'
    i = next(i for i, (a, b) in enumerate(zip(first, other, strict=True)) if a != b)
    return f'their {what} differ, first in number {i} ({first[i]!r}, {other[i]!r})'


def video_names(run: TestResults) -> list[str]:
    """Return the name of each video in the annotation file; its number if that is not known."""
    if len(run.lines):
        return [line.split(run.delimiter)[0] for line in run.lines]
    return [f'video {i}' for i in range(len(run.labels))]


def metrics(runs: Sequence[TestResults]) -> list[Metric]:
    """Return the metrics of the runs, those of the report."""
    found = [_metrics(run) for run in runs]
    return [
        Metric(name, [one[name] for one in found], *_kind(name))
        for name in dict.fromkeys(name for one in found for name in one)
    ]


def _kind(name: str) -> tuple[bool, bool]:
    is_number = name in ('mean absolute error', 'R²')
    return not is_number, name not in ('mean absolute error', 'calibration error')


def _metrics(run: TestResults) -> dict[str, float]:
    if run.is_regression:
        mae, r2 = target_errors(run.without_failed())
        return {'mean absolute error': float(mae.mean()), 'R²': float(r2.mean())}
    scored = run.without_failed()
    if run.is_multi_label:
        predicted = predicted_labels(run)
        micro, macro = f1_scores(run.labels.astype(bool), predicted)
        return {
            'mean average precision': mean_of(class_scores(run)),
            'F1, micro': micro,
            'F1, macro': macro,
            'all labels correct': float(correct(run).mean()),
            'calibration error': multi_label_calibration(
                scored.labels.astype(bool), _probabilities(scored)
            )[3],
        }
    k = min(5, len(run.classes))
    return {
        'top-1 accuracy': top_k(run, 1),
        f'top-{k} accuracy': top_k(run, k),
        'mean class accuracy': float(np.nanmean(class_accuracy(run))),
        'calibration error': calibration(scored)[3],
    }


def _probabilities(run: TestResults) -> np.ndarray:
    views: dict[str, Any] = run.about.get('views') or {}
    number = int(views.get('clips', 1)) * int(views.get('crops', 1))
    return probabilities_of(run.scores, run.about.get('fusion'), number)


def predicted_labels(run: TestResults) -> np.ndarray:
    """Return whether each class of each video is predicted, ``videos classes``."""
    if run.is_multi_label:
        return np.asarray(_probabilities(run) >= THRESHOLD)
    return np.eye(len(run.classes), dtype=bool)[run.predicted]


def correct(run: TestResults) -> np.ndarray:
    """Return whether each video is right; of several labels, all must be."""
    if run.is_multi_label:
        return np.asarray((predicted_labels(run) == run.labels).all(axis=1))
    return np.asarray(run.predicted == run.labels)


def class_scores(run: TestResults) -> np.ndarray:
    """Return accuracy, average precision or mean absolute error of each class or target."""
    if run.is_regression:
        return target_errors(run.without_failed())[0]
    if run.is_multi_label:
        return average_precision(run.labels.astype(bool), run.scores)
    return class_accuracy(run)


def changes(first: TestResults, other: TestResults) -> Changes:
    """Return which videos of a classification test changed from right to wrong and back."""
    before, after = correct(first), correct(other)
    fixed, broken = np.flatnonzero(~before & after), np.flatnonzero(before & ~after)
    return Changes(fixed.tolist(), broken.tolist(), mcnemar(len(fixed), len(broken)))


def mcnemar(fixed: int, broken: int) -> float:
    """Return the p-value of the exact McNemar test: a two-sided binomial test at one half."""
    total = fixed + broken
    tail = sum(comb(total, k) for k in range(min(fixed, broken) + 1))
    return min(1.0, 2 * tail / 2**total)


def run_names(folders: Sequence[Path]) -> list[str]:
    """Return a short name of each work_dir: the end of its path, as long as it must be."""
    parts = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f'{folders[0]} is given twice; name different runs')
