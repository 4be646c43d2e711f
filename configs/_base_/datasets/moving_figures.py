# Moving Figures, docs/gallery.md: 8 frames, 3 apart, of the 24 of 2.4 seconds; 128 x 96 pixels.
#
# Training: a random crop, and its mirror image half of the time. Validation: the centre crop.
# Test: three crops along the long side. A clip is sampled from its first frame to its last one.
# Two classes of one scene are in one batch; see PairedSampler.
dataset_type = 'mmtimesformer.VideoDataset'
data_root = 'data/moving_figures/videos_train'
data_root_val = 'data/moving_figures/videos_val'
ann_file_train = 'data/moving_figures/train.txt'
ann_file_val = 'data/moving_figures/val.txt'
ann_file_test = ann_file_val
metainfo = dict(classes='data/moving_figures/classes.txt')  # one name per line

train_pipeline = [
    dict(type='mmtimesformer.VideoInit', reader='pyav'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=3, num_clips=1),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.RandomCrop', size=96),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
val_pipeline = [
    dict(type='mmtimesformer.VideoInit', reader='pyav'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=3, num_clips=1, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, 96)),
    dict(type='mmaction.CenterCrop', crop_size=96),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='mmtimesformer.VideoInit', reader='pyav'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=3, num_clips=1, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, 96)),
    dict(type='mmaction.ThreeCrop', crop_size=96),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='mmtimesformer.PairedSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        ann_file=ann_file_train,
        data_prefix=dict(video=data_root),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=40,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        ann_file=ann_file_val,
        data_prefix=dict(video=data_root_val),
        metainfo=metainfo,
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=20,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        ann_file=ann_file_test,
        data_prefix=dict(video=data_root_val),
        metainfo=metainfo,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)

val_evaluator = dict(type='mmaction.AccMetric')
test_evaluator = val_evaluator
