# Kinetics by MMAction2's protocol: 8 frames, 32 apart, RGB.
#
# Training: a random clip, short side 256 to 320, a random crop of 224, flipped half of the time.
# Validation: the middle clip and its centre crop. Test: the middle clip, three crops along the
# long side. Videos shorter than the clip's 256 frames are looped.
# docs/protocols.md shows how this differs from the other protocols.
protocol = 'mmaction2'

data_preprocessor = dict(
    type='mmaction.ActionDataPreprocessor',
    mean=[127.5, 127.5, 127.5],
    std=[127.5, 127.5, 127.5],
    to_rgb=False,  # frames come as RGB and stay so
    format_shape='NCTHW',
)
fusion = dict(average_clips='prob')  # over views: the mean of the softmax

train_pipeline = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=32, num_clips=1),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.RandomRescale', scale_range=(256, 320)),
    dict(type='mmaction.RandomCrop', size=224),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs'),
]
val_pipeline = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=32, num_clips=1, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, 256)),
    dict(type='mmaction.CenterCrop', crop_size=224),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=32, num_clips=1, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, 224)),
    dict(type='mmaction.ThreeCrop', crop_size=224),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs'),
]
