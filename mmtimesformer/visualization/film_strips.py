"""Draw clips as film strips: a row of frames for each."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmtimesformer.visualization.figures import picture, shown_name


def draw_clips(clips: Mapping[str, np.ndarray], path: str | Path, columns: int = 8) -> None:
    """Draw clips as a PNG, a row each, time from left to right.

    Args:
        clips: Name and frames, each ``(t, H, W, 3)`` of uint8 and all of one size.
        path: The picture.
        columns: Evenly spaced frames of a row.
    """
    height, width = next(iter(clips.values())).shape[1:3]
    size = 1.4 + columns, len(clips) * 1.02 * height / width
    rows = {'nrows': len(clips), 'ncols': columns, 'squeeze': False}
    with picture(path, *size, gap=0.01, **rows) as (_, grid):
        for row, (name, frames) in zip(grid, clips.items(), strict=True):
            chosen = np.linspace(0, len(frames) - 1, columns).round().astype(int)
            for axes, frame in zip(row, frames[chosen], strict=True):
                axes.imshow(frame, interpolation='nearest', aspect='auto')
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
            row[0].set_ylabel(shown_name(name), rotation=0, ha='right', va='center')
