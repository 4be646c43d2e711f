"""Heads: classification (linear, k-NN, attentive) and regression; ways to fuse several views.

It needs MMAction2, so ``import mmtimesformer`` does not import it. A config imports it:
``custom_imports = dict(imports=['mmtimesformer', 'mmtimesformer.heads'])``.
"""

from mmtimesformer.heads.classification import TimeSformerHead
from mmtimesformer.heads.fusion import FUSIONS
from mmtimesformer.heads.probes import AttentiveHead, KNNHead
from mmtimesformer.heads.regression import RegressionHead, ScaledLinear

__all__ = [
    'FUSIONS',
    'AttentiveHead',
    'KNNHead',
    'RegressionHead',
    'ScaledLinear',
    'TimeSformerHead',
]
