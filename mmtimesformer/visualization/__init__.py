"""Results become pictures; the only part that needs matplotlib (MMEngine brings it)."""

from mmtimesformer.analysis.predictions import read_predictions, top1
from mmtimesformer.analysis.test_results import read_outcome
from mmtimesformer.visualization.confusion import confusion_matrix, draw_confusion
from mmtimesformer.visualization.film_strips import draw_clips
from mmtimesformer.visualization.report import Outcome, write_report
from mmtimesformer.visualization.scheme_comparison import SchemeResult, draw_schemes
from mmtimesformer.visualization.training import draw_training, read_training

__all__ = [
    'SchemeResult',
    'Outcome',
    'confusion_matrix',
    'draw_clips',
    'draw_confusion',
    'draw_schemes',
    'draw_training',
    'read_predictions',
    'read_outcome',
    'read_training',
    'top1',
    'write_report',
]
