"""TimeSformer-B with divided space-time attention on frames of SSv2.

By the official protocol, from JPG frames: one frame of each eighth of the video, BGR.

Train:  bash tools/dist_train.sh timesformer_divST_8xb8-u8-15e_sthv2-frames-rgb_official 8
        python tools/train.py timesformer_divST_8xb8-u8-15e_sthv2-frames-rgb_official --accumulate
Test:   python tools/test.py timesformer_divST_8xb8-u8-15e_sthv2-frames-rgb_official CHECKPOINT
Cost:   121M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 59.1, top-5 85.6 (quoted from the official model zoo, not measured here).
"""

_base_ = [
    'timesformer_divST_8xb8-u8-15e_sthv2-rgb_official.py',
    '../_base_/datasets/sthv2_frames.py',
]

custom_imports = dict(imports=['mmtimesformer', 'mmtimesformer.heads'], allow_failed_imports=False)

train_dataloader = dict(dataset=_base_.frames_train)
val_dataloader = dict(dataset=_base_.frames_val)
test_dataloader = dict(dataset=_base_.frames_val)
