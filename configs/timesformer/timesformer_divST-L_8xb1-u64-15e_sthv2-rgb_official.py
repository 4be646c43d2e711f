"""TimeSformer-L with divided space-time attention on SSv2, by the official protocol.

Train:  bash tools/dist_train.sh timesformer_divST-L_8xb1-u64-15e_sthv2-rgb_official 8
        python tools/train.py timesformer_divST-L_8xb1-u64-15e_sthv2-rgb_official --accumulate
Test:   python tools/test.py timesformer_divST-L_8xb1-u64-15e_sthv2-rgb_official CHECKPOINT
Cost:   121M parameters; 1,579G multiply-adds for a clip of 64 x 224 x 224; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 62.0, top-5 87.5 (quoted from the official model zoo, not measured here).
"""

_base_ = 'timesformer_divST_8xb8-u8-15e_sthv2-rgb_official.py'

# 64 frames, of 224 x 224 pixels; one video per GPU, gradients of 8 accumulated
model = dict(backbone=dict(num_frames=64))
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(clip_len=64)
val_pipeline = _base_.val_pipeline
val_pipeline[1].update(clip_len=64)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(clip_len=64)
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(accumulative_counts=8)
