"""Resize videos, since decoding 340 x 256 pixels takes a fraction of what 1080p takes."""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from mmtimesformer.datasets.preparation.checking import open_complete
from mmtimesformer.datasets.preparation.finding import SkippedFiles, walk_videos
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.pyav_reader import decoded_frames
from mmtimesformer.datasets.video_io.safe_open import open_container
from mmtimesformer.fileio.atomic import PARTIAL_FILES, partial_path, rename_atomically

MOST_EXACT = Fraction(1, 90_000)  # seconds; of MPEG-TS


@dataclass(frozen=True)
class Resize:
    """One video to be made smaller, see :func:`plan_resizes`; ``part`` is the unfinished file."""

    source: Path
    target: Path
    part: Path
    short_side: int
    quality: int
    ffmpeg: str | None

    @property
    def copy(self) -> Path:
        """The target of a video that is small enough as it is, which keeps its ending."""
        return self.target.with_suffix(self.source.suffix)


def plan_resizes(
    source: Path,
    target: Path,
    short_side: int,
    quality: int,
    ffmpeg: str | None,
    timeout: float,
    skipped: SkippedFiles | None = None,
) -> tuple[list[Resize], int, list[tuple[str, str]]]:
    """List what is to be done, and sweep up what a killed run has left.

    Args:
        source: Folder of the videos.
        target: Folder of the small ones, laid out alike.
        short_side: Pixels, even.
        quality: x264's constant rate factor: 18 looks like the source, 23 is smaller.
        ffmpeg: The program, or ``None`` for PyAV.
        timeout: Seconds after which an unfinished file of another run is removed.
        skipped: Gets what of the folder is not listed.

    Returns:
        What is to be done; how many videos are done already; and the videos that cannot be done,
        with the reason.

    Raises:
        ValueError: ``short_side`` is odd, or the folders lie in one another.
    """
    if short_side < 2 or short_side % 2:
        raise ValueError(
            f'--short-side {short_side} is not an even number of pixels; H.264 wants one'
        )
    if source.resolve() == target.resolve() or source.resolve() in target.resolve().parents:
        raise ValueError(f'{target} lies in {source}; set DST to another folder')
    skipped = SkippedFiles() if skipped is None else skipped
    names = [name for name, _ in walk_videos(source, skipped, frames=False)]
    targets, refused = choose_targets(names, target)
    todo = []
    for name, path in targets.items():
        resize = Resize(
            (source / name).absolute(),
            path.absolute(),
            partial_path(path).absolute(),
            short_side,
            quality,
            ffmpeg,
        )
        if not exists(path) and not exists(resize.copy):
            todo.append(resize)
    sweep(target, timeout)
    return todo, len(targets) - len(todo), [*skipped.faults, *refused]


def choose_targets(
    names: Sequence[str], target: Path
) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Choose the new file of each video: its name, with the ending ``.mp4``.

    Where several videos would become one file, none of them is written.

    Returns:
        The videos and their new files; and the videos that have none, with the reason.
    """
    goal = target.resolve()
    by_path: dict[str, list[str]] = {}
    refused = []
    fold = str.casefold if ignores_case(target) else str
    for name in dict.fromkeys(names):
        try:
            path = (target / name).with_suffix('.mp4')
            inside = goal in path.resolve().parents
        except (ValueError, OSError):  # `..`, or a null character
            refused.append((name, f'{name!r} is no name of a file; correct the annotation file'))
            continue
        if not inside:
            refused.append(
                (name, f'{name} leads out of {target}; give SRC so that names lie below it')
            )
            continue
        by_path.setdefault(fold(os.path.normpath(path)), []).append(name)
    targets = {}
    for group in by_path.values():
        path = (target / group[0]).with_suffix('.mp4')
        if len(group) == 1:
            targets[group[0]] = path
        else:
            together = f'{", ".join(group[:-1])} and {group[-1]}'
            refused += [
                (name, f'{together} would both become {path}; rename one')
                if len(group) == 2
                else (name, f'{together} would all become {path}; rename all but one')
                for name in group
            ]
    return targets, refused


def ignores_case(folder: Path) -> bool:
    """Whether the file system of a folder, or of its nearest parent, ignores case."""
    for place in (folder.absolute(), *folder.absolute().parents):
        other = place.with_name(place.name.swapcase()) if place.name else place
        if other != place and place.exists():
            return other.exists() and other.samefile(place)
    return False


def exists(path: Path) -> bool:
    """Whether there is a file; a name that the file system cannot hold is none."""
    try:
        return path.exists()
    except OSError:
        return False


def sweep(folder: Path, timeout: float) -> None:
    """Remove unfinished files that are older than ``timeout`` seconds."""
    for left in folder.rglob(PARTIAL_FILES) if folder.is_dir() else ():
        with suppress(OSError):  # another run sweeps too
            if time.time() - left.stat().st_mtime > timeout:
                left.unlink(missing_ok=True)


def resize_video(resize: Resize) -> str:
    """Make one video smaller, or copy it if it is small enough.

    Every frame stays, with its time; sound goes.

    Raises:
        ValueError: It cannot be decoded, it is cut short, or the frames that were written are not
            those of the source.
    """
    import av

    try:
        frames = len(open_complete(resize.source))
        with open_container(resize.source) as container:
            codec = container.streams.video[0].codec_context
            short_side = min(codec.width, codec.height)
        resize.target.parent.mkdir(parents=True, exist_ok=True)
        if short_side <= resize.short_side:
            shutil.copyfile(resize.source, resize.part)
            rename_atomically(resize.part, resize.copy)
            return 'copied'
        if resize.ffmpeg:
            _by_ffmpeg(resize, resize.ffmpeg)
        else:
            options = {'preset': 'fast', 'crf': str(resize.quality)}
            encode_again(resize.source, resize.part, resize.short_side, options)
        check_written(frames, resize.part)
    except av.FFmpegError as error:
        raise ValueError(error.strerror) from error
    rename_atomically(resize.part, resize.target)
    return 'resized'


def check_written(frames: int, path: Path) -> None:
    """Raise ``ValueError`` if so many frames cannot be decoded from a new file."""
    written = len(Video(path))
    with open_container(path) as container:
        decoded = sum(1 for _ in decoded_frames(container))
    if not written == decoded == frames:
        raise ValueError(f'of {frames} frames {written} were written, {decoded} come back')


def _by_ffmpeg(resize: Resize, program: str) -> None:
    """Run the program ``ffmpeg``: every frame once, at its own time, from the named file alone."""
    options = ['-fps_mode', 'passthrough']
    done = _run_ffmpeg(resize, program, options)
    if done.returncode and 'fps_mode' in done.stderr:  # before version 5.1
        done = _run_ffmpeg(resize, program, ['-vsync', 'passthrough'])
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit code {done.returncode}']
        raise ValueError(f'ffmpeg: {lines[-1]}')


def _run_ffmpeg(
    resize: Resize, program: str, every_frame: list[str]
) -> 'subprocess.CompletedProcess[str]':
    with open_container(resize.source) as container:
        form = container.format.name
        base = mp4_time_base(container.streams.video[0].time_base)
    side = resize.short_side
    # -2: what keeps the shape, as an even number
    scale = f"scale=w='if(lt(iw,ih),{side},-2)':h='if(lt(iw,ih),-2,{side})'"
    command = [
        *(program, '-nostdin', '-y', '-v', 'error'),
        # The container is the one that PyAV found; nothing is detected again, no other file opened.
        *('-protocol_whitelist', 'file', '-format_whitelist', form, '-f', form.partition(',')[0]),
        *(('-enable_drefs', '0', '-use_absolute_path', '0') if 'mp4' in form else ()),
        *('-threads', '1', '-i', f'file:{resize.source}'),
        *('-map', '0:v:0', '-vf', f'{scale},setpts=PTS-STARTPTS'),
        *(*every_frame, '-enc_time_base', f'{base.numerator}:{base.denominator}'),
        *('-video_track_timescale', str(base.denominator)),
        *('-c:v', 'libx264', '-threads', '1', '-preset', 'fast', '-crf', str(resize.quality)),
        *('-pix_fmt', 'yuv420p', '-movflags', '+faststart', '-f', 'mp4', str(resize.part)),
    ]
    return subprocess.run(command, capture_output=True, text=True, errors='replace', check=False)


def mp4_time_base(base: Fraction | None) -> Fraction:
    """Return the unit of an MP4's time stamps that keeps those of a source: its own, if it can.

    MP4 counts units from one frame to the next in 32 bits: of nanoseconds, 4 seconds.
    """
    if not base or base < MOST_EXACT:
        return MOST_EXACT
    return Fraction(base)


def encode_again(source: Path, target: Path, short_side: int, options: dict[str, str]) -> int:
    """Write every frame of a video again as H.264 in MP4, without sound, rotation applied, by PyAV.

    Frames keep their times, counted from the first. FFmpeg's ``scale`` brings colours to the matrix
    that is assumed where none is stated (BT.601).

    Args:
        source: The video.
        target: The file to be written.
        short_side: Pixels; a smaller video keeps its size, but for an odd pixel.
        options: Of x264.

    Returns:
        Number of frames, at least 1.

    Raises:
        ValueError: There is no frame.
    """
    import av

    with open_container(source) as container, av.open(str(target), 'w', 'mp4') as written:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or Fraction(30)
        base = mp4_time_base(stream.time_base)
        frames = decoded_frames(container)
        first = next(frames, None)
        if first is None:
            raise ValueError('it holds no frame')
        graph = _scaling(stream, first, min(short_side, first.width, first.height))
        out: Any = None
        clock = _Clock(stream, base, rate)
        durations: dict[int, int] = {}  # tick of a frame → for how long it is shown
        count = 0

        def write(frame: Any) -> None:
            for packet in out.encode(frame):
                packet.duration = durations.pop(packet.pts, 0) or packet.duration
                written.mux(packet)

        for frame in chain([first], frames):
            graph.vpush(frame)
            small = graph.vpull()
            small.pts, small.time_base = clock.tick(frame), base
            small.pict_type = 0  # the encoder chooses the keyframes
            durations[small.pts] = clock.duration(frame)
            if out is None:
                out = written.add_stream('libx264', rate=rate, options={**options, 'threads': '1'})
                out.width, out.height, out.pix_fmt = small.width, small.height, 'yuv420p'
                out.codec_context.time_base = base
            write(small)
            count += 1
        write(None)
    return count


class _Clock:
    """When frames are shown, in units of the new file, counted from the first frame.

    Frames of one time, or of times that step back a little, keep their order. Where time jumps back
    (two files in one), the new times continue.
    """

    def __init__(self, stream: Any, base: Fraction, rate: Fraction) -> None:
        self.unit = Fraction(stream.time_base or base) / base
        self.step = max(1, round(1 / (rate * base)))  # for frames that have no time
        self.second = 1 / base
        self.start: int | None = None  # time of the first frame, in units of the source
        self.shift = 0
        self.last = -self.step

    def tick(self, frame: Any) -> int:
        """Return when the next frame is shown."""
        time = frame.dts if frame.pts is None else frame.pts
        if time is None:
            self.last += self.step
            return self.last
        if self.start is None:  # frames without a time may come before
            self.start, self.shift = time, self.last + self.step
        tick = round((time - self.start) * self.unit) + self.shift
        if tick <= self.last - self.second:
            self.shift += self.last + self.step - tick
            tick = self.last + self.step
        self.last = max(self.last + 1, tick, 0)
        return self.last

    def duration(self, frame: Any) -> int:
        """Return for how long a frame is shown, 0 if that is not known."""
        return round((getattr(frame, 'duration', 0) or 0) * self.unit)


def _scaling(stream: Any, frame: Any, short_side: int) -> Any:
    """Return the filter graph that applies the rotation, scales, and converts to 4:2:0."""
    import av

    graph = av.filter.Graph()
    turns = {90: ('transpose', 'cclock'), -90: ('transpose', 'clock')}  # undo the rotation
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
