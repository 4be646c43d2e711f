"""Matplotlib style of all pictures, and how they are saved."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mmtimesformer.fileio.atomic import write_atomically
from mmtimesformer.terminal import safe_text

INK, GREY, FAINT = '#1f2933', '#7b8794', '#e4e7eb'
BLUE, ORANGE, GREEN, RED = '#3366aa', '#e08214', '#2a9d5c', '#c0392b'

LONGEST_LABEL, LONGEST_TITLE = 48, 100  # characters of text in a picture
# Fonts for characters that DejaVu lacks; the first installed one of each line is used.
FALLBACKS = (
    ('Noto Sans CJK SC', 'Noto Sans CJK JP', 'Noto Sans SC', 'Source Han Sans SC',
     'WenQuanYi Zen Hei', 'WenQuanYi Micro Hei', 'Droid Sans Fallback', 'PingFang SC',
     'Microsoft YaHei', 'Unifont'),
    ('Noto Sans Devanagari', 'Lohit Devanagari', 'FreeSans'),
)  # fmt: skip

STYLE: Any = {  # matplotlib's type for it lists every key
    'font.family': ['DejaVu Sans'],  # comes with matplotlib; see _fonts for what it lacks
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
    # Names of classes and files are text, also `$x_{$`, whatever is set in matplotlibrc.
    'text.parse_math': False,
    'text.usetex': False,
}


@contextmanager
def picture(
    path: str | Path,
    width: float,
    height: float,
    gap: float = 0.04,
    margin: float | None = None,
    **subplots: Any,
) -> Iterator[tuple[Figure, Any]]:
    """Open a figure in our style; it is saved as PNG at the end of the block.

    It is made without ``pyplot``, so without a window system and global state.

    Args:
        path: The picture.
        width: In inches.
        height: In inches.
        gap: Around each of the axes, in inches.
        margin: In inches; with it the picture is as large as what is drawn, so that nothing is cut
            off.
        **subplots: Arguments of matplotlib's ``Figure.subplots``.

    Yields:
        The figure, and the axes or array of axes of ``Figure.subplots``.
    """
    path = Path(path)
    with matplotlib.rc_context({**STYLE, 'font.family': _fonts()}), warnings.catch_warnings():
        # A character that no font here has is drawn as a box.
        warnings.filterwarnings('ignore', r'Glyph \d+ .* missing from')
        figure = Figure(
            figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=gap, h_pad=gap)
        )
        yield figure, figure.subplots(**subplots)
        with write_atomically(path) as partial:
            figure.savefig(
                partial, dpi=110, format='png', facecolor='white',
                bbox_inches=None if margin is None else 'tight', pad_inches=margin or 0,
            )  # fmt: skip


def shown_name(name: object) -> str:
    """Return the name of a class or file without control characters, shortened for a picture."""
    return safe_text(name, LONGEST_LABEL)


def shown_title(title: object) -> str:
    """Return a title without control characters, shortened for one line above a picture."""
    return safe_text(title, LONGEST_TITLE)


def font_file(text: str) -> str:
    """Return the file of the first font that has every character; DejaVu's if none has."""
    return _font_file(frozenset(map(ord, text)))


@lru_cache(maxsize=1024)
def _font_file(characters: frozenset[int]) -> str:
    files = [fontManager.findfont(name) for name in _fonts()]
    return next((file for file in files if characters <= _characters(file)), files[0])


@cache
def _characters(file: str) -> frozenset[int]:
    return frozenset(get_font(file).get_charmap())


@cache
def _fonts() -> list[str]:
    """Return DejaVu, and installed fonts for the characters that it lacks."""
    installed = {font.name for font in fontManager.ttflist}
    found = [next((name for name in line if name in installed), None) for line in FALLBACKS]
    return [*STYLE['font.family'], *filter(None, found)]
