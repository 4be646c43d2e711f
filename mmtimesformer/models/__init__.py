"""The paper: tokens in, tokens out. Needs torch, einops and MMEngine, nothing else.

Read in this order: ``embeddings`` (pixels become tokens), ``attention`` and ``ffn`` (what is done
to tokens), ``blocks`` (who may look at whom), ``timesformer`` (all of it, end to end);
``attention_maps`` for who did look at whom, ``folding`` and ``recomputation`` for what is not
computed, or twice.

The letters of shapes, used in every ``Shape:`` section and einops pattern::

    b  videos in the batch            h, w  patch rows, columns (pixels are H, W)
    t  frames in a clip               p     patches in a frame, p = h * w
    n  tokens that lie together       d     embedding width
    heads, c  attention heads, channels per head; d = heads * c
    token order: class token first; divided: frame by frame, b t (1+p); joint: b (1 + p*t), time
    fastest; space-only: (b t) (1+p)

A *track* is one patch location followed through time; a *frame* is all patches of one instant.
"""

from mmtimesformer.models.attention import SelfAttention
from mmtimesformer.models.attention_maps import AttentionMaps
from mmtimesformer.models.blocks import (
    DividedSpaceTimeBlock,
    JointSpaceTimeBlock,
    SpaceOnlyBlock,
)
from mmtimesformer.models.ffn import FFN
from mmtimesformer.models.timesformer import TimeSformer

__all__ = [
    'AttentionMaps',
    'FFN',
    'DividedSpaceTimeBlock',
    'JointSpaceTimeBlock',
    'SelfAttention',
    'SpaceOnlyBlock',
    'TimeSformer',
]
