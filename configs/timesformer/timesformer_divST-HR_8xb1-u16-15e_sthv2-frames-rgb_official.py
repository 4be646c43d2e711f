"""TimeSformer-HR with divided space-time attention on frames of SSv2, by the official protocol.

Train:  bash tools/dist_train.sh timesformer_divST-HR_8xb1-u16-15e_sthv2-frames-rgb_official 8
Test:   python tools/test.py timesformer_divST-HR_8xb1-u16-15e_sthv2-frames-rgb_official CHECKPOINT
Cost:   122M parameters; 1,703G multiply-adds for a clip of 16 x 448 x 448; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 61.8, top-5 86.9 (quoted from the official model zoo, not measured here).
"""

_base_ = 'timesformer_divST-HR_8xb1-u16-15e_sthv2-rgb_official.py'

custom_imports = dict(imports=['mmtimesformer', 'mmtimesformer.heads'], allow_failed_imports=False)

# Frames and lists as the official loader reads them (docs/datasets/frames.md)
_lists = 'data/sthv2/annotations'
_frames = dict(
    type='mmtimesformer.FrameFolderDataset',
    label_file=f'{_lists}/something-something-v2-labels.json',
    data_prefix=dict(video='data/sthv2/frames'),
    fps=30,
)
_val = dict(
    ann_file=f'{_lists}/something-something-v2-validation.json',
    frame_list=f'{_lists}/val.csv',
    **_frames,
)
train_dataloader = dict(
    dataset=dict(
        ann_file=f'{_lists}/something-something-v2-train.json',
        frame_list=f'{_lists}/train.csv',
        **_frames,
    )
)
val_dataloader = dict(dataset=_val)
test_dataloader = dict(dataset=_val)
