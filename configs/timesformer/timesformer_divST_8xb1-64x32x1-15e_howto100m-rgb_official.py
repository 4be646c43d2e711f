"""TimeSformer with 64 frames of 448 pixels on HowTo100M, long-term task classification.

Train:  bash tools/dist_train.sh timesformer_divST_8xb1-64x32x1-15e_howto100m-rgb_official 8
        python tools/train.py timesformer_divST_8xb1-64x32x1-15e_howto100m-rgb_official --accumulate
Test:   python tools/test.py timesformer_divST_8xb1-64x32x1-15e_howto100m-rgb_official CHECKPOINT
Cost:   123M parameters; 6,855G multiply-adds for a clip of 64 x 448 x 448; a test takes 18 views.
Decay:  of all parameters, as in the original.
Expect: top-1 62.2 (quoted from the paper, not measured here).

The publishers gave scores and no config. Training starts from weights of Kinetics-400: name them by
`--cfg-options load_from=CHECKPOINT`. The number of test clips is the paper's; that each has three
crops, and the rest of the recipe, are those of Kinetics.
"""

_base_ = 'timesformer_divST_8xb8-8x32x1-15e_howto100m-rgb_official.py'

# 64 frames, 32 apart, of 448 x 448 pixels; one video per GPU, gradients of 8 accumulated
model = dict(
    backbone=dict(num_frames=64, img_size=448),
    test_cfg=dict(max_testing_views=1),  # at a time
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(clip_len=64)
train_pipeline[3].update(scale_range=(448, 512))
train_pipeline[4].update(size=448)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(clip_len=64, num_clips=6)
test_pipeline[3].update(size=448)
test_pipeline[4].update(crop_size=448)
val_pipeline = train_pipeline
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(accumulative_counts=8)
