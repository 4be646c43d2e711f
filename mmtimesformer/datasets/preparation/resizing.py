"""Making videos smaller: decoding 340 x 256 pixels takes a fraction of what 1080p takes.

Whatever happens, a file under its final name is whole: it is written to a hidden file beside it,
which takes the name when it is finished. Started again, the work goes on where it was.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from mmtimesformer.datasets.containers import open_container
from mmtimesformer.datasets.preparation.annotations import take_name
from mmtimesformer.datasets.preparation.checking import check_length, promised_frames
from mmtimesformer.datasets.preparation.finding import walk_videos
from mmtimesformer.datasets.preparation.isolation import call_apart


@dataclass(frozen=True)
class Resize:
    """One video to be made smaller.

    Attributes:
        source: The video.
        target: Where the H.264 file goes, ``.mp4``.
        part: Where it is written until it is finished.
        short_side: Pixels, even.
        quality: x264's constant rate factor: 18 can hardly be told from the source, 23 is smaller.
        ffmpeg: The program, or ``None`` for PyAV.
    """

    source: Path
    target: Path
    part: Path
    short_side: int
    quality: int
    ffmpeg: str | None

    @property
    def copy(self) -> Path:
        """Where a copy goes, if the video is small enough as it is: it keeps its ending."""
        return self.target.with_suffix(self.source.suffix)


def plan_resizes(
    source: Path, target: Path, short_side: int, quality: int, ffmpeg: str | None, timeout: float
) -> tuple[list[Resize], int]:
    """List what is to be done, and sweep up what a killed run has left.

    Args:
        source: Folder of the videos.
        target: Folder of the small ones, laid out alike.
        short_side: Pixels, even.
        quality: x264's constant rate factor.
        ffmpeg: The program, or ``None`` for PyAV.
        timeout: Seconds after which an unfinished file belongs to nobody any more.

    Returns:
        What is to be done, and how many videos are done already.

    Raises:
        ValueError: ``short_side`` is odd, the folders lie in one another, or two videos would
            become one file.
    """
    if short_side < 2 or short_side % 2:
        raise ValueError(
            f'--short-side {short_side} is not an even number of pixels; H.264 wants one'
        )
    if source.resolve() == target.resolve() or source.resolve() in target.resolve().parents:
        raise ValueError(f'{target} lies in {source}; set DST to a folder beside it')
    names = [name for name, _ in walk_videos(source)]
    targets: dict[Path, str] = {}
    todo = []
    for name in names:
        path = (target / name).with_suffix('.mp4')
        if path in targets:
            raise ValueError(f'{targets[path]} and {name} would both become {path}; rename one')
        targets[path] = name
        part = path.with_name(f'.{path.name}.{os.getpid()}.part')
        resize = Resize(
            (source / name).absolute(),
            path.absolute(),
            part.absolute(),
            short_side,
            quality,
            ffmpeg,
        )
        if not path.exists() and not resize.copy.exists():
            todo.append(resize)
    for left in target.rglob('.*.part') if target.is_dir() else ():
        if time.time() - left.stat().st_mtime > timeout:
            left.unlink(missing_ok=True)
    return todo, len(names) - len(todo)


def resize_videos(
    todo: Sequence[Resize], num_workers: int, timeout: float
) -> Generator[tuple[Resize, str | None, str | None], None, None]:
    """Make videos smaller, in parallel.

    Yields:
        What was to be done; ``'resized'`` or ``'copied'``, or ``None`` and what went wrong.
    """
    at_work = set(todo)
    results = call_apart(resize_video, todo, num_workers, timeout, (__name__,))
    try:
        with closing(results):
            for resize, done, wrong in results:
                resize.part.unlink(missing_ok=True)
                at_work.discard(resize)
                yield resize, done, wrong
    finally:
        for resize in at_work:  # those whose processes have just been killed
            resize.part.unlink(missing_ok=True)


def resize_video(resize: Resize) -> str:
    """Make one video smaller, or copy it if it is small enough.

    Every frame stays, and the frame rate; sound goes. Frames that are damaged are written as the
    decoder mends them.

    Raises:
        ValueError: It cannot be decoded, or ends long before its header says.
    """
    import av

    try:
        with av.open(str(resize.source)) as container:
            if not container.streams.video:
                raise ValueError('it holds no video stream')
            codec = container.streams.video[0].codec_context
            short_side = min(codec.width, codec.height)
        promised = promised_frames(resize.source)
        resize.target.parent.mkdir(parents=True, exist_ok=True)
        if short_side <= resize.short_side:
            shutil.copyfile(resize.source, resize.part)
            take_name(resize.part, resize.copy)
            return 'copied'
        if resize.ffmpeg:
            _by_ffmpeg(resize, resize.ffmpeg)
        else:
            options = {'preset': 'fast', 'crf': str(resize.quality)}
            encode_again(resize.source, resize.part, resize.short_side, options)
        check_length(promised_frames(resize.part)[0], *promised)
    except av.FFmpegError as error:
        raise ValueError(error.strerror) from error
    take_name(resize.part, resize.target)
    return 'resized'


def _by_ffmpeg(resize: Resize, program: str) -> None:
    side = resize.short_side
    # -2: what keeps the shape, as an even number
    scale = f"scale=w='if(lt(iw,ih),{side},-2)':h='if(lt(iw,ih),-2,{side})'"
    command = [
        *(program, '-nostdin', '-y', '-v', 'error'),
        *('-threads', '1', '-i', str(resize.source), '-map', '0:v:0', '-vf', scale),
        *('-c:v', 'libx264', '-threads', '1', '-preset', 'fast', '-crf', str(resize.quality)),
        *('-pix_fmt', 'yuv420p', '-movflags', '+faststart', '-f', 'mp4', str(resize.part)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors='replace', check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit code {done.returncode}']
        raise ValueError(f'ffmpeg: {lines[-1]}')


def encode_again(source: Path, target: Path, short_side: int, options: dict[str, str]) -> int:
    """Write every frame of a video again as H.264 in MP4, without sound, upright, by PyAV.

    FFmpeg's ``scale`` brings colours to the matrix that is meant where none is told (BT.601).

    Args:
        source: The video.
        target: The file to be written.
        short_side: Pixels; a smaller video keeps its size, but for an odd pixel.
        options: x264's options.

    Returns:
        Number of frames.

    Raises:
        ValueError: There is no frame.
    """
    import av

    with open_container(source) as container, av.open(str(target), 'w', 'mp4') as written:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or Fraction(30)
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise ValueError('it holds no frame')
        graph = _scaling(stream, first, min(short_side, first.width, first.height))
        out: Any = None
        count = 0
        tick = -1
        for frame in chain([first], frames):
            graph.vpush(frame)
            small = graph.vpull()
            # Times in whole frames; frames that came too fast for that keep their order.
            seconds = 0 if frame.pts is None else (frame.pts - (first.pts or 0)) * stream.time_base
            tick = max(tick + 1, round(seconds * rate))
            small.pts, small.time_base = tick, 1 / rate
            small.pict_type = 0  # the encoder chooses anew which frames stand alone
            if out is None:
                out = written.add_stream('libx264', rate=rate, options={**options, 'threads': '1'})
                out.width, out.height, out.pix_fmt = small.width, small.height, 'yuv420p'
                out.codec_context.time_base = 1 / rate
            written.mux(out.encode(small))
            count += 1
        written.mux(out.encode())
    return count


def _scaling(stream: Any, frame: Any, short_side: int) -> Any:
    """Set up what turns frames upright (telephones film sideways), makes them small, and 4:2:0."""
    import av

    graph = av.filter.Graph()
    turns = {
        90: ('transpose', 'cclock'),
        -90: ('transpose', 'clock'),
    }  # of the frame, to be upright
    steps: list[tuple[str, str | None]] = [turns[frame.rotation]] if frame.rotation in turns else []
    if abs(frame.rotation) == 180:
        steps = [('hflip', None), ('vflip', None)]
    width, height = frame.width, frame.height
    if abs(frame.rotation) == 90:
        width, height = height, width
    factor = short_side / min(width, height)
    size = [2 * max(1, round(side * factor / 2)) for side in (width, height)]
    # JPEG's range of brightness, 0..255, becomes video's, 16..235.
    full = frame.color_range == 2 or frame.format.name.startswith('yuvj')
    span = ':in_range=full:out_range=limited' if full else ''
    steps += [('scale', '{}:{}{}'.format(*size, span)), ('format', 'yuv420p'), ('buffersink', None)]
    last = graph.add_buffer(template=stream)
    for name, argument in steps:
        following = graph.add(name, argument)
        last.link_to(following)
        last = following
    graph.configure()
    return graph
