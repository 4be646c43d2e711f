"""Results become pictures; the only part that needs matplotlib (MMEngine brings it)."""

from mmtimesformer.analysis.metrics import TestResults
from mmtimesformer.analysis.predictions import read_predictions, top1
from mmtimesformer.analysis.test_results import read_test_results
from mmtimesformer.visualization.confusion import confusion_matrix, draw_confusion
from mmtimesformer.visualization.film_strips import draw_clips
from mmtimesformer.visualization.report import write_report
from mmtimesformer.visualization.scheme_comparison import SchemeResult, draw_schemes
from mmtimesformer.visualization.training import draw_training, read_training

__all__ = [
    'SchemeResult',
    'TestResults',
    'confusion_matrix',
    'draw_clips',
    'draw_confusion',
    'draw_schemes',
    'draw_training',
    'read_predictions',
    'read_test_results',
    'read_training',
    'top1',
    'write_report',
]
