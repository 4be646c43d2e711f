"""TimeSformer-B with divided space-time attention on frames of SSv2.

By the official protocol, from JPG frames: one frame of each eighth of the video, BGR.

Train:  bash tools/dist_train.sh timesformer_divST_8xb8-u8-15e_sthv2-frames-rgb_official 8
        python tools/train.py timesformer_divST_8xb8-u8-15e_sthv2-frames-rgb_official --accumulate
Test:   python tools/test.py timesformer_divST_8xb8-u8-15e_sthv2-frames-rgb_official CHECKPOINT
Cost:   121M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 59.1, top-5 85.6 (quoted from the official model zoo, not measured here).
"""

_base_ = 'timesformer_divST_8xb8-u8-15e_sthv2-rgb_official.py'

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
