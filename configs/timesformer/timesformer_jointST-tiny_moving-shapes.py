"""A tiny TimeSformer with joint space-time attention, from scratch on Moving Shapes.

Run:    make demo-attention, or as timesformer_divST-tiny_moving-shapes.py
Cost:   0.15M parameters, a few minutes on 2 CPU cores.
Expect: see docs/moving_shapes.md.
"""

_base_ = 'timesformer_divST-tiny_moving-shapes.py'

model = dict(backbone=dict(attention_type='joint_space_time'))
