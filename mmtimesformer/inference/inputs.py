"""What may be given as a video: a file, a folder of frames, an array, a list, or a folder."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

from mmtimesformer.datasets.preparation.finding import SkippedFiles, walk_videos
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.file_endings import is_video
from mmtimesformer.datasets.video_io.frame_folder import ASSUMED_FPS, is_frame_folder
from mmtimesformer.datasets.video_io.pyav_reader import apply_rotation, decoded_frames
from mmtimesformer.datasets.video_io.safe_open import (
    address_refused,
    is_address,
    is_folder,
    open_container,
    open_demuxer,
)
from mmtimesformer.terminal import safe_text


@dataclass(frozen=True)
class ArrayForm:
    """Which arrays a model takes as a video.

    Attributes:
        channels: 3 for RGB; more with a second file, in the order of the pipeline.
        floats: Whether finite float32 is taken, too, as from array files.
    """

    channels: int = 3
    floats: bool = False

    def check(self, frames: np.ndarray) -> np.ndarray:
        """Return the array.

        Raises:
            ValueError: It is not ``(t, H, W, channels)``, or has other numbers.
        """
        if frames.ndim != 4 or frames.shape[-1] != self.channels or not frames.size:
            raise ValueError(f'an array of shape {frames.shape} is no video; {self}')
        if frames.dtype != np.uint8 and not (self.floats and frames.dtype == np.float32):
            raise ValueError(f'an array of {frames.dtype} is no video; {self}')
        if self.floats and not np.isfinite(frames).all():
            raise ValueError(f'an array with NaN or infinite numbers is no video; {self}')
        return frames

    def __str__(self) -> str:
        kinds = 'uint8 or finite float32' if self.floats else 'uint8'
        rule = f'frames are an array (t, H, W, {self.channels}) of {kinds}'
        if self.channels != 3 or self.floats:
            return f'{rule}, as test_pipeline of this model gives them'
        return (
            f'{rule}, RGB; stack single frames with np.stack, and turn BGR round with '
            'frames[..., ::-1]'
        )


RGB = ArrayForm()


@dataclass(frozen=True)
class Given:
    """One video as it was given: a file, a folder of frames, or an array."""

    name: str  # for results and messages
    path: Path | None = None
    frames: np.ndarray | None = None  # t H W c


def is_many(video: Any) -> bool:
    """Whether a list of results is wanted: of a list, or of a folder of videos."""
    return isinstance(video, list | tuple) or (
        isinstance(video, str | Path) and _holds_videos(Path(video).expanduser())
    )


def _holds_videos(path: Path) -> bool:
    """Whether a path is a folder, and not the folder of one video's frames."""
    return is_folder(path) and not is_frame_folder(path)


def videos_of(video: Any, form: ArrayForm = RGB) -> list[Given]:
    """List what was given, each video by itself; arrays have this form.

    Raises:
        FileNotFoundError: A file is not there, or a folder holds no video.
        TypeError: It is nothing of the kind.
        ValueError: An array has another form.
    """
    found: list[Given] = []
    for i, item in enumerate(video if isinstance(video, list | tuple) else [video]):
        if isinstance(item, str | Path):
            path = Path(item).expanduser()
            found += _files_in(path) if _holds_videos(path) else [Given(str(item), path=path)]
        elif isinstance(item, Given):
            found.append(item)
        elif isinstance(item, np.ndarray | Tensor):
            found.append(Given(f'array {i}', frames=form.check(np.asarray(item))))
        else:
            raise TypeError(
                f'a video is a path, an array, a list of these or a folder, not '
                f'{type(item).__name__}'
            )
    return found


def _files_in(folder: Path) -> list[Given]:
    skipped = SkippedFiles()
    names = [name for name, _ in walk_videos(folder, skipped)]
    notes = [note for note in [skipped.note()] if note]
    notes += [f'{safe_text(name)}: {why}' for name, why in skipped.faults]
    if not names:
        seen = f' ({"; ".join(notes)})' if notes else ''
        raise FileNotFoundError(
            f'the folder {folder} holds no video (mp4, avi, mov, mkv, webm and so on){seen}; give '
            'another'
        )
    for note in notes:
        logging.getLogger(__name__).warning('%s: %s', folder, note)
    return [Given(str(folder / name), path=folder / name) for name in names]


@dataclass
class Frame:
    """A decoded frame of a stream; its pixels are converted on request."""

    number: int  # from 0
    time: float  # when it is shown, in seconds as a player counts them
    _convert: Callable[[], np.ndarray]

    def pixels(self) -> np.ndarray:
        """Return ``(H, W, 3)``, RGB of uint8."""
        return self._convert()


def stream_frames(video: Video) -> Iterator[Frame]:
    """Decode a video from its first frame to its last, holding one frame at a time.

    A file always by PyAV; of a folder only frames whose pixels are asked for are read. The clock is
    that of a player: where the sound begins before the pictures, the first frame has a time
    above 0.

    Raises:
        ValueError: A frame cannot be decoded.
    """
    if video.is_folder:
        for number in range(len(video)):
            yield Frame(number, number / video.fps, partial(_frame_of_folder, video, number))
        return
    reformatter = av.video.reformatter.VideoReformatter()
    with open_container(video.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = 'AUTO'
        began = (container.start_time or 0) / av.time_base
        try:
            for number, decoded in enumerate(decoded_frames(container)):
                if decoded.pts is None or not stream.time_base:
                    time = number / video.fps
                else:
                    time = decoded.pts * stream.time_base - began
                yield Frame(number, float(time), partial(as_shown, decoded, reformatter))
        except av.error.FFmpegError as error:
            raise ValueError(f'it cannot be decoded further: {error}') from error


def as_shown(decoded: Any, reformatter: Any) -> np.ndarray:
    """Return the pixels of a decoded frame, RGB of uint8, turned as a player turns them."""
    return apply_rotation(reformatter.reformat(decoded, format='rgb24').to_ndarray(), decoded)


def _frame_of_folder(video: Video, number: int) -> np.ndarray:
    return video.frames([number])[0]


def open_video(video: str | PathLike[str], fps: float | None = None) -> Video:
    """Open a file, or a folder of frames.

    Args:
        video: Its path.
        fps: Frames per second of a folder.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It cannot be read.
    """
    path = Path(video).expanduser()
    check_exists(path, str(video))
    try:
        return Video(path, fps=fps)
    except ValueError as error:
        raise ValueError(error_message(error, path, str(video))) from error


def first_frame_folder(paths: Iterable[Path]) -> Path | None:
    """Return the first path that is a folder of frames; names of videos are not looked up."""
    return next((path for path in paths if not is_video(path.name) and is_frame_folder(path)), None)


def fps_note(video: str | PathLike[str], fps: float | None = None) -> str:
    """Return a line on the frame rate that is assumed for a folder of frames; else ``''``."""
    if fps is not None or not is_frame_folder(Path(video).expanduser()):
        return ''
    return (
        f'{safe_text(video)} is a folder of frames, which has no frame rate: {ASSUMED_FPS:g} '
        'frames per second are assumed; give --fps'
    )


def check_exists(path: Path, name: str = '') -> None:
    """Refuse a file or folder that is not there, and an address.

    ``name`` is what was given, if that is not the path: ``Path`` takes a slash out of ``rtsp://``.

    Raises:
        FileNotFoundError: There is no such file.
    """
    shown = name or str(path)
    if is_file(path) or is_folder(path):
        return
    if is_address(shown):
        raise FileNotFoundError(address_refused(shown))
    raise FileNotFoundError(
        f'the video {shown} does not exist (looked in {path.absolute().parent}); correct the path'
    )


def is_file(path: Path) -> bool:
    """Whether there is a regular file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def error_message(error: BaseException, path: Path | None, name: str) -> str:
    """Return why a video cannot be read, in more helpful words than those of the reader."""
    if path is not None and is_file(path):
        if not path.stat().st_size:
            return f'the video {name} is an empty file'
        if _holds_sound_alone(path):
            return f'the video {name} holds sound and no pictures'
        if 'Invalid data found' in str(error):
            size = path.stat().st_size
            return f'the video {name} ({size:,} bytes) is no video file, or it is cut off'
    text = (' '.join(str(error).split()) or type(error).__name__).partition('; replace the file')[0]
    text = re.sub(r'\[Errno -?\d+\] ', '', text).replace(f": '{path}'", '')
    return text if name in text else f'the video {name} cannot be read: {text}'


def short_reason(error: BaseException, path: Path | None, name: str) -> str:
    """Return the same without the name of the video."""
    message = error_message(error, path, name).removeprefix(f'the video {name} ')
    return re.sub(r'^\([\d,]+ bytes\) ', '', message)


def _holds_sound_alone(path: Path) -> bool:
    try:
        with open_demuxer(path) as container:
            return bool(container.streams.audio) and not container.streams.video
    except (av.error.FFmpegError, ValueError, OSError):
        return False
