"""TimeSformer-L with divided space-time attention on frames of SSv2, by the official protocol.

Train:  bash tools/dist_train.sh timesformer_divST-L_8xb1-u64-15e_sthv2-frames-rgb_official 8
Test:   python tools/test.py timesformer_divST-L_8xb1-u64-15e_sthv2-frames-rgb_official CHECKPOINT
Cost:   121M parameters; 1,579G multiply-adds for a clip of 64 x 224 x 224; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 62.0, top-5 87.5 (quoted from the official model zoo, not measured here).
"""

_base_ = [
    'timesformer_divST-L_8xb1-u64-15e_sthv2-rgb_official.py',
    '../_base_/datasets/sthv2_frames.py',
]

custom_imports = dict(imports=['mmtimesformer', 'mmtimesformer.heads'], allow_failed_imports=False)

train_dataloader = dict(dataset=_base_.frames_train)
val_dataloader = dict(dataset=_base_.frames_val)
test_dataloader = dict(dataset=_base_.frames_val)
