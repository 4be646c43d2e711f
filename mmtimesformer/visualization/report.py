"""Write the HTML report of a test: scores, curves, confusion matrix, calibration, mistakes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.analysis.metrics import (
    TestResults,
    calibration,
    class_accuracy,
    confusion_matrix,
    top_k,
)
from mmtimesformer.analysis.view_agreement import view_agreement
from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.inference.prediction import LONGEST_NAME
from mmtimesformer.terminal import safe_text
from mmtimesformer.visualization import multi_label_report, regression_report
from mmtimesformer.visualization.confusion import draw_confusion, draw_heat_map
from mmtimesformer.visualization.report_parts import (
    calibration_section,
    common_sections,
    drawn,
    failed_tiles,
    scaling_section,
    video_figure,
    view_bars,
)
from mmtimesformer.visualization.report_videos import errors_of, video_data
from mmtimesformer.visualization.templates import percent, render

MOST_CLASSES_LINKED = 40  # in a confusion matrix whose cells are links; of more, a picture
MOST_CLASSES_NAMED = 60  # in the picture of a confusion matrix; of more, one without names


def write_report(
    results: TestResults, path: str | Path, mistakes: int = 8, frames: int = 60
) -> Path:
    """Write the report, one HTML file with all its pictures.

    Args:
        results: The test.
        path: The HTML file.
        mistakes: How many of the most confident mistakes are shown.
        frames: How many videos of the list are shown with frames.

    Raises:
        ValueError: There is no video, or labels do not fit the classes.
    """
    if not len(results.labels):
        raise ValueError('there is no video in the results; test with at least one')
    names = list(results.classes)
    results = replace(results, classes=[safe_text(name, LONGEST_NAME) for name in names])
    if results.is_regression:
        template = 'regression_report.html.jinja'
        sections = regression_report.sections(results, mistakes, frames)
    elif results.is_multi_label:
        template = 'multi_label_report.html.jinja'
        sections = multi_label_report.sections(results, mistakes, frames)
    else:
        template, sections = 'report.html.jinja', _sections(results, mistakes, frames)
    sections['data']['classes'] = names  # as they are in a downloaded file
    title = Path(results.about.get('config') or 'Test').stem
    page = render(template, title=title, **common_sections(results), **sections)
    write_text_atomically(path, page, errors='backslashreplace')
    return Path(path)


def _sections(results: TestResults, mistakes: int, frames: int) -> dict[str, Any]:
    """Return what the page of a single-label test shows."""
    scored = results.without_failed()
    counts = confusion_matrix(scored.labels, scored.predicted, len(results.classes))
    views = _views(scored, mistakes)
    calibrated = calibration_section(calibration(scored), 'confidence', 'accuracy')
    return {
        'tiles': _tiles(results, calibrated['error'], views),
        'calibration': calibrated,
        'scaling': scaling_section(results),
        **_matrix(results, counts),
        'confused': _confused(results, counts),
        'accuracies': _accuracies(results),
        'mistakes': _mistakes(scored, mistakes),
        'views': views,
        'data': _data(results, frames),
    }


def _data(results: TestResults, frames: int) -> dict[str, Any]:
    predicted = np.eye(len(results.classes), dtype=bool)[results.predicted]
    return video_data(results, results.probabilities, predicted, errors_of(results), frames)


def _matrix(results: TestResults, counts: np.ndarray) -> dict[str, Any]:
    """Return the confusion matrix: a table of counts and fractions, or a picture."""
    number = len(results.classes)
    if number <= MOST_CLASSES_LINKED:
        parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        rows = [list(zip(*row, strict=True)) for row in zip(counts.tolist(), parts, strict=True)]
        return {'matrix': rows, 'matrix_names': results.classes}
    named = number <= MOST_CLASSES_NAMED
    picture = drawn(
        lambda path: (
            draw_confusion(counts, results.classes, path) if named else draw_heat_map(counts, path)
        )
    )
    return {'matrix': None, 'confusion': picture, 'heat_map': not named}


def _tiles(results: TestResults, error: str, views: dict[str, Any] | None) -> dict[str, str]:
    k = min(5, len(results.classes))
    tiles = {
        'top-1 accuracy': percent(top_k(results, 1), 2),
        f'top-{k} accuracy': percent(top_k(results, k), 2),
        'mean class accuracy': percent(float(np.nanmean(class_accuracy(results))), 2),
        'calibration error': error,
        'videos': f'{len(results.labels):,}',
        **failed_tiles(results),
    }
    if views is not None:
        tiles['all views agree'] = percent(views['found'].agrees.mean())
    return tiles


def _confused(results: TestResults, counts: np.ndarray) -> list[tuple[str, str, int, int, int]]:
    """Return label, predicted class, count and both indices of the most frequent confusions."""
    wrong = counts - np.diag(np.diag(counts))
    pairs = np.argwhere(wrong)[np.argsort(-wrong[wrong > 0], kind='stable')][:10]
    return [
        (results.classes[i], results.classes[j], int(wrong[i, j]), int(i), int(j)) for i, j in pairs
    ]


def _accuracies(results: TestResults) -> list[tuple[str, float, str, int]]:
    """Return the accuracy of each class that has videos, the worst first."""
    accuracy = class_accuracy(results)
    counts = np.bincount(results.labels, minlength=len(results.classes))
    order = [i for i in np.argsort(accuracy, kind='stable') if counts[i]]
    return [(results.classes[i], float(accuracy[i]), f'of {counts[i]:,}', int(i)) for i in order]


def _mistakes(results: TestResults, number: int) -> list[dict[str, object]]:
    wrong = np.flatnonzero(results.predicted != results.labels)
    chosen = wrong[np.argsort(-results.confidence[wrong], kind='stable')][:number]
    return [
        video_figure(
            results,
            i,
            predicted=results.classes[results.predicted[i]],
            confidence=results.confidence[i],
            label=results.classes[results.labels[i]],
        )
        for i in chosen
    ]


def _views(results: TestResults, number: int) -> dict[str, Any] | None:
    if results.view_scores is None:
        return None
    found = view_agreement(results.view_scores, results.labels, results.predicted)
    figures = [
        video_figure(
            results,
            i,
            votes=', '.join(f'{results.classes[c]} ×\u2009{n}' for c, n in found.votes(i)),
            fused=results.classes[found.fused[i]],
            label=results.classes[found.labels[i]],
            overlap=found.overlap[i],
        )
        for i in found.least(number)
    ]
    bars = view_bars(found.accuracy, found.fused_accuracy)
    return {'found': found, 'bars': bars, 'figures': figures}
