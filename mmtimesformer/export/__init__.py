"""Export a trained model to ONNX, torch.export or TorchScript, without this package or its config.

Read in this order: ``graph`` (the exported module), ``metadata`` (stored in the file), ``writers``
(write and read each format), ``verify`` (compare the file with PyTorch).
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
