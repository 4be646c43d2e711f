# Diving-48 (V2), as tools/data/prepare.py diving48 prepares it.
_base_ = 'videos.py'

num_classes = 48
metainfo = dict(classes='data/diving48/classes.txt')  # one name per line
train_dataloader = dict(
    dataset=dict(
        ann_file='data/diving48/diving48_train_list_videos.txt',
        data_prefix=dict(video='data/diving48/videos'),
        metainfo=metainfo,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='data/diving48/diving48_val_list_videos.txt',
        data_prefix=dict(video='data/diving48/videos'),
        metainfo=metainfo,
    )
)
test_dataloader = dict(
    dataset=dict(
        ann_file='data/diving48/diving48_val_list_videos.txt',
        data_prefix=dict(video='data/diving48/videos'),
        metainfo=metainfo,
    )
)
