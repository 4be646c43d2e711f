"""Decoding every video once, before a training finds the bad ones."""

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from mmtimesformer.datasets.preparation.finding import walk_videos
from mmtimesformer.datasets.preparation.isolation import call_apart
from mmtimesformer.datasets.preparation.reading import read_lines
from mmtimesformer.datasets.video import Video

CHUNK_BYTES = 256 * 2**20  # frames held at a time, so that a long video needs no more memory


def check_video(path: str, quick: bool = False) -> int:
    """Decode a video.

    Args:
        path: The file. It is given by its path: from bytes, decord crashes on about one in ten
            truncated files.
        quick: Decode the first, middle and last frame only.

    Returns:
        Number of frames.

    Raises:
        ValueError: It cannot be read, or a frame cannot be decoded.
    """
    if Path(path).is_file() and not Path(path).stat().st_size:
        raise ValueError('an empty file')
    video = Video(path)
    total = len(video)
    check_length(total, *promised_frames(path))
    ends = video.frames([0, total // 2, total - 1])
    if not quick:
        step = max(1, CHUNK_BYTES // ends[0].nbytes)
        for start in range(0, total, step):
            video.frames(range(start, min(start + step, total)))
    return total


def promised_frames(path: str | Path) -> tuple[int, bool]:
    """Read in a video's header how many frames it should hold.

    Returns:
        Number of frames, 0 where the header says nothing; and whether it was counted, not worked
        out from the duration.
    """
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.frames:
            return stream.frames, True
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            return 0, False
        if stream.duration and stream.time_base:
            return round(stream.duration * stream.time_base * rate), False
        return round((container.duration or 0) / av.time_base * rate), False


def check_length(total: int, promised: int, counted: bool) -> None:
    """Refuse a video that ends long before its header says: it was cut short.

    A little is forgiven: counts that are off by some frames are common, and a duration may be that
    of the sound.

    Raises:
        ValueError: It is cut short.
    """
    if total < (0.95 if counted else 0.8) * promised - 2:
        raise ValueError(
            f'it is cut short: {total} of {"" if counted else "about "}{promised} frames are there'
        )


def list_videos(source: Path, root: Path | None = None) -> tuple[Path, list[str]]:
    """List the videos of an annotation file, or of a folder.

    Args:
        source: The annotation file, split by spaces or tabs; or the folder.
        root: What the names in the annotation file are relative to; else its folder.

    Returns:
        The folder, and the names below it, each once.
    """
    if source.is_dir():
        if root is not None:
            raise ValueError(f'{source} is a folder, for which --root says nothing; leave it out')
        return source, [file for file, _ in walk_videos(source)]
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
    with closing(call_apart(job, paths, num_workers, timeout, (__name__,))) as results:
        for path, _, wrong in results:
            yield paths[path], _in_short(wrong, path)


def _in_short(wrong: str | None, path: str) -> str | None:
    """Take out of the letter what the list of bad files says anyway."""
    if wrong is None:
        return None
    reason = wrong.removeprefix(f'the video {path} ').partition('; ')[0]
    reason = reason.replace(f": '{path}'", '')
    return 'does not exist' if reason.startswith('does not exist') else reason
