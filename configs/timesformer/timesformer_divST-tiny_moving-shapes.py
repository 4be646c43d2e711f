"""A tiny TimeSformer with divided space-time attention, from scratch on Moving Shapes.

Train:  python tools/data/moving_shapes.py --out data/moving_shapes
        python tools/train.py timesformer_divST-tiny_moving-shapes
        (both, the test and its pictures: make demo, or make demo-attention for all schemes)
Test:   python tools/test.py timesformer_divST-tiny_moving-shapes CHECKPOINT
Cost:   0.16M parameters; 44,800 clips of 8 x 64 x 64, a few minutes on 2 CPU cores.
Expect: top-1 99.5 with three crops (measured with seed 0; more in docs/moving_shapes.md).
"""

_base_ = [
    '../_base_/models/timesformer_tiny.py',
    '../_base_/datasets/moving_shapes.py',
    '../_base_/schedules/adamw_moving_shapes.py',
    '../_base_/default_runtime.py',
]

custom_imports = dict(
    imports=['mmtimesformer', 'mmtimesformer.datasets'], allow_failed_imports=False
)

default_hooks = dict(
    logger=dict(interval=50),  # of 100 steps an epoch
    checkpoint=dict(max_keep_ckpts=2, save_best=None),  # the last one is tested, not the best
    # Many small clips: sharing them by name takes a third of the time of file descriptors
    tensor_sharing=dict(type='mmtimesformer.TensorSharingHook', strategy='file_system'),
)
