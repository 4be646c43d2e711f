# Something-Something-V2 as folders of JPG frames, with the lists that the official loader reads
# (docs/datasets/frames.md). With these data sets a config of SSv2 videos becomes one of frames.
_lists = 'data/sthv2/annotations'
_frames = dict(
    type='mmtimesformer.FrameFolderDataset',
    label_file=f'{_lists}/something-something-v2-labels.json',
    data_prefix=dict(video='data/sthv2/frames'),
    fps=30,
)
frames_train = dict(
    ann_file=f'{_lists}/something-something-v2-train.json',
    frame_list=f'{_lists}/train.csv',
    **_frames,
)
frames_val = dict(
    ann_file=f'{_lists}/something-something-v2-validation.json',
    frame_list=f'{_lists}/val.csv',
    **_frames,
)
