# Moving Shapes, docs/moving_shapes.md: 8 frames, 2 apart, of the 21 of 2 seconds; 80 x 64 pixels.
#
# Training: a random clip and a random crop of 64. Validation: the middle clip and its centre crop.
# Test: the middle clip, three crops along the long side.
# A clip and its reverse are in one batch; see PairedSampler.
# PyAV opens and decodes files as small as these in half of decord's time.
# NOTE: no Flip. A mirrored `left` is a `right`, and a mirrored `clockwise` turns the other way.
# NOTE: the frames of a test (3, 5, ..., 17 of 0..20) read the same from both ends, so that a model
# blind to their order must predict the same for a clip and its reverse.
dataset_type = 'mmtimesformer.VideoDataset'
data_root = 'data/moving_shapes/videos_train'
data_root_val = 'data/moving_shapes/videos_val'
ann_file_train = 'data/moving_shapes/train.txt'
ann_file_val = 'data/moving_shapes/val.txt'
ann_file_test = ann_file_val
metainfo = dict(classes='data/moving_shapes/classes.txt')  # one name per line

train_pipeline = [
    dict(type='mmtimesformer.VideoInit', reader='pyav'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=2, num_clips=1),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.RandomCrop', size=64),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
val_pipeline = [
    dict(type='mmtimesformer.VideoInit', reader='pyav'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=2, num_clips=1, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, 64)),
    dict(type='mmaction.CenterCrop', crop_size=64),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='mmtimesformer.VideoInit', reader='pyav'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=2, num_clips=1, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, 64)),
    dict(type='mmaction.ThreeCrop', crop_size=64),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]

train_dataloader = dict(
    batch_size=16,
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
    batch_size=50,
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
