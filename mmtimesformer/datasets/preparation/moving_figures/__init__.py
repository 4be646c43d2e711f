"""*Moving Figures*: short videos of people-like figures, drawn by code, that do everyday actions.

==================  ============================================================================
file                what it does
==================  ============================================================================
:mod:`.skeleton`    a pose: from angles of the limbs to joints in metres
:mod:`.actions`     poses over time: walking, running, waving, ...
:mod:`.camera`      from metres to pixels
:mod:`.scenery`     places: ground, sky, walls, trees, buildings, light
:mod:`.drawing`     draws figures, balls, stools and shadows
:mod:`.clips`       clips and longer videos of several actions
:mod:`.data_set`    videos, annotation files and class names on disk
==================  ============================================================================

Everything is drawn from a seed by NumPy and OpenCV; nothing was filmed.
"""

from mmtimesformer.datasets.preparation.moving_figures.actions import CLASSES
from mmtimesformer.datasets.preparation.moving_figures.clips import draw_clip, draw_video
from mmtimesformer.datasets.preparation.moving_figures.data_set import (
    PAIRS,
    Settings,
    draw_pair,
    make_moving_figures,
)

__all__ = [
    'CLASSES',
    'PAIRS',
    'Settings',
    'draw_clip',
    'draw_pair',
    'draw_video',
    'make_moving_figures',
]
