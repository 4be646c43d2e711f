"""Re-encode videos so that clips of a few frames are read from them faster.

Frames are stored as differences from others, up to 250 frames back, so a clip of 8 frames costs the
decoding of hundreds. Two things reduce that, at the price of disk space: keyframes closer together
(a shorter *group of pictures*, GOP), and x264's ``fastdecode``.

The loss of quality is measured for each file (peak signal-to-noise ratio). A file gets its final
name after a check that every frame of the source is there and can be decoded.
"""

import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmtimesformer.datasets.preparation.checking import name_in, open_complete
from mmtimesformer.datasets.preparation.finding import SkippedFiles, no_folder, walk_videos
from mmtimesformer.datasets.preparation.reading import read_lines
from mmtimesformer.datasets.preparation.resizing import (
    check_written,
    choose_targets,
    encode_again,
    exists,
    sweep,
)
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.fileio.atomic import partial_path, rename_atomically

CLIP = (8, 32)  # frames, and from one to the next: read to measure the speedup
TIMED = 12  # files in which that is measured
PSNR_FRAMES = 8


@dataclass(frozen=True)
class Preset:
    """How videos are written."""

    short_side: int  # pixels, even; smaller videos keep their size
    gop: int  # frames from one keyframe to the next, at most
    crf: int  # x264's constant rate factor; less is better and larger

    @property
    def options(self) -> dict[str, str]:
        """Options of x264."""
        crf, gop = str(self.crf), str(self.gop)
        return {'preset': 'fast', 'tune': 'fastdecode', 'crf': crf, 'g': gop}


# docs/datasets/README.md has what they cost and give, as benchmarks/data.py measures it. With a GOP
# of 1 videos are read faster still, and at that size have lost 6 dB more.
PRESETS = {
    'storage': Preset(short_side=320, gop=16, crf=23),
    'balanced': Preset(short_side=320, gop=8, crf=23),
    'speed': Preset(short_side=256, gop=4, crf=23),
}


@dataclass(frozen=True)
class Transcode:
    """One video to re-encode as ``.mp4``; ``timed`` if reading is timed, before and after."""

    source: Path
    target: Path
    part: Path
    preset: Preset
    timed: bool


@dataclass(frozen=True)
class Written:
    """What became of a video."""

    before: int  # bytes of the source
    after: int  # bytes of the new file
    psnr: float  # decibels between the frames of both, at the new size
    speedup: float | None  # clips read from it in the time of one of the source, if measured


def list_sources(
    folder: Path, annotations: Sequence[Path], skipped: SkippedFiles | None = None
) -> list[str]:
    """List the videos that annotation files name, each once; without any, those of the folder."""
    if not annotations:
        return [name for name, _ in walk_videos(folder, skipped, frames=False)]
    if not folder.is_dir():
        raise FileNotFoundError(no_folder(folder))
    names = (
        name_in(line) for path in annotations for line in read_lines(path, 'correct --annotations')
    )
    return list(dict.fromkeys(names))


def plan_transcodes(
    source: Path, target: Path, names: Sequence[str], preset: Preset, timeout: float
) -> tuple[list[Transcode], list[tuple[int, int]], list[tuple[str, str]]]:
    """List what is to be done, and sweep up what a killed run has left.

    Args:
        source: Folder of the videos.
        target: Folder of the new ones, laid out alike.
        names: The videos, relative to ``source``.
        preset: How to write them.
        timeout: Seconds after which an unfinished file of another run is removed.

    Returns:
        What is to be done; of videos that are done already, their bytes before and after; and the
        videos that cannot be done, with the reason.

    Raises:
        ValueError: The folders lie in one another, a number of the preset is none that x264 takes,
            or none of the videos can be done.
    """
    if preset.short_side < 2 or preset.short_side % 2 or preset.gop < 1:
        raise ValueError(
            f'--short-side {preset.short_side} must be an even number of pixels, and --gop '
            f'{preset.gop} at least 1'
        )
    origin, goal = source.resolve(), target.resolve()
    if origin == goal or origin in goal.parents or goal in origin.parents:
        raise ValueError(f'{target} and {source} lie in one another; set DST to another folder')
    targets, refused = choose_targets(names, target)
    if refused and not targets:
        more = f' (and {len(refused) - 1} others cannot be written)' if len(refused) > 2 else ''
        raise ValueError(refused[0][1] + more)
    todo: list[Transcode] = []
    done: list[tuple[int, int]] = []
    for name, path in targets.items():
        if exists(path):
            done.append((_size(source / name), _size(path)))
            continue
        todo.append(
            Transcode(
                (source / name).absolute(),
                path.absolute(),
                partial_path(path).absolute(),
                preset,
                timed=len(todo) < TIMED,
            )
        )
    sweep(target, timeout)
    return todo, done, refused


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone in the meantime
        return 0


def transcode_video(job: Transcode) -> Written:
    """Re-encode one video, and check that all frames are there.

    Raises:
        ValueError: It cannot be decoded, is cut short, or what was written is not what was read.
    """
    import av

    try:
        source = open_complete(job.source)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        count = encode_again(job.source, job.part, job.preset.short_side, job.preset.options)
        if count != len(source):
            raise ValueError(f'{count} of {len(source)} frames can be decoded')
        check_written(count, job.part)
    except av.FFmpegError as error:
        raise ValueError(error.strerror) from error
    target = Video(job.part)
    psnr = _psnr(source, target)
    speedup = _clip_seconds(job.source) / _clip_seconds(job.part) if job.timed else None
    before, after = job.source.stat().st_size, job.part.stat().st_size
    rename_atomically(job.part, job.target)
    return Written(before, after, psnr, speedup)


def rewrite_annotation(
    path: Path, target: Path, refused: Collection[str] = ()
) -> tuple[list[str], int]:
    """Return the lines of an annotation file with the new names, and how many are left out.

    Left out are videos that have not been written, and those of ``refused``: a file of their new
    name would be that of another video.
    """
    lines, missing = [], 0
    for line in read_lines(path):
        name = name_in(line)
        renamed = Path(name).with_suffix('.mp4')
        if name not in refused and (target / renamed).is_file():
            lines.append(renamed.as_posix() + line[len(name) :])
        else:
            missing += 1
    return lines, missing


def _psnr(source: Video, target: Video) -> float:
    """Compare some frames of two videos, in decibels; those of the source are brought to size."""
    import cv2

    indices = np.linspace(0, len(source) - 1, PSNR_FRAMES).round().astype(int).tolist()
    squares = []
    for old, new in zip(source.frames(indices), target.frames(indices), strict=True):
        height, width = new.shape[:2]
        same_size = old.shape == new.shape
        adapted = (
            old if same_size else cv2.resize(old, (width, height), interpolation=cv2.INTER_AREA)
        )
        squares.append(np.mean((adapted.astype(np.float32) - new) ** 2))
    return float(10 * np.log10(255**2 / max(np.mean(squares), 1e-3)))


def _clip_seconds(path: Path) -> float:
    """Measure the CPU time of opening a video and reading a clip, the median of some times."""
    frames, interval = CLIP
    times = []
    for i in range(5):
        start = time.process_time()
        video = Video(path)
        first = i * max(0, len(video) - frames * interval) // 4
        video.frames([(first + k * interval) % len(video) for k in range(frames)])
        times.append(time.process_time() - start)
    return statistics.median(times)
