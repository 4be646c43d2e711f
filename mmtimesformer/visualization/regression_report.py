"""The report of a regression test: errors, R², predicted against true numbers, largest errors."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.analysis.metrics import TestResults, target_errors
from mmtimesformer.visualization.figures import BLUE, GREY, picture
from mmtimesformer.visualization.report_parts import drawn, failed_tiles, video_figure
from mmtimesformer.visualization.report_videos import video_data

MOST_DRAWN = 16  # targets with a scatter plot


def sections(results: TestResults, mistakes: int, frames: int) -> dict[str, Any]:
    """Return what the page of a regression test shows."""
    scored = results.without_failed()
    mae, r2 = target_errors(scored)
    return {
        'tiles': _tiles(results, mae, r2),
        'rows': _rows(scored, mae, r2),
        'plots': [
            (results.classes[i], drawn(partial(_draw, scored, i)))
            for i in range(min(len(mae), MOST_DRAWN))
        ],
        'mistakes': _mistakes(scored, mistakes),
        'failed_note': 'They are left out of the errors and of the plots.',
        'data': video_data(
            results, results.scores, results.scores, relative_errors(results).max(axis=1), frames
        ),
    }


def _tiles(results: TestResults, mae: np.ndarray, r2: np.ndarray) -> dict[str, str]:
    tiles = {'mean absolute error': number(mae.mean()), 'R²': number(r2.mean())}
    if len(mae) > 1:
        tiles = {f'{name}, mean over targets': value for name, value in tiles.items()}
    videos = f'{len(results.labels):,}'
    return {**tiles, 'videos': videos, **failed_tiles(results)}


def _rows(results: TestResults, mae: np.ndarray, r2: np.ndarray) -> list[tuple[str, ...]]:
    """Return name, errors, and mean and deviation of the true numbers of each target."""
    values = mae, r2, results.labels.mean(axis=0), results.labels.std(axis=0)
    columns = ([number(value) for value in column] for column in values)
    return list(zip(results.classes, *columns, strict=True))


def _mistakes(results: TestResults, count: int) -> list[dict[str, object]]:
    """Return the videos with the largest errors, each error in deviations of its target."""
    errors = relative_errors(results)
    order = np.argsort(-errors.max(axis=1), kind='stable')[: max(0, count)]
    return [
        video_figure(
            results,
            int(i),
            values=[
                (results.classes[k], number(results.scores[i, k]), number(results.labels[i, k]))
                for k in np.argsort(-errors[i], kind='stable')[:4]
            ],
        )
        for i in order
    ]


def relative_errors(results: TestResults) -> np.ndarray:
    """Return the absolute errors, each in standard deviations of the true numbers of its target.

    Shape:
        - errors: ``videos targets``
    """
    spread = results.labels.std(axis=0)
    return np.asarray(np.abs(results.scores - results.labels) / np.where(spread > 0, spread, 1))


def number(value: float) -> str:
    """Write a number with four digits; ``n/a`` for NaN."""
    return f'{value:.4g}' if np.isfinite(value) else 'n/a'


def _draw(results: TestResults, target: int, path: Path) -> None:
    """Draw predicted against true numbers of a target as a PNG."""
    true, predicted = results.labels[:, target], results.scores[:, target]
    ends = [float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))]
    with picture(path, 4.2, 3.6) as (_, axes):
        axes.plot(ends, ends, color=GREY, lw=0.8, ls=':')
        axes.scatter(true, predicted, s=14, color=BLUE, alpha=0.6, lw=0)
        axes.set_xlabel('true')
        axes.set_ylabel('predicted')
