"""TimeSformer-HR with divided space-time attention on frames of SSv2, by the official protocol.

Train:  bash tools/dist_train.sh timesformer_divST-HR_8xb1-u16-15e_sthv2-frames-rgb_official 8
Test:   python tools/test.py timesformer_divST-HR_8xb1-u16-15e_sthv2-frames-rgb_official CHECKPOINT
Cost:   122M parameters; 1,703G multiply-adds for a clip of 16 x 448 x 448; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 61.8, top-5 86.9 (quoted from the official model zoo, not measured here).
"""

_base_ = [
    'timesformer_divST-HR_8xb1-u16-15e_sthv2-rgb_official.py',
    '../_base_/datasets/sthv2_frames.py',
]

custom_imports = dict(imports=['mmtimesformer', 'mmtimesformer.heads'], allow_failed_imports=False)

train_dataloader = dict(dataset=_base_.frames_train)
val_dataloader = dict(dataset=_base_.frames_val)
test_dataloader = dict(dataset=_base_.frames_val)
