r"""TimeSformer-HR with divided space-time attention on Kinetics-400, by the official protocol.

Train:  bash tools/dist_train.sh timesformer_divST-HR_8xb1-16x16x1-15e_kinetics400-rgb_official 8
        python tools/train.py timesformer_divST-HR_8xb1-16x16x1-15e_kinetics400-rgb_official \
            --accumulate
Test:   python tools/test.py timesformer_divST-HR_8xb1-16x16x1-15e_kinetics400-rgb_official \
            CHECKPOINT
Cost:   122M parameters; 1,703G multiply-adds for a clip of 16 x 448 x 448; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 79.6, top-5 94.0 (quoted from the official model zoo, not measured here).
"""

_base_ = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_official.py'

# 16 frames, 16 apart, of 448 x 448 pixels; one video per GPU, gradients of 8 accumulated
model = dict(backbone=dict(num_frames=16, img_size=448))
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(clip_len=16, frame_interval=16)
train_pipeline[3].update(scale_range=(448, 512))
train_pipeline[4].update(size=448)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(clip_len=16, frame_interval=16)
test_pipeline[3].update(size=448)
test_pipeline[4].update(crop_size=448)
val_pipeline = train_pipeline
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(accumulative_counts=8)
