"""Decode every video once: which can be read, and how long and large they are."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from mmtimesformer.datasets.preparation.checking import check_video
from mmtimesformer.datasets.preparation.isolation import call_isolated
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.terminal import track

TIMEOUT = 120  # seconds for one video


@dataclass
class Sizes:
    """What videos are like, by the median.

    Attributes:
        frames: Of a video.
        fps: Frames per second.
        short_side: Of a frame, in pixels.
    """

    frames: int
    fps: float
    short_side: int


def inspect_video(path: str, quick: bool = False) -> tuple[int, float, int]:
    """Decode a video (``quick``: three frames); return its frames, frame rate and short side.

    Raises:
        ValueError: It cannot be read, or is cut short.
    """
    frames = check_video(path, quick)
    video = Video(path)
    return frames, video.fps, min(video.frames([0])[0].shape[:2])


def inspect_videos(
    root: Path, paths: Sequence[str], num_workers: int, quick: bool = False
) -> tuple[Sizes, dict[str, str]]:
    """Decode videos in processes that may crash or hang.

    Returns:
        What they are like, and the reason for each that cannot be read.

    Raises:
        ValueError: None can be read.
    """
    job = partial(inspect_video, quick=quick)
    names = {str(root / path): path for path in paths}
    found: list[tuple[int, float, int]] = []
    bad: dict[str, str] = {}
    with closing(call_isolated(job, names, num_workers, TIMEOUT, (__name__,))) as results:
        for path, size, wrong in track(results, 'checking videos', total=len(names)):
            if size is None:
                bad[names[path]] = _in_short(str(wrong), path)
            else:
                found.append(size)
    if not found:
        path, why = next(iter(bad.items()))
        raise ValueError(f'none of the {len(bad):,} videos can be read, such as {path}: {why}')
    frames, fps, sides = (median(values) for values in zip(*found, strict=True))
    return Sizes(int(frames), float(fps), int(sides)), bad


def _in_short(wrong: str, path: str) -> str:
    return wrong.removeprefix(f'the video {path} ').partition('; ')[0]
