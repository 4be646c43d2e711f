r"""PP-TimeSformer of 16 frames on Kinetics-400, for the weights that PaddleVideo distilled.

To test and convert ppTimeSformer_k400_16f_distill.pdparams of PaddleVideo's model zoo. PaddleVideo
published neither the teacher nor the recipe: trained by this config, it learns from labels alone.

Train:  bash tools/dist_train.sh pp-timesformer_divST_8xb8-16x32x1-20e_kinetics400-rgb_distill 8
        python tools/train.py pp-timesformer_divST_8xb8-16x32x1-20e_kinetics400-rgb_distill \
            --accumulate
Test:   python tools/test.py pp-timesformer_divST_8xb8-16x32x1-20e_kinetics400-rgb_distill \
            ppTimeSformer_k400_16f_distill.pdparams
Cost:   122M parameters; 392G multiply-adds for a clip of 16 x 224 x 224; a test takes 3 views.
Decay:  7e-5; none on class token, positions, times and the classifier's bias, as in the original.
Expect: top-1 79.44 (quoted from PaddleVideo's model zoo, not measured here).
"""

_base_ = 'pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb.py'

# 16 frames over a window of 16 x 32, as PaddleVideo tests it: 17 seconds, so that in a video of 10
# seconds the last 7 frames of the clip are the last of the video
model = dict(backbone=dict(num_frames=16))
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(clip_len=16)
val_pipeline = _base_.val_pipeline
val_pipeline[1].update(clip_len=16)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(clip_len=16)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
