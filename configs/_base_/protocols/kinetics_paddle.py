# Kinetics by PaddleVideo's protocol: as the official one but for two things.
#
# The three crops are MMAction2's (an odd pixel of the margin is given away), and views are fused by
# the mean of their logits, which ranks classes as their sum does.
# docs/protocols.md shows how this differs from the other protocols.
protocol = 'paddle'

data_preprocessor = dict(
    type='mmaction.ActionDataPreprocessor',
    mean=[114.75, 114.75, 114.75],  # 0.45 of 255
    std=[57.375, 57.375, 57.375],  # 0.225 of 255
    to_rgb=False,  # frames come as RGB and stay so
    format_shape='NCTHW',
)
fusion = dict(average_clips='score')  # over views: the mean of the logits

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
    dict(type='mmaction.ThreeCrop', crop_size=224),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs'),
]
