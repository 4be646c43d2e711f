"""Find corrupt videos by decoding every video once, before a training."""

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from mmtimesformer.datasets.preparation.finding import SkippedFiles, walk_videos
from mmtimesformer.datasets.preparation.isolation import call_isolated
from mmtimesformer.datasets.preparation.reading import read_lines
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.frame_folder import FrameFolderReader, is_frame_folder
from mmtimesformer.datasets.video_io.jpg_damage import check_jpgs
from mmtimesformer.datasets.video_io.safe_open import check_file, is_folder, open_container
from mmtimesformer.datasets.video_io.stated_sizes import stated_bytes, stated_mp4_bytes

# Containers whose header states a duration; FFmpeg works out that of others from the file itself.
TIMED = {'flv', 'live_flv', 'kux', 'matroska,webm', 'asf', 'nut', 'mxf'}
CHUNK_BYTES = 256 * 2**20  # frames held at a time, so that a long video needs no more memory


def check_video(path: str, quick: bool = False) -> int:
    """Decode a video.

    Of JPG frames standard error is redirected (:mod:`..video_io.jpg_damage`), so it is called in a
    process of its own.

    Args:
        path: The file, or a folder of frames. It is given by its path: from bytes, decord crashes
            on about one in ten truncated files.
        quick: Decode the first, middle and last frame only.

    Returns:
        Number of frames.

    Raises:
        ValueError: It cannot be read, it is cut short, a frame cannot be decoded, or the compressed
            data of a JPG are damaged in a way that libjpeg notices.
    """
    if Path(path).is_file() and not Path(path).stat().st_size:
        raise ValueError('an empty file')
    video = open_complete(Path(path))
    total = len(video)
    some = [0, total // 2, total - 1]
    ends = video.frames(some)
    if not quick:
        step = max(1, CHUNK_BYTES // ends[0].nbytes)
        for start in range(0, total, step):
            video.frames(range(start, min(start + step, total)))
    if video.is_folder:
        images = FrameFolderReader(Path(path))
        names = [images.names[i] for i in (some if quick else range(total))]
        check_jpgs((name, images.read(name)) for name in names)
    return total


class CutShortError(ValueError):
    """A file that ends before what its own header lists."""


def open_complete(path: Path) -> Video:
    """Open a video and see that its file is complete.

    Raises:
        CutShortError: It is cut short.
        UnreadableVideo: It cannot be read.
    """
    import av

    if is_folder(path):
        return Video(path)
    check_file(path)
    try:
        check_complete(path)
    except CutShortError:
        raise
    except (av.FFmpegError, ValueError, OSError):
        pass  # the reader has the words for it
    return Video(path)


def check_complete(path: Path) -> None:
    """Refuse a video that was cut short: the file ends before what its own header lists.

    What counts is where the file ends, not a number of frames worked out from a duration and a
    nominal rate, which promises nothing: rates vary, and an edit list hides frames.

    - MP4: a sample of the index, or in fragments a box, lies beyond the end of the file.
    - MKV, WebM, AVI, ASF: the header states more bytes than there are.
    - FLV, and those without a size in the header: the last time stamp of all streams is before 80 %
      of the stated duration.
    - MPEG-TS, MPEG-PS, Ogg and streams of one codec state nothing, and cannot be found out.

    Raises:
        CutShortError: It is cut short.
        av.FFmpegError: It cannot be opened.
    """
    size = path.stat().st_size
    with open_container(path) as container:
        family = container.format.name
        if 'mp4' in family:
            _check_samples(container.streams.video[0], size)
            stated = stated_mp4_bytes(path)
        else:
            stated = stated_bytes(path)
        if stated > size:
            raise CutShortError(
                f'it is cut short: {size} of the {stated} bytes that its header states are there'
            )
        if not stated and 'mp4' not in family:
            _check_times(container)


def _check_samples(stream: Any, size: int) -> None:
    entries = getattr(stream, 'index_entries', ())  # of PyAV 14 and later
    total = missing = 0
    for entry in entries:
        total += 1
        missing += entry.pos + entry.size > size
    if missing:
        raise CutShortError(f'it is cut short: {total - missing} of {total} frames are there')


def _check_times(container: Any) -> None:
    """Compare the last time stamp of all streams with the duration in the header."""
    import av

    stated = (container.duration or 0) / av.time_base if container.format.name in TIMED else 0
    if not stated:
        return
    ends = [0.0]
    for packet in container.demux():
        if packet.pts is not None and packet.size:
            end = packet.pts + (packet.duration or 0)
            ends.append(float(end * packet.time_base) - (container.start_time or 0) / av.time_base)
    if max(ends) < 0.8 * stated - 0.1:
        raise CutShortError(
            f'it is cut short: it ends at {max(ends):.1f} of the {stated:.1f} seconds in its header'
        )


def list_videos(
    source: Path, root: Path | None = None, skipped: SkippedFiles | None = None
) -> tuple[Path, list[str]]:
    """List the videos of an annotation file, or of a folder; a folder of frames is one video.

    Args:
        source: The annotation file, split by spaces or tabs; or the folder.
        root: What the names in the annotation file are relative to; else its folder.
        skipped: Gets what of the folder is not listed.

    Returns:
        The folder, and the names below it, each once.
    """
    if source.is_dir():
        if root is not None:
            raise ValueError(f'{source} is a folder, so --root has no effect; leave it out')
        if is_frame_folder(source):
            return source.absolute().parent, [source.absolute().name]
        return source, [file for file, _ in walk_videos(source, skipped)]
    names = [name_in(line) for line in read_lines(source, 'correct its name')]
    return root or source.parent, list(dict.fromkeys(names))


def name_in(line: str) -> str:
    """Take the video out of a line of an annotation file: what is in front of tab, space, labels.

    Of several numbers at its end all are labels if a file name with a dot is in front of them;
    else only the last one is, and ``clip 1 0`` is the video ``clip 1``.
    """
    if '\t' in line:
        return line.split('\t')[0]
    several = re.fullmatch(r'(\S.*?\.[^\s/]+?)(?: -?\d+)+', line)
    one = re.fullmatch(r'(\S.*?) -?\d+', line)
    found = several or one
    return found[1] if found else line


def check_videos(
    folder: Path, names: Sequence[str], num_workers: int, timeout: float, quick: bool = False
) -> Generator[tuple[str, str | None], None, None]:
    """Decode videos in parallel, each where it can crash or hang without harm.

    Args:
        folder: What the names are relative to.
        names: The videos.
        num_workers: Processes.
        timeout: Seconds for one video.
        quick: Decode the first, middle and last frame only.

    Yields:
        A name, and what is wrong with it, or ``None``; in the order in which they are done.
    """
    paths = {str((folder / name).absolute()): name for name in names}
    job = partial(check_video, quick=quick)
    with closing(call_isolated(job, paths, num_workers, timeout, (__name__,))) as results:
        for path, _, wrong in results:
            yield paths[path], _in_short(wrong, path)


def _in_short(wrong: str | None, path: str) -> str | None:
    """Shorten the message: the list of corrupt videos names the file already."""
    if wrong is None:
        return None
    reason = wrong.removeprefix(f'the video {path} ').partition('; ')[0]
    reason = reason.replace(f": '{path}'", '')
    return 'does not exist' if reason.startswith('does not exist') else reason
