# Kinetics by the protocol of the official TimeSformer code: 8 frames over a window of 256, RGB.
#
# Training: a random window, short side 256 to 320, a random crop of 224, flipped half of the time.
# Validation: the same, so its scores jump, and read about 4 points below a test's.
# Test: the window from frame 0, short side 224, three crops along the long side. Of videos shorter
# than the window the last frame is repeated.
# docs/protocols.md shows how this differs from the other protocols.
protocol = 'official'

data_preprocessor = dict(
    type='mmaction.ActionDataPreprocessor',
    mean=[114.75, 114.75, 114.75],  # 0.45 of 255
    std=[57.375, 57.375, 57.375],  # 0.225 of 255
    to_rgb=False,  # frames come as RGB and stay so
    format_shape='NCTHW',
)
fusion = dict(type='mmtimesformer.TimeSformerHead', average_clips='sum')  # over views: of logits

train_pipeline = [
    dict(type='mmtimesformer.VideoInit'),
    dict(
        type='mmtimesformer.WindowSampleFrames',
        clip_len=8,
        frame_interval=32,
        target_fps=30,
        out_of_bound='clamp',
    ),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmtimesformer.ShortSideJitter', scale_range=(256, 320)),
    dict(type='mmaction.RandomCrop', size=224),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs'),
]
val_pipeline = train_pipeline
test_pipeline = [
    dict(type='mmtimesformer.VideoInit'),
    dict(
        type='mmtimesformer.WindowSampleFrames',
        clip_len=8,
        frame_interval=32,
        num_clips=1,
        first='start',
        target_fps=30,
        out_of_bound='clamp',
        test_mode=True,
    ),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmtimesformer.ShortSideResize', size=224),
    dict(type='mmtimesformer.UniformCrops', crop_size=224, num_crops=3),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs'),
]
