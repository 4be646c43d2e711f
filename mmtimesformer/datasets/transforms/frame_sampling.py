"""Which frames of a video become a clip, by the rules that published weights were trained with.

MMAction2's own rule is its ``SampleFrames``, reused as it is. The rules here are those of the
official TimeSformer code and PaddleVideo. docs/protocols.md shows them side by side.

Random numbers come from NumPy's global state, as in MMAction2: it is what MMEngine seeds in each
data-loading process.
"""
# ruff: noqa: NPY002  (the global state is what is seeded)

from typing import Any

import numpy as np
import torch

from mmtimesformer.datasets.transforms.transform import Transform, check_choice
from mmtimesformer.registry import TRANSFORMS


@TRANSFORMS.register_module()
class WindowSampleFrames(Transform):
    """Spread the frames of a clip over a window of ``clip_len * frame_interval`` frames.

    The first frame is the window's first and the last its last, so frames stand
    ``(window - 1) / (clip_len - 1)`` apart: 36.4 in a clip of 8 x 32, not 32. Fractions are cut
    off. The window is as long in seconds as that many frames at ``target_fps``.

    In training the window starts anywhere, at a fraction of a frame if it happens so. In testing
    clip ``k`` of ``num_clips`` starts at ``k / num_clips`` of the room that the window leaves, so
    that one clip starts at frame 0 and the video's end is never reached.

    PaddleVideo's ``linspace_sample`` computes the same in double precision; with one clip of a
    video, as it tests, the frames are the same.

    Required keys: ``total_frames``, and where they are known ``avg_fps`` and ``start_index``. Added
    keys: ``frame_inds``, ``clip_len``, ``frame_interval``, ``num_clips``.

    Args:
        clip_len: Frames in a clip.
        frame_interval: Frames of the window for each frame of the clip.
        num_clips: Clips taken from one video.
        first: Where testing starts within its part of the room: ``'start'`` as the official code
            does, or ``'centre'`` as in the paper, which puts a single clip in the middle.
        target_fps: Frames per second for which ``frame_interval`` is meant; ``None`` takes each
            video's own. A video without a stated rate is taken to have this one.
        out_of_bound: What stands for frames beyond the end of a short video: ``'clamp'`` repeats
            the last one, ``'loop'`` starts again at the first.
        test_mode: Whether to take the clips for testing.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> sample = WindowSampleFrames(clip_len=8, frame_interval=32, test_mode=True)
        >>> sample({'total_frames': 300, 'avg_fps': 30.0})['frame_inds'].tolist()
        [0, 36, 72, 109, 145, 182, 218, 255]
    """

    def __init__(
        self,
        clip_len: int,
        frame_interval: int,
        num_clips: int = 1,
        first: str = 'start',
        target_fps: float | None = 30,
        out_of_bound: str = 'clamp',
        test_mode: bool = False,
    ) -> None:
        _check_positive(clip_len=clip_len, frame_interval=frame_interval, num_clips=num_clips)
        check_choice('first', first, ('start', 'centre'))
        check_choice('out_of_bound', out_of_bound, ('clamp', 'loop'))
        if target_fps is not None and target_fps <= 0:
            raise ValueError(f'target_fps={target_fps} is not positive; set None for any rate')
        self.clip_len = clip_len
        self.frame_interval = frame_interval
        self.num_clips = num_clips
        self.first = first
        self.target_fps = target_fps
        self.out_of_bound = out_of_bound
        self.test_mode = test_mode

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        length = results['total_frames']
        window = float(self.clip_len * self.frame_interval)
        fps = results.get('avg_fps')
        if self.target_fps and fps:
            window = window / self.target_fps * fps
        room = max(length - window, 0.0)
        # In single precision, as the official code: in double, positions that fall on a frame
        # may be cut to another one.
        clips = [
            torch.linspace(start, start + window - 1, self.clip_len, dtype=torch.float32)
            for start in self._starts(room)
        ]
        # A window below one frame ends before it starts.
        indices = torch.cat(clips).clamp(min=0).long().numpy()
        indices = indices % length if self.out_of_bound == 'loop' else indices.clip(max=length - 1)
        results['frame_inds'] = indices + results.get('start_index', 0)
        results['clip_len'] = self.clip_len
        results['frame_interval'] = self.frame_interval
        results['num_clips'] = self.num_clips
        return results

    def _starts(self, room: float) -> list[float]:
        """Where each clip's window starts, in frames."""
        if not self.test_mode:
            return [np.random.uniform(0, room) for _ in range(self.num_clips)]
        offset = {'start': 0.0, 'centre': 0.5}[self.first]
        return [room * (k + offset) / self.num_clips for k in range(self.num_clips)]


@TRANSFORMS.register_module()
class SegmentSampleFrames(Transform):
    """Cut the whole video into ``clip_len`` segments and take one frame of each.

    The rule of the official code for Something-Something, whose actions fill their videos.
    Segment ``i`` goes from ``round(s * i)`` to ``round(s * (i + 1))``, both included, where
    ``s = (frames - 1) / clip_len``; so neighbours overlap by a frame, and none lies beyond the end,
    however short the video is. Training takes any frame of a segment, testing its middle one.

    Required keys: ``total_frames``, and where it is known ``start_index``. Added keys:
    ``frame_inds``, ``clip_len``, ``frame_interval`` (``None``: it follows the video's length),
    ``num_clips`` (1).

    NOTE: halves are rounded to the even neighbour, as NumPy and the official code do.

    Args:
        clip_len: Frames in a clip, one for each segment.
        test_mode: Whether to take the middle frames.

    Raises:
        ValueError: ``clip_len`` is not positive.
    """

    def __init__(self, clip_len: int, test_mode: bool = False) -> None:
        _check_positive(clip_len=clip_len)
        self.clip_len = clip_len
        self.test_mode = test_mode

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        segment = (results['total_frames'] - 1) / self.clip_len
        bounds = np.round(segment * np.arange(self.clip_len + 1)).astype(np.int64)
        starts, ends = bounds[:-1], bounds[1:]
        if self.test_mode:
            indices = (starts + ends) // 2
        else:
            indices = np.random.randint(starts, ends + 1)
        results['frame_inds'] = indices + results.get('start_index', 0)
        results['clip_len'] = self.clip_len
        results['frame_interval'] = None
        results['num_clips'] = 1
        return results


def _check_positive(**arguments: int) -> None:
    for name, value in arguments.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f'{name}={value!r} is not a positive whole number; set {name}')
