"""A tiny TimeSformer with space-only attention, from scratch on Moving Shapes.

Run:    make demo-attention, or as timesformer_divST-tiny_moving-shapes.py
Cost:   0.15M parameters, a few minutes on 2 CPU cores.
Expect: top-1 of at most 50: it cannot see the order of frames, and so it tells the axis of a
        motion but never its direction (measured in docs/moving_shapes.md).
"""

_base_ = 'timesformer_divST-tiny_moving-shapes.py'

model = dict(backbone=dict(attention_type='space_only'))
