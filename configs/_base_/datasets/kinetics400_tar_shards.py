# Kinetics-400 in tar shards, as tools/data/write_shards.py writes them.
#
# An index may be a URL too, 's3://bucket/kinetics400/shards_train/index.tsv', with
# storage_options=dict(...) next to ann_file for the options of its store.
_base_ = 'videos.py'

num_classes = 400
dataset_type = 'mmtimesformer.TarShardVideoDataset'
metainfo = dict(classes='data/kinetics400/classes.txt')  # one name per line
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        ann_file='data/kinetics400/shards_train/index.tsv',
        metainfo=metainfo,
    )
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        ann_file='data/kinetics400/shards_val/index.tsv',
        metainfo=metainfo,
    )
)
test_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        ann_file='data/kinetics400/shards_val/index.tsv',
        metainfo=metainfo,
    )
)
