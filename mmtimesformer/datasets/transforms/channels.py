"""Clips of one or many channels: grey frames, a second file such as depth, and array files.

A frame is ``(H, W, channels)``. The model needs ``backbone.in_channels`` and the mean and standard
deviation of each channel in ``data_preprocessor``; the start of a run checks them.

Resizing: OpenCV, and so MMAction2's ``Resize``, takes the last axis off a frame of one channel.
``ShortSideResize`` and ``ShortSideJitter`` take any number of channels; ``ToGrey`` may also stand
at the end, before ``FormatClips``.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.errors import MissingVideo, UnreadableVideo
from mmtimesformer.fileio.numpy_files import read_npy_file
from mmtimesformer.registry import TRANSFORMS

MOST_CHANNELS = 64
MOST_PIXELS = 16384 * 16384  # of a frame
FIX = 'write it with np.save as (frames, height, width, channels) of uint8 or float32'


@TRANSFORMS.register_module()
class ToGrey(BaseTransform):
    """Turn RGB frames into frames of one channel, by the luma of ITU-R BT.601.

    Required and changed key: ``imgs``.

    Shape:
        - imgs: a list of ``H W 3`` -> ``H W 1``, of the same type

    Raises:
        ValueError: A frame has other than 3 channels.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        found = results['imgs'][0].shape[-1]
        if found != 3:
            raise ValueError(f'ToGrey needs frames of 3 channels and got {found}; remove it')
        results['imgs'] = [
            cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)[..., None]
            for frame in results['imgs']
        ]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class AppendChannels(BaseTransform):
    """Append the channels of a second file to each frame, such as depth to RGB.

    It stands right after ``VideoDecode``, before any resize or crop. The second file has the name
    of the video with another ending: ``a/run.mp4`` and ``suffix='_depth.npy'`` give
    ``a/run_depth.npy``. It is an array file, see :class:`ArrayInit`, or a video, of whose grey
    frames one channel is taken. It must have as many frames, of the same size.

    Required keys: ``filename``, ``frame_inds``, ``total_frames``, ``imgs``. Changed key: ``imgs``.

    Args:
        suffix: What takes the place of the ending of the video's name.
        channels: Channels of the second file.

    Shape:
        - imgs: a list of ``H W c`` -> ``H W (c + channels)``

    Raises:
        UnreadableVideo: The second file is missing, damaged, or of another length or size.
    """

    def __init__(self, suffix: str, channels: int = 1) -> None:
        if Path(suffix).suffix == '' or '/' in suffix:
            raise ValueError(
                f"suffix={suffix!r} is no end of a file name; set one such as '_depth.npy'"
            )
        self.suffix = suffix
        self.channels = channels

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        video = Path(str(results['filename']))
        path = video.with_name(video.stem + self.suffix)
        indices = np.asarray(results['frame_inds']).reshape(-1)
        length, more = self._read(path, indices)
        if length != results['total_frames']:
            _refuse(path, f'it has {length} frames and {video.name} {results["total_frames"]}')
        for frame, other in zip(results['imgs'], more, strict=True):
            if other.shape != (*frame.shape[:2], self.channels) or other.dtype != frame.dtype:
                _refuse(
                    path,
                    f'its frames are {other.shape} of {other.dtype}, those of {video.name} '
                    f'{frame.shape} of {frame.dtype}, and channels={self.channels}',
                )
        results['imgs'] = [
            np.concatenate(pair, axis=-1) for pair in zip(results['imgs'], more, strict=True)
        ]
        return results

    def _read(self, path: Path, indices: np.ndarray) -> tuple[int, list[np.ndarray]]:
        """Return the number of frames, and some of them."""
        if path.suffix.lower() == '.npy':
            array = open_array(path)
            return len(array), [np.array(array[min(i, len(array) - 1)]) for i in indices]
        if not path.is_file():
            raise MissingVideo(f'the file {path} does not exist; add it', 'it does not exist')
        video = Video(path)
        kept = np.minimum(indices, len(video) - 1).tolist()
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None] for frame in video.frames(kept)]
        return len(video), grey

    def __repr__(self) -> str:
        return f'{type(self).__name__}(suffix={self.suffix!r}, channels={self.channels})'


def open_array(path: Path) -> np.ndarray:
    """Map an array file of frames into memory; only the frames that are used are read.

    Shape:
        - array: ``t H W c`` of uint8 (0 to 255) or float32

    Raises:
        MissingVideo: There is no such file.
        UnreadableVideo: It holds something else.
    """
    if not path.is_file():
        raise MissingVideo(f'the file {path} does not exist; correct the list', 'it does not exist')
    try:
        array = read_npy_file(path)
    except ValueError as error:
        raise UnreadableVideo(str(error), 'it is no array of numbers') from error
    if array.ndim != 4 or 0 in array.shape:
        _refuse(path, f'it has shape {array.shape}')
    if array.dtype not in (np.uint8, np.float32):
        _refuse(path, f'it has numbers of {array.dtype}')
    if array.shape[-1] > MOST_CHANNELS or array.shape[1] * array.shape[2] > MOST_PIXELS:
        _refuse(path, f'frames of {array.shape[1:]} are too large')
    return array


def _refuse(path: Path, why: str) -> None:
    raise UnreadableVideo(f'{path} cannot be used: {why}; {FIX}', why)


@TRANSFORMS.register_module()
class ArrayInit(BaseTransform):
    """Open an array file ``.npy`` of frames ``(t, H, W, channels)``, instead of a video.

    It takes the place of ``VideoInit``; :class:`ArrayDecode` goes with it. Numbers are uint8 or
    float32; nothing is scaled, so ``data_preprocessor`` has the mean and deviation of these very
    numbers. Added keys: ``array``, ``total_frames``, ``avg_fps``.

    Args:
        channels: Channels that each file must have.
        fps: Frames per second, for samplers that count seconds.

    Raises:
        UnreadableVideo: A file is missing, damaged, or of another shape or type.
    """

    def __init__(self, channels: int, fps: float = 30.0) -> None:
        self.channels = channels
        self.fps = fps

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        path = Path(str(results.get('local_path', results['filename'])))
        array = open_array(path)
        if array.shape[-1] != self.channels:
            _refuse(path, f'it has {array.shape[-1]} channels and ArrayInit.channels is '
                          f'{self.channels}')  # fmt: skip
        results.update(array=array, total_frames=len(array), avg_fps=self.fps)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(channels={self.channels}, fps={self.fps})'


@TRANSFORMS.register_module()
class ArrayDecode(BaseTransform):
    """Read the frames ``frame_inds`` of the array that :class:`ArrayInit` opened.

    Added keys: ``imgs`` (a list of ``(H, W, channels)`` arrays), ``original_shape``, ``img_shape``.

    Raises:
        UnreadableVideo: A number is NaN or infinite.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        array = results.pop('array')
        indices = np.asarray(results['frame_inds']).reshape(-1)
        results['imgs'] = [np.array(array[i]) for i in indices]
        if not all(np.isfinite(frame).all() for frame in results['imgs']):
            _refuse(Path(str(results['filename'])), 'it has NaN or infinite numbers')
        results['original_shape'] = results['img_shape'] = results['imgs'][0].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
