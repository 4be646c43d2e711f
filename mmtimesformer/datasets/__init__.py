"""Files become clips: which frames, which crops. Needs MMAction2 and a video reader."""

from mmtimesformer.datasets.crops import ShortSideJitter, ShortSideResize, UniformCrops
from mmtimesformer.datasets.sampling import SegmentSampleFrames, WindowSampleFrames
from mmtimesformer.datasets.twins import TwinSampler
from mmtimesformer.datasets.video import Video, VideoDecode, VideoInit

__all__ = [
    'SegmentSampleFrames',
    'ShortSideJitter',
    'ShortSideResize',
    'TwinSampler',
    'UniformCrops',
    'Video',
    'VideoDecode',
    'VideoInit',
    'WindowSampleFrames',
]
