"""Draw results: reports, attention, confusion matrices, curves; with the matplotlib of MMEngine."""

from mmtimesformer.visualization.comparison_page import write_comparison
from mmtimesformer.visualization.confusion import draw_confusion
from mmtimesformer.visualization.film_strips import draw_clips
from mmtimesformer.visualization.report import write_report
from mmtimesformer.visualization.scheme_comparison import SchemeResult, draw_scheme_comparison
from mmtimesformer.visualization.training import draw_training, read_training

__all__ = [
    'SchemeResult',
    'draw_clips',
    'draw_confusion',
    'draw_scheme_comparison',
    'draw_training',
    'read_training',
    'write_comparison',
    'write_report',
]
