"""As timesformer_divST_1xb8-8x16x1-20e_your-own-rgb, with depth as a fourth channel.

The depth of run.mp4 is in run_depth.npy, in the same folder: an array (frames, height, width, 1) of
uint8, of as many frames and pixels as the video. The first layer gets the pretrained weights of R,
G, B and R again, times 3/4. docs/datasets/channels.md.

Train:  python tools/data/prepare.py folder VIDEOS --out data/your_own
        python tools/train.py timesformer_divST_1xb8-8x16x1-20e_your-own-rgb-depth --auto-scale-lr
Test:   python tools/test.py timesformer_divST_1xb8-8x16x1-20e_your-own-rgb-depth CHECKPOINT
Cost:   121M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of matrices alone; layer-wise learning rates.
Expect: not measured; it depends on your videos.
"""

_base_ = 'timesformer_divST_1xb8-8x16x1-20e_your-own-rgb.py'

data_preprocessor = dict(mean=[127.5] * 4, std=[127.5] * 4)
model = dict(
    backbone=dict(in_channels=4),
    data_preprocessor=data_preprocessor,
)
# Right after decoding, so that both are resized, cropped and mirrored alike
_depth = dict(type='mmtimesformer.AppendChannels', suffix='_depth.npy')
train_pipeline = [*_base_.train_pipeline[:3], _depth, *_base_.train_pipeline[3:]]
val_pipeline = [*_base_.val_pipeline[:3], _depth, *_base_.val_pipeline[3:]]
test_pipeline = [*_base_.test_pipeline[:3], _depth, *_base_.test_pipeline[3:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
