# Something-Something-V2 by the protocol of the official TimeSformer code: 8 frames, one of each
# eighth of the video, BGR.
#
# Training: a random frame of each segment, short side 256 to 320 with small ones more often, a
# random crop of 224. Nothing is flipped: "from left to right" would become a lie.
# Validation: the middle frames, cropped as in training, so its scores jump.
# Test: the middle frames, short side 224, three crops along the long side.
# docs/protocols.md shows how this differs from the other protocols.
protocol = 'ssv2-official'

data_preprocessor = dict(
    type='mmaction.ActionDataPreprocessor',
    mean=[114.75, 114.75, 114.75],  # 0.45 of 255
    std=[57.375, 57.375, 57.375],  # 0.225 of 255
    # NOTE: this swaps red and blue. Frames come as RGB, and the official weights were trained on
    # BGR: that code reads with OpenCV, and its switch to RGB does nothing for this model.
    to_rgb=True,
    format_shape='NCTHW',
)
fusion = dict(type='mmtimesformer.TimeSformerHead', average_clips='sum')  # over views: of logits

train_pipeline = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmtimesformer.SegmentSampleFrames', clip_len=8),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmtimesformer.ShortSideJitter', scale_range=(256, 320), inverse_uniform=True),
    dict(type='mmaction.RandomCrop', size=224),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs'),
]
val_pipeline = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmtimesformer.SegmentSampleFrames', clip_len=8, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmtimesformer.ShortSideJitter', scale_range=(256, 320), inverse_uniform=True),
    dict(type='mmaction.RandomCrop', size=224),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmtimesformer.SegmentSampleFrames', clip_len=8, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmtimesformer.ShortSideResize', size=224),
    dict(type='mmtimesformer.UniformCrops', crop_size=224, num_crops=3),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs'),
]
