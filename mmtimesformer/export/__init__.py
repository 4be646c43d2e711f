"""A trained model leaves PyTorch: one file that needs neither this package nor its config.

Read in this order: ``graph`` (what is put into the file: clips in, scores out), ``facts`` (what the
file tells of itself), ``formats`` (how each kind of file is written and read back), ``checking``
(whether the file says what PyTorch says).
"""

from mmtimesformer.export.graph import ClipScores, clip_shape
from mmtimesformer.export.metadata import describe
from mmtimesformer.export.verify import TOLERANCE, Difference, compare
from mmtimesformer.export.writers import FORMATS, OPSET, require_onnx

__all__ = [
    'FORMATS',
    'OPSET',
    'TOLERANCE',
    'ClipScores',
    'Difference',
    'clip_shape',
    'compare',
    'describe',
    'require_onnx',
]
