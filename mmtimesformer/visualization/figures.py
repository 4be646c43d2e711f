"""The look that our pictures share, and how they are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK, GREY, FAINT = '#1f2933', '#7b8794', '#e4e7eb'
BLUE, ORANGE, GREEN, RED = '#3366aa', '#e08214', '#2a9d5c', '#c0392b'

STYLE: Any = {  # matplotlib's type for it lists every key
    'font.family': 'DejaVu Sans',  # comes with matplotlib
    'font.size': 9,
    'text.color': INK,
    'axes.labelcolor': INK,
    'axes.edgecolor': GREY,
    'axes.titlesize': 11,
    'axes.titlelocation': 'left',
    'axes.titlepad': 10,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'xtick.color': GREY,
    'ytick.color': GREY,
    'xtick.labelcolor': INK,
    'ytick.labelcolor': INK,
    'legend.frameon': False,
}


@contextmanager
def picture(
    path: str | Path, width: float, height: float, gap: float = 0.04, **subplots: Any
) -> Iterator[tuple[Figure, Any]]:
    """Open a figure in our style to draw into; at the end it is saved as PNG, whole or not at all.

    It is made without ``pyplot``, so no window system and no global state takes part.

    Args:
        path: The picture.
        width: In inches.
        height: In inches.
        gap: Around each of the axes, in inches.
        **subplots: Handed to matplotlib's ``Figure.subplots``.

    Yields:
        The figure and what ``Figure.subplots`` gives: axes, or an array of them.
    """
    path = Path(path)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=gap, h_pad=gap)
        )
        yield figure, figure.subplots(**subplots)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f'.{path.name}.partial')
        figure.savefig(partial, dpi=110, format='png', facecolor='white')
        partial.replace(path)
