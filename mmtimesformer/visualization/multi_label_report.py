"""The report of a multi-label test: average precision, F1, calibration, wrong and missed labels."""

from dataclasses import replace
from typing import Any

import numpy as np

from mmtimesformer.analysis.metrics import TestResults, softmax
from mmtimesformer.analysis.multi_label import (
    LabelAgreement,
    average_precision,
    calibration,
    class_scores,
    confused_pairs,
    f1_scores,
    label_agreement,
    mean_of,
    probabilities_of,
    sigmoid,
)
from mmtimesformer.inference.prediction import THRESHOLD
from mmtimesformer.visualization.report_parts import (
    MOST_VIEWS,
    calibration_section,
    failed_tiles,
    scaling_section,
    video_figure,
    view_bars,
)
from mmtimesformer.visualization.report_videos import video_data
from mmtimesformer.visualization.templates import percent

MOST_ROWS = 60  # of the table of classes
MOST_NAMES = 8  # of the labels of a video
AT = f'{100 * THRESHOLD:g}\u00a0%'


def sections(results: TestResults, mistakes: int, frames: int) -> dict[str, Any]:
    """Return what the page of a multi-label test shows."""
    results = replace(results, labels=results.labels.astype(bool))
    scored = results.without_failed()
    precision = average_precision(results.labels, results.scores)  # slow for thousands of classes
    views = _views(scored, mistakes)
    found = calibration(scored.labels, _probabilities(scored))
    calibrated = calibration_section(found, 'probability', 'fraction of true labels')
    return {
        'threshold': AT,
        'tiles': _tiles(results, precision, calibrated['error'], views),
        'calibration': calibrated,
        'scaling': scaling_section(results),
        'precisions': _precisions(results, precision),
        'without_videos': int(np.isnan(precision).sum()),
        'confused': [
            (results.classes[i], results.classes[j], count, i, j)
            for i, j, count in confused_pairs(scored.labels, _predicted(scored))[:10]
        ],
        'rows': _rows(results, precision),
        'num_classes': len(results.classes),
        'labels_per_video': results.labels.sum(axis=1).mean(),
        'predicted_per_video': _predicted(results).sum(axis=1).mean(),
        'wrong': _wrong(scored, mistakes),
        'missed': _missed(scored, mistakes),
        'views': views,
        'data': _data(results, frames),
    }


def _data(results: TestResults, frames: int) -> dict[str, Any]:
    probabilities = _probabilities(results)
    errors = np.abs(probabilities - results.labels).max(axis=1)
    return video_data(results, probabilities, _predicted(results), errors, frames)


def _probabilities(results: TestResults) -> np.ndarray:
    views = results.about.get('views') or {}
    number = int(views.get('clips', 1)) * int(views.get('crops', 1))
    return probabilities_of(results.scores, results.about.get('fusion'), number)


def _predicted(results: TestResults) -> np.ndarray:
    """Return whether each label of each video is predicted."""
    return np.asarray(_probabilities(results) >= THRESHOLD)


def _tiles(
    results: TestResults, precision: np.ndarray, error: str, views: dict[str, Any] | None
) -> dict[str, str]:
    predicted = _predicted(results)
    micro, macro = f1_scores(results.labels, predicted)
    tiles = {
        'mean average precision': percent(mean_of(precision), 2),
        f'F1 at {AT}, micro': percent(micro),
        f'F1 at {AT}, macro': percent(macro),
        'all labels correct': percent(float((predicted == results.labels).all(axis=1).mean())),
        'calibration error': error,
        'videos': f'{len(results.labels):,}',
        **failed_tiles(results),
    }
    if views is not None:
        tiles['all views agree'] = percent(views['agrees'])
    return tiles


def _precisions(results: TestResults, precision: np.ndarray) -> list[tuple[str, float, str, int]]:
    """Return the average precision of each class that has videos, the worst first."""
    positives = results.labels.sum(axis=0)
    order = [int(i) for i in np.argsort(precision, kind='stable') if np.isfinite(precision[i])]
    return [(results.classes[i], float(precision[i]), f'of {positives[i]:,}', i) for i in order]


def _rows(results: TestResults, precision: np.ndarray) -> list[tuple[str, ...]]:
    """Return the rows of the table of classes, the worst first."""
    scores = class_scores(results.labels, _predicted(results))
    order = np.argsort(np.where(np.isfinite(precision), precision, np.inf), kind='stable')
    return [
        (
            results.classes[i],
            f'{scores.positives[i]:,}',
            f'{scores.predicted[i]:,}',
            *(percent(one[i]) for one in (precision, scores.precision, scores.recall, scores.f1)),
        )
        for i in order[:MOST_ROWS]
    ]


def _wrong(results: TestResults, number: int) -> list[dict[str, object]]:
    """Return the most confident wrong labels."""
    values = np.where(results.labels, -1.0, _probabilities(results))
    return [
        video_figure(
            results,
            video,
            label=results.classes[label],
            probability=values[video, label],
            labels=_names(results, results.labels[video]),
        )
        for video, label in _largest(values, number, THRESHOLD)
    ]


def _missed(results: TestResults, number: int) -> list[dict[str, object]]:
    """Return the labels with the lowest probability."""
    values = np.where(results.labels, 1 - _probabilities(results), -1.0)
    return [
        video_figure(
            results,
            video,
            label=results.classes[label],
            probability=1 - values[video, label],
            labels=_names(results, _predicted(results)[video]),
        )
        for video, label in _largest(values, number, np.nextafter(1 - THRESHOLD, 1))
    ]


def _views(results: TestResults, number: int) -> dict[str, Any] | None:
    if results.view_scores is None:
        return None
    found = _agreement(results, results.view_scores)
    few = len(found.precision) <= MOST_VIEWS
    figures = [
        video_figure(
            results,
            i,
            views=[_names(results, row) for row in found.predicted[i]] if few else [],
            labels=_names(results, results.labels[i]),
        )
        for i in found.least(number)
    ]
    return {
        'number': len(found.precision),
        'agrees': float(found.agrees.mean()),
        'bars': view_bars(found.precision, found.fused),
        'figures': figures,
    }


def _agreement(results: TestResults, view_scores: np.ndarray) -> LabelAgreement:
    logits = view_scores.astype(np.float64)
    is_softmax = results.about.get('fusion') == 'mean of softmax'
    values = softmax(logits) if is_softmax else sigmoid(logits)
    return label_agreement(results.labels, values, results.scores, THRESHOLD)


def _largest(values: np.ndarray, number: int, least: float) -> list[tuple[int, int]]:
    """Return video and class of the largest values, those of at least ``least``."""
    order = np.argsort(-values, axis=None, kind='stable')[: max(0, number)]
    places = zip(*np.unravel_index(order, values.shape), strict=True)
    return [(int(i), int(j)) for i, j in places if values[i, j] >= least]


def _names(results: TestResults, row: np.ndarray) -> list[str]:
    """Return the first names of a multi-hot row, and how many more there are."""
    names = [results.classes[int(i)] for i in np.flatnonzero(row)]
    more = len(names) - MOST_NAMES
    return names[:MOST_NAMES] + ([f'{more} more'] if more > 0 else [])
