"""Files become clips: which frames, which crops. Needs MMAction2 and a video reader."""

from mmtimesformer.datasets.twins import TwinSampler
from mmtimesformer.datasets.video import Video, VideoDecode, VideoInit

__all__ = ['TwinSampler', 'Video', 'VideoDecode', 'VideoInit']
