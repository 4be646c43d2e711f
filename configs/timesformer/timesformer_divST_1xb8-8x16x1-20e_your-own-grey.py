"""As timesformer_divST_1xb8-8x16x1-20e_your-own-rgb, with grey frames: one channel.

The first layer gets the sum of the pretrained weights over RGB. docs/datasets/channels.md.

Train:  python tools/data/prepare.py folder VIDEOS --out data/your_own
        python tools/train.py timesformer_divST_1xb8-8x16x1-20e_your-own-grey --auto-scale-lr
Test:   python tools/test.py timesformer_divST_1xb8-8x16x1-20e_your-own-grey CHECKPOINT
Cost:   121M parameters; 195G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of matrices alone; layer-wise learning rates.
Expect: not measured; it depends on your videos.
"""

_base_ = 'timesformer_divST_1xb8-8x16x1-20e_your-own-rgb.py'

model = dict(
    backbone=dict(in_channels=1),
    data_preprocessor=dict(mean=[127.5], std=[127.5]),
)
# After resizing: MMAction2's Resize takes the last axis off frames of one channel
_grey = dict(type='mmtimesformer.ToGrey')
train_pipeline = [*_base_.train_pipeline[:-2], _grey, *_base_.train_pipeline[-2:]]
val_pipeline = [*_base_.val_pipeline[:-2], _grey, *_base_.val_pipeline[-2:]]
test_pipeline = [*_base_.test_pipeline[:-2], _grey, *_base_.test_pipeline[-2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
