"""The TimeSformer backbone. Needs only torch, einops and MMEngine.

Read in this order: ``embeddings`` (pixels to tokens), ``attention`` and ``ffn``, ``blocks`` (the
attention schemes), ``timesformer`` (the whole model). Then ``attention_capture`` and
``attention_maps`` (attention of a video), ``fused_linear`` and ``activation_checkpointing`` (speed
and memory), ``track_merging``, ``track_dropout``, ``track_selection`` and ``fewer_tokens`` (fewer
tokens than patches), ``strict_loading`` (refuses foreign weights).

Shape letters, used in every ``Shape:`` section and einops pattern::

    b  videos in the batch            h, w  patch rows, columns (pixels are H, W)
    t  frames in a clip               p     patches in a frame, p = h * w
    n  tokens in a sequence           d     embedding width
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
from mmtimesformer.models.track_merging import set_merge

__all__ = [
    'AttentionMaps',
    'FFN',
    'DividedSpaceTimeBlock',
    'JointSpaceTimeBlock',
    'SelfAttention',
    'SpaceOnlyBlock',
    'TimeSformer',
    'set_merge',
]
