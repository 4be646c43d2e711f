"""A tiny TimeSformer with divided space-time attention, from scratch on Moving Figures.

Train:  python tools/data/moving_figures.py --out data/moving_figures
        python tools/train.py timesformer_divST-tiny_moving-figures
Test:   python tools/test.py timesformer_divST-tiny_moving-figures CHECKPOINT
Cost:   0.16M parameters; 12,000 clips of 8 x 96 x 96, about 5 minutes on 2 CPU cores.
Expect: about 25 % top-1 on the centre crop after 20 epochs (measured with seed 0; chance is 10 %):
        too short a training, see docs/gallery.md.
"""

_base_ = [
    '../_base_/models/timesformer_tiny.py',
    '../_base_/datasets/moving_figures.py',
    '../_base_/schedules/adamw_moving_shapes.py',
    '../_base_/default_runtime.py',
]

custom_imports = dict(
    imports=['mmtimesformer', 'mmtimesformer.datasets'], allow_failed_imports=False
)

# 8 x 8 patches of 12 pixels: an arm is about one patch wide
model = dict(backbone=dict(img_size=96, patch_size=12), cls_head=dict(num_classes=10))

# 400 videos / 8 = 50 steps an epoch, 1,500 in all
train_cfg = dict(max_epochs=30, val_interval=10)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=3, end=30, convert_to_iter_based=True),
]

auto_scale_lr = dict(base_batch_size=8)

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(max_keep_ckpts=2, save_best=None),  # the last one is tested, not the best
    # Many small clips: sharing them by name takes a third of the time of file descriptors
    tensor_sharing=dict(type='mmtimesformer.TensorSharingHook', strategy='file_system'),
)
