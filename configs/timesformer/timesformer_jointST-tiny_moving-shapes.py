"""A tiny TimeSformer with joint space-time attention, from scratch on Moving Shapes.

Train:  python tools/data/moving_shapes.py --out data/moving_shapes
        python tools/train.py timesformer_jointST-tiny_moving-shapes
        (both, the test and its pictures: make demo, or make demo-attention for all schemes)
Test:   python tools/test.py timesformer_jointST-tiny_moving-shapes CHECKPOINT
Cost:   0.12M parameters, a few minutes on 2 CPU cores.
Expect: top-1 57 with three crops (measured with seed 0; more in docs/moving_shapes.md).
"""

_base_ = 'timesformer_divST-tiny_moving-shapes.py'

model = dict(backbone=dict(attention_type='joint_space_time'))
