"""TimeSformer-B fine-tuned on your own videos from weights of Kinetics-400: for small data sets.

Copy this file and configs/_base_/datasets/your_own.py, and change the three lines there.

Train:  python tools/data/prepare.py folder VIDEOS --out data/your_own
        python tools/train.py timesformer_divST_1xb8-8x16x1-20e_your-own-rgb --auto-scale-lr
Test:   python tools/test.py timesformer_divST_1xb8-8x16x1-20e_your-own-rgb CHECKPOINT
Cost:   121M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of matrices alone; layer-wise learning rates.
Expect: not measured; it depends on your videos.

Videos where left and right differ ("turns left") must not be mirrored: take Flip out of the
train_pipeline. Very few videos? See ..._mix.py in this folder.
"""

_base_ = [
    '../_base_/models/timesformer_base.py',
    '../_base_/datasets/your_own.py',
    '../_base_/protocols/kinetics_mmaction2.py',
    '../_base_/schedules/adamw_20e_finetune.py',
    '../_base_/default_runtime.py',
]

custom_imports = dict(imports=['mmtimesformer'], allow_failed_imports=False)

# MMAction2's weights, so MMAction2's protocol; but clips are 16 frames apart, and of videos shorter
# than the clip the last frame is repeated
load_from = (
    'https://download.openmmlab.com/mmaction/v1.0/recognition/timesformer/'
    'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb/'
    'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_20220815-a4d0d01f.pth'
)
model = dict(
    backbone=dict(init_cfg=None),
    cls_head=dict(num_classes=_base_.num_classes, label_smooth_eps=0.1, **_base_.fusion),
    data_preprocessor=_base_.data_preprocessor,
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(frame_interval=16, out_of_bound_opt='repeat_last')
val_pipeline = _base_.val_pipeline
val_pipeline[1].update(frame_interval=16, out_of_bound_opt='repeat_last')
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(frame_interval=16, out_of_bound_opt='repeat_last')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
