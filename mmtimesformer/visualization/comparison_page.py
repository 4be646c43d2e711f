"""Write an HTML page that compares the tests of two or more runs on the same videos."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.analysis.metrics import TestResults
from mmtimesformer.analysis.run_comparison import (
    Metric,
    changes,
    check_comparable,
    class_scores,
    metrics,
    predicted_labels,
    video_names,
)
from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.inference.prediction import LONGEST_NAME
from mmtimesformer.terminal import safe_text
from mmtimesformer.visualization.report_parts import frames_of
from mmtimesformer.visualization.templates import percent, render

MOST_CLASSES = 40  # rows; of more, those that changed most
MOST_VIDEOS = 100  # rows of changed videos, for each run and direction
WITH_FRAMES = 12  # of them


def write_comparison(runs: Sequence[TestResults], names: Sequence[str], path: str | Path) -> Path:
    """Write the comparison of runs with the first, one HTML file.

    Args:
        runs: The tests, two or more.
        names: Of the runs.
        path: The HTML file.

    Raises:
        ValueError: The runs have different videos, labels or classes.
    """
    check_comparable(runs, names)
    classes = [safe_text(name, LONGEST_NAME) for name in runs[0].classes]
    runs = [replace(run, classes=classes) for run in runs]
    failed = [(name, len(run.failed)) for name, run in zip(names, runs, strict=True) if run.failed]
    if runs[0].is_regression:  # errors are those of the same videos
        without = {i: why for run in runs for i, why in run.failed.items()}
        runs = [replace(run, failed=without) for run in runs]
    first, *compared = runs
    others = [
        _against(first, run, name, names[0]) for run, name in zip(compared, names[1:], strict=True)
    ]
    page = render(
        'comparison.html.jinja',
        names=list(names),
        videos=len(runs[0].labels),
        metrics=[_row(metric) for metric in metrics(runs)],
        classes=_classes(runs),
        num_classes=len(classes),
        class_metric=_class_metric(runs[0]),
        target='target' if runs[0].is_regression else 'class',
        others=others,
        failed=failed,
        is_regression=runs[0].is_regression,
        without_names=not all(len(run.lines) for run in runs),
    )
    write_text_atomically(path, page, errors='backslashreplace')
    return Path(path)


def _class_metric(run: TestResults) -> str:
    if run.is_regression:
        return 'Mean absolute error by target'
    return 'Average precision by class' if run.is_multi_label else 'Accuracy by class'


def _row(metric: Metric) -> dict[str, Any]:
    """Return name, value of each run, and difference of each from the first."""
    show = _percent if metric.is_percent else _number
    return {
        'name': metric.name,
        'cells': _cells(metric.values, show, metric.is_percent, metric.higher_is_better),
    }


def _cells(values: Sequence[float], show: Any, is_percent: bool, higher: bool) -> list[Any]:
    cells = [(show(values[0]), '', '')]
    for value in values[1:]:
        gap = value - values[0]
        sign = gap if higher else -gap
        better = 'better' if sign > 0 else 'worse' if sign < 0 else 'same'
        cells.append((show(value), _difference(gap, is_percent), better if gap == gap else ''))
    return cells


def _difference(gap: float, is_percent: bool) -> str:
    if not math.isfinite(gap):
        return 'n/a'
    return f'{100 * gap:+.2f} points' if is_percent else f'{gap:+.4g}'


def _percent(value: float) -> str:
    return percent(value, 2)


def _number(value: float) -> str:
    return f'{value:.4g}' if math.isfinite(value) else 'n/a'


def _classes(runs: Sequence[TestResults]) -> list[dict[str, Any]]:
    """Return a row for each class, that with the largest loss first; of many the most changed."""
    higher = not runs[0].is_regression
    scores = np.stack([class_scores(run) for run in runs])
    gaps = np.nan_to_num(scores[1:] - scores[0]) * (1 if higher else -1)
    largest = np.abs(gaps).max(axis=0)
    kept = np.argsort(-largest, kind='stable')[:MOST_CLASSES]
    order = sorted(kept.tolist(), key=lambda i: (gaps[:, i].mean(), i))
    show = _percent if higher else _number
    return [
        {'name': runs[0].classes[i], 'cells': _cells(scores[:, i].tolist(), show, higher, higher)}
        for i in order
        if np.isfinite(scores[:, i]).any()
    ]


def _against(first: TestResults, other: TestResults, name: str, first_name: str) -> dict[str, Any]:
    if first.is_regression:
        return {'name': name, 'lists': _errors(first, other)}
    found = changes(first, other)
    lists = {
        f'Right in {first_name}, wrong in {name}': found.broken,
        f'Wrong in {first_name}, right in {name}': found.fixed,
    }
    return {
        'name': name,
        'broken': len(found.broken),
        'fixed': len(found.fixed),
        'p_value': f'{found.p_value:.3g}',
        'lists': [
            (title, len(videos), _changed(first, other, videos[:MOST_VIDEOS]))
            for title, videos in lists.items()
        ],
    }


def _changed(first: TestResults, other: TestResults, videos: Sequence[int]) -> list[Any]:
    names, before, after = video_names(first), predicted_labels(first), predicted_labels(other)
    pictured = set(videos[:WITH_FRAMES] if len(first.videos) else [])
    return [
        {
            'name': names[i],
            'frames': frames_of(first.videos[i]) if i in pictured else '',
            'cells': [_shown(first, row) for row in (_true(first, i), before[i], after[i])],
        }
        for i in videos
    ]


def _true(run: TestResults, i: int) -> np.ndarray:
    if run.is_multi_label:
        return np.asarray(run.labels[i])
    return np.asarray(np.arange(len(run.classes)) == run.labels[i])


def _shown(run: TestResults, row: np.ndarray) -> str:
    return ', '.join(run.classes[int(k)] for k in np.flatnonzero(row)) or 'no label'


def _errors(first: TestResults, other: TestResults) -> list[Any]:
    """Return the videos whose largest error grew and shrank most, in standard deviations."""
    spread = first.labels.std(axis=0)
    scale = np.where(spread > 0, spread, 1)
    before, after = (np.abs(run.scores - run.labels) / scale for run in (first, other))
    gaps = (after - before).max(axis=1), (before - after).max(axis=1)
    return [
        (title, int((gap > 0).sum()), _largest(first, before, after, gap))
        for title, gap in zip(('Larger errors', 'Smaller errors'), gaps, strict=True)
    ]


def _largest(
    run: TestResults, before: np.ndarray, after: np.ndarray, gap: np.ndarray
) -> list[dict[str, Any]]:
    names = video_names(run)
    order = np.argsort(-np.nan_to_num(gap, nan=-np.inf), kind='stable')[: MOST_VIDEOS // 5]
    return [
        {
            'name': names[i],
            'frames': '',
            'cells': [_number(before[i].max()), _number(after[i].max())],
        }
        for i in order.tolist()
        if gap[i] > 0
    ]
