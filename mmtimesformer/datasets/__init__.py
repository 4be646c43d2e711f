"""Files become clips: which frames, which crops. Needs MMAction2 and a video reader."""

from mmtimesformer.datasets.samplers import ClassBalancedSampler, PairedSampler
from mmtimesformer.datasets.transforms.channels import (
    AppendChannels,
    ArrayDecode,
    ArrayInit,
    ToGrey,
)
from mmtimesformer.datasets.transforms.decoding import Video, VideoDecode, VideoInit
from mmtimesformer.datasets.transforms.formatting import FormatClips
from mmtimesformer.datasets.transforms.frame_sampling import SegmentSampleFrames, WindowSampleFrames
from mmtimesformer.datasets.transforms.image_processor import ProcessorCrop, ProcessorResize
from mmtimesformer.datasets.transforms.repeated_augmentation import RepeatClips, collate_clips
from mmtimesformer.datasets.transforms.spatial import ShortSideJitter, ShortSideResize, UniformCrops

__all__ = [
    'AppendChannels',
    'ArrayDecode',
    'ArrayInit',
    'ToGrey',
    'ClassBalancedSampler',
    'FormatClips',
    'RepeatClips',
    'SegmentSampleFrames',
    'ShortSideJitter',
    'ShortSideResize',
    'PairedSampler',
    'ProcessorCrop',
    'ProcessorResize',
    'UniformCrops',
    'Video',
    'VideoDecode',
    'VideoInit',
    'WindowSampleFrames',
    'collate_clips',
]
