# Something-Something-V2, as tools/data/prepare.py ssv2 prepares it.
_base_ = 'videos.py'

num_classes = 174
metainfo = dict(classes='data/sthv2/classes.txt')  # one name per line
train_dataloader = dict(
    dataset=dict(
        ann_file='data/sthv2/sthv2_train_list_videos.txt',
        data_prefix=dict(video='data/sthv2/videos'),
        metainfo=metainfo,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='data/sthv2/sthv2_val_list_videos.txt',
        data_prefix=dict(video='data/sthv2/videos'),
        metainfo=metainfo,
    )
)
test_dataloader = dict(
    dataset=dict(
        ann_file='data/sthv2/sthv2_val_list_videos.txt',
        data_prefix=dict(video='data/sthv2/videos'),
        metainfo=metainfo,
    )
)
