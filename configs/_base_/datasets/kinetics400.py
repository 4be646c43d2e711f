# Kinetics-400, as tools/data/prepare.py kinetics prepares it.
_base_ = 'videos.py'

num_classes = 400
metainfo = dict(classes='data/kinetics400/classes.txt')  # one name per line
train_dataloader = dict(
    dataset=dict(
        ann_file='data/kinetics400/kinetics400_train_list_videos.txt',
        data_prefix=dict(video='data/kinetics400/videos_train'),
        metainfo=metainfo,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='data/kinetics400/kinetics400_val_list_videos.txt',
        data_prefix=dict(video='data/kinetics400/videos_val'),
        metainfo=metainfo,
    )
)
test_dataloader = dict(
    dataset=dict(
        ann_file='data/kinetics400/kinetics400_val_list_videos.txt',
        data_prefix=dict(video='data/kinetics400/videos_val'),
        metainfo=metainfo,
    )
)
