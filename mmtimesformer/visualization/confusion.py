"""Draw a confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmtimesformer.visualization.figures import FAINT, INK, picture, shown_name, shown_title

CHARACTER = 0.075  # inches, about, of the names of classes


def draw_confusion(
    counts: np.ndarray, classes: Sequence[str], path: str | Path, title: str = ''
) -> None:
    """Draw a confusion matrix as a PNG: color is the fraction of a row, the number is a count.

    Args:
        counts: From :func:`~mmtimesformer.analysis.metrics.confusion_matrix`.
        classes: Names, in the order of the labels.
        path: The picture.
        title: Stands above the accuracy.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [shown_name(name) for name in classes]
    side = 2.4 + 0.48 * len(classes)
    longest = CHARACTER * max(map(len, names), default=0)
    with picture(path, side + longest, side + 0.6 * longest, margin=0.08) as (figure, axes):
        image = axes.imshow(fractions, cmap='Blues', vmin=0, vmax=1)
        for row, column in np.argwhere(counts):
            axes.text(
                column, row, str(counts[row, column]), ha='center', va='center',
                color='white' if fractions[row, column] > 0.5 else INK,
            )  # fmt: skip
        axes.set_xticks(range(len(classes)), names, rotation=40, ha='right', rotation_mode='anchor')
        axes.set_yticks(range(len(classes)), names)
        axes.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.grid(which='minor', color=FAINT, linewidth=0.8)
        axes.tick_params(which='both', length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel('predicted class')
        axes.set_ylabel('label')
        correct, videos = int(counts.trace()), int(counts.sum())
        accuracy = f'top-1 accuracy {100 * correct / max(videos, 1):.2f} % ({correct} of {videos})'
        axes.set_title('\n'.join(filter(None, [shown_title(title), accuracy])))
        bar = figure.colorbar(
            image, ax=axes, fraction=0.046, pad=0.03, label='fraction of the label'
        )
        bar.outline.set_visible(False)


def draw_heat_map(counts: np.ndarray, path: str | Path) -> None:
    """Draw a confusion matrix of many classes as a PNG, without names: color is the fraction.

    Args:
        counts: As for :func:`draw_confusion`.
        path: The picture.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with picture(path, 6.4, 5.6) as (figure, axes):
        image = axes.imshow(fractions, cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
        axes.set_xlabel('predicted class')
        axes.set_ylabel('label')
        figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label='fraction of the label')
