# HMDB51, the first of its three splits, as tools/data/prepare.py hmdb51 prepares it.
_base_ = 'videos.py'

num_classes = 51
metainfo = dict(classes='data/hmdb51/classes.txt')  # one name per line
train_dataloader = dict(
    dataset=dict(
        ann_file='data/hmdb51/hmdb51_train_split_1_videos.txt',
        data_prefix=dict(video='data/hmdb51/videos'),
        metainfo=metainfo,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='data/hmdb51/hmdb51_val_split_1_videos.txt',
        data_prefix=dict(video='data/hmdb51/videos'),
        metainfo=metainfo,
    )
)
test_dataloader = dict(
    dataset=dict(
        ann_file='data/hmdb51/hmdb51_val_split_1_videos.txt',
        data_prefix=dict(video='data/hmdb51/videos'),
        metainfo=metainfo,
    )
)
