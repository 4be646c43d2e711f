"""Draw the predictions of a timeline: the class of each moment, and scores over time."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mmtimesformer.inference import Prediction, Timeline
from mmtimesformer.inference.sliding_window import clock
from mmtimesformer.visualization.figures import FAINT, INK, picture, shown_name, shown_title

MOST_ROWS = 12
COLOURS = (
    '#3366aa', '#e08214', '#2a9d5c', '#c0392b', '#7b5ea7', '#00897b',
    '#b8860b', '#d1478c', '#5d6d7e', '#6b8e23', '#0097c4', '#a0522d',
)  # fmt: skip


def draw_timeline(timeline: Timeline, path: str | Path, title: str = '') -> None:
    """Draw a timeline as a PNG: a band of the best class above, the scores of classes below.

    Rows are the classes that are best at some moment, in order of time, at most :data:`MOST_ROWS`;
    if that is one class, the next best classes follow.

    Args:
        timeline: From :meth:`VideoClassifier.timeline`.
        path: The picture.
        title: Stands above it; the name of the video if empty.

    Raises:
        ValueError: The timeline has no moments.
    """
    if not timeline.moments:
        raise ValueError(f'the timeline of {timeline.video} has no moments to draw')
    predictions = [moment.prediction for moment in timeline.moments]
    names = {
        i: label for one in predictions for i, label in zip(one.indices, one.labels, strict=True)
    }
    winners = [_winners(one) for one in predictions]
    for one in winners:
        names |= one
    best = [one.indices for one in predictions]
    rows = _rows([one.all_scores for one in predictions], best, [list(one) for one in winners])
    colours = {names[i]: COLOURS[rank % len(COLOURS)] for rank, i in enumerate(rows)}
    scores = np.stack([one.all_scores[rows] for one in predictions], axis=1)
    probability = predictions[0].is_probability
    edges = _edges(timeline)
    heights = [0.55, 0.34 * len(rows) + 0.1]
    layout: Any = {'nrows': 2, 'ncols': 1, 'sharex': True, 'height_ratios': heights}
    with picture(path, 10, 1.5 + sum(heights), **layout) as (figure, (band, heatmap)):
        span = edges[-1] - edges[0]
        for segment in timeline.best_segments():
            length = segment.end - segment.start
            colour = colours.get(segment.label, FAINT)
            band.axvspan(segment.start, segment.end, color=colour, linewidth=0)
            name = shown_name(segment.label)
            if length > span * (0.0105 * len(name) + 0.01):
                middle = (segment.start + segment.end) / 2
                band.text(
                    middle, 0.5, name, ha='center', va='center', color='white',
                    fontweight='bold', clip_on=True,
                )  # fmt: skip
        band.set_ylim(0, 1)
        band.set_yticks([])
        band.spines[:].set_visible(False)
        band.tick_params(length=0)
        band.set_title(shown_title(title or Path(timeline.video).name))
        image = heatmap.pcolormesh(
            edges, np.arange(len(rows) + 1), scores, cmap='Blues',
            vmin=0 if probability else None, vmax=1 if probability else None,
        )  # fmt: skip
        heatmap.set_yticks(np.arange(len(rows)) + 0.5, [shown_name(names.get(i, i)) for i in rows])
        for tick, i in zip(heatmap.get_yticklabels(), rows, strict=True):
            tick.set_color(colours[names[i]] if i in names else INK)
        heatmap.invert_yaxis()
        heatmap.set_xlim(edges[0], edges[-1])
        heatmap.tick_params(axis='y', length=0)
        heatmap.spines[:].set_visible(False)
        heatmap.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 3, 5, 6, 10]))
        heatmap.xaxis.set_major_formatter(FuncFormatter(lambda x, _: clock(x).removesuffix('.0')))
        heatmap.set_xlabel(
            f'time; windows of {timeline.window:g} s, one every {timeline.stride:g} s'
            + (f'; {shown_title(timeline.note)}' if timeline.note else '')
        )
        what = 'probability' if probability else predictions[0].fusion
        figure.colorbar(
            image, ax=heatmap, label=what, fraction=0.03, pad=0.015
        ).outline.set_visible(False)


def _winners(prediction: Prediction) -> dict[int, str]:
    """Return the best class, or all labels of a multi-label prediction above its threshold."""
    order = np.argsort(-prediction.all_scores, kind='stable').tolist()
    labels = prediction.above_threshold or [prediction.top]
    return dict(zip(order, labels, strict=False))


def _rows(
    scores: list[np.ndarray], best: list[list[int]], winners: list[list[int]] | None = None
) -> list[int]:
    """Choose the classes to show: those that are best at some moment, the most frequent if many.

    Args:
        scores: Of each moment and class.
        best: The best few classes of each moment.
        winners: The predicted classes of each moment; the best one if not given.
    """
    wins = Counter(i for one in winners or [one[:1] for one in best] for i in one)
    longest = {i for i, _ in wins.most_common(MOST_ROWS)}
    rows = [i for i in wins if i in longest]
    if len(rows) == 1:
        others = np.argsort(-np.mean(scores, axis=0), kind='stable').tolist()
        listed = {i for one in best for i in one}
        rows += [i for i in others if i not in rows and i in listed][:4]
    return rows


def _edges(timeline: Timeline) -> list[float]:
    """Return the borders of the columns: half way between the centers of the windows."""
    centres = [(moment.start + moment.end) / 2 for moment in timeline.moments]
    inner = [(a + b) / 2 for a, b in pairwise(centres)]
    return [timeline.moments[0].start, *inner, timeline.moments[-1].end]
