"""Files become clips: which frames, which crops. Needs MMAction2 and a video reader."""

from mmtimesformer.datasets.crops import ShortSideJitter, ShortSideResize, UniformCrops
from mmtimesformer.datasets.formatting import FormatClips
from mmtimesformer.datasets.repeated_clips import RepeatClips, collate_clips
from mmtimesformer.datasets.sampling import SegmentSampleFrames, WindowSampleFrames
from mmtimesformer.datasets.twins import TwinSampler
from mmtimesformer.datasets.video import Video, VideoDecode, VideoInit

__all__ = [
    'FormatClips',
    'RepeatClips',
    'SegmentSampleFrames',
    'ShortSideJitter',
    'ShortSideResize',
    'TwinSampler',
    'UniformCrops',
    'Video',
    'VideoDecode',
    'VideoInit',
    'WindowSampleFrames',
    'collate_clips',
]
