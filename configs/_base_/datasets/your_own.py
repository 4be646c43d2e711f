# Your own videos, as tools/data/prepare.py folder prepares them: change the three lines below.
_base_ = 'videos.py'

num_classes = 10  # lines of data/your_own/classes.txt
data_root = 'data/your_own'  # --out of tools/data/prepare.py folder
video_root = 'data/your_own/videos'  # the folder of the videos, as it was given to the tool
metainfo = dict(classes=f'{data_root}/classes.txt')  # one name per line

train_dataloader = dict(
    dataset=dict(
        ann_file=f'{data_root}/train.txt', data_prefix=dict(video=video_root), metainfo=metainfo
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file=f'{data_root}/val.txt', data_prefix=dict(video=video_root), metainfo=metainfo
    )
)
test_dataloader = dict(
    dataset=dict(
        ann_file=f'{data_root}/val.txt', data_prefix=dict(video=video_root), metainfo=metainfo
    )
)
