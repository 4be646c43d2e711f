# UCF101, the first of its three splits, as tools/data/prepare.py ucf101 prepares it.
_base_ = 'videos.py'

num_classes = 101
metainfo = dict(classes='data/ucf101/classes.txt')  # one name per line
train_dataloader = dict(
    dataset=dict(
        ann_file='data/ucf101/ucf101_train_split_1_videos.txt',
        data_prefix=dict(video='data/ucf101/videos'),
        metainfo=metainfo,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='data/ucf101/ucf101_val_split_1_videos.txt',
        data_prefix=dict(video='data/ucf101/videos'),
        metainfo=metainfo,
    )
)
test_dataloader = dict(
    dataset=dict(
        ann_file='data/ucf101/ucf101_val_split_1_videos.txt',
        data_prefix=dict(video='data/ucf101/videos'),
        metainfo=metainfo,
    )
)
