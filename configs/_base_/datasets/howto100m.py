# HowTo100M, as tools/data/prepare.py howto100m prepares it.
_base_ = 'videos.py'

num_classes = 1059
metainfo = dict(classes='data/howto100m/classes.txt')  # one name per line
train_dataloader = dict(
    dataset=dict(
        ann_file='data/howto100m/howto100m_train_list_videos.txt',
        data_prefix=dict(video='data/howto100m/videos'),
        metainfo=metainfo,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='data/howto100m/howto100m_val_list_videos.txt',
        data_prefix=dict(video='data/howto100m/videos'),
        metainfo=metainfo,
    )
)
test_dataloader = dict(
    dataset=dict(
        ann_file='data/howto100m/howto100m_val_list_videos.txt',
        data_prefix=dict(video='data/howto100m/videos'),
        metainfo=metainfo,
    )
)
