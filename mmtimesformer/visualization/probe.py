"""Draw the accuracy of a probe against the number of clips of each class."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmtimesformer.visualization.figures import BLUE, GREY, INK, picture, shown_title

NAMES = {
    'top1': 'top-1 accuracy (%)',
    'mean_average_precision': 'mean average precision (%)',
}


def draw_clips_per_class(
    points: Mapping[int, Sequence[float]],
    path: str | Path,
    *,
    metric: str,
    chance: float = math.nan,
    skipped: Mapping[int, str] | None = None,
    setting: str = '',
    title: str = '',
) -> None:
    """Draw the mean score and each draw by the number of clips of each class.

    Args:
        points: By number of clips, the score of each draw, 0 to 1.
        path: The PNG file.
        metric: What the scores are.
        chance: The score of guessing, drawn as a line; NaN for none.
        skipped: Numbers of clips without a score, and why; stated below.
        setting: The regularisation of all probes and where it comes from; stated above.
        title: Stands above.

    Raises:
        ValueError: There is no score.
    """
    if not points:
        raise ValueError('there is no score to draw; give more clips of each class')
    sizes = sorted(points)
    rows = [100 * np.asarray(points[size]) for size in sizes]
    places = range(len(sizes))
    with picture(path, 5.4, 3.4) as (_, axes):
        for place, row in zip(places, rows, strict=True):
            axes.scatter(np.full(len(row), place), row, s=14, color=BLUE, alpha=0.35, lw=0)
        means = [row.mean() for row in rows]
        spread = [row.std(ddof=1) if len(row) > 1 else 0 for row in rows]
        axes.errorbar(places, means, spread, color=BLUE, marker='o', ms=5, lw=1.4, capsize=4)
        for place, mean in zip(places, means, strict=True):
            axes.annotate(
                f'{mean:.0f}', (place, mean), xytext=(7, -3), textcoords='offset points',
                color=INK, fontsize=8, va='top',
            )  # fmt: skip
        if math.isfinite(chance):
            axes.axhline(100 * chance, color=GREY, lw=0.8, ls=':')
            axes.annotate(
                f'chance: {100 * chance:.0f} %', (0.99, 100 * chance + 1), color=GREY,
                xycoords=('axes fraction', 'data'), fontsize=7.5, ha='right', va='bottom',
            )  # fmt: skip
        axes.set_xticks(list(places), [str(size) for size in sizes])
        axes.set_xlim(-0.4, len(sizes) - 0.5)
        axes.set_ylim(0, 103)
        left_out = ', '.join(map(str, sorted(skipped or {})))
        note = f' (too few clips for {left_out})' if left_out else ''
        axes.set_xlabel(f'training clips per class{note}')
        axes.set_ylabel(NAMES.get(metric, metric))
        draws = len(rows[0])
        heading = title or f'{draws} draws, mean and standard deviation'
        axes.set_title('\n'.join(filter(None, [shown_title(heading), setting])), fontsize=9)
