"""A tiny TimeSformer with space-only attention, from scratch on Moving Shapes.

Train:  python tools/data/moving_shapes.py --out data/moving_shapes
        python tools/train.py timesformer_spaceOnly-tiny_moving-shapes
        (both, the test and its pictures: make demo, or make demo-attention for all schemes)
Test:   python tools/test.py timesformer_spaceOnly-tiny_moving-shapes CHECKPOINT
Cost:   0.12M parameters, a few minutes on 2 CPU cores.
Expect: top-1 of at most 50: the order of frames has no effect, so it learns the axis of a
        motion but not its direction (measured in docs/moving_shapes.md).
"""

_base_ = 'timesformer_divST-tiny_moving-shapes.py'

model = dict(backbone=dict(attention_type='space_only'))
