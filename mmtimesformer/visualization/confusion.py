"""Which class was taken for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmtimesformer.visualization.figures import FAINT, INK, picture, shown_name, shown_title


def confusion_matrix(labels: np.ndarray, guesses: np.ndarray, num_classes: int) -> np.ndarray:
    """Count how often each class was taken for each.

    Returns:
        Counts; row ``i``, column ``j`` is the number of videos of class ``i`` taken for ``j``.

    Shape:
        - labels, guesses: ``videos``, whole numbers from 0
        - counts: ``classes classes``

    Raises:
        ValueError: A label or a guess is not below ``num_classes``.
    """
    for name, values in (('label', labels), ('guess', guesses)):
        if len(values) and not 0 <= min(values) <= max(values) < num_classes:
            raise ValueError(
                f'the {name}s {min(values)}..{max(values)} do not fit {num_classes} classes; '
                'give the class names that the videos were labelled with'
            )
    counts = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(counts, (labels, guesses), 1)
    return counts


def draw_confusion(
    counts: np.ndarray, classes: Sequence[str], path: str | Path, title: str = ''
) -> None:
    """Draw a confusion matrix as a PNG: colour is the share of a row, the number is a count.

    Args:
        counts: From :func:`confusion_matrix`.
        classes: Names, in the order of the labels.
        path: The picture.
        title: Said above the accuracy.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [shown_name(name) for name in classes]
    side = 2.4 + 0.48 * len(classes)
    with picture(path, side + 0.5, side) as (figure, axes):
        image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
        for row, column in np.ndindex(*counts.shape):
            if counts[row, column]:
                axes.text(
                    column,
                    row,
                    str(counts[row, column]),
                    ha='center',
                    va='center',
                    color='white' if shares[row, column] > 0.5 else INK,
                )
        axes.set_xticks(range(len(classes)), names, rotation=40, ha='right', rotation_mode='anchor')
        axes.set_yticks(range(len(classes)), names)
        axes.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        axes.grid(which='minor', color=FAINT, linewidth=0.8)
        axes.tick_params(which='both', length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel('predicted')
        axes.set_ylabel('true')
        right, videos = int(counts.trace()), int(counts.sum())
        verdict = f'{right} of {videos} right: top-1 {100 * right / max(videos, 1):.2f} %'
        axes.set_title('\n'.join(filter(None, [shown_title(title), verdict])))
        bar = figure.colorbar(
            image, ax=axes, fraction=0.046, pad=0.03, label='share of the true class'
        )
        bar.outline.set_visible(False)
