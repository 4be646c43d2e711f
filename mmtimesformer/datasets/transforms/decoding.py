"""Files become frames: open a video by its path, decode the frames that were asked for.

A path may be that of a folder of JPG or PNG frames (:mod:`.frame_folder`): whatever opens a video
opens it here, so a folder is accepted wherever a file is.

PyAV decodes, and no more than the frames need (:mod:`.pyav_reader`); decord stands by for files
that PyAV cannot decode, if it numbers their frames alike (:mod:`.checked_readers`). Both are FFmpeg
underneath and give the same pixels to within the rounding of colours, 3 of 255; which of them reads
a file is decided by the file alone. A file has one numbering: frame ``k`` is the ``k``-th of
decoding everything.

NOTE: files are opened by path. MMAction2 reads them into memory first, and decord then crashes the
process on about one in ten truncated files instead of raising an error.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_start_method
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import get_worker_info

from mmtimesformer.datasets.transforms.transform import Transform
from mmtimesformer.datasets.video_io.checked_readers import (
    DecordReader,
    TorchCodecReader,
    torchcodec_decoder,
)
from mmtimesformer.datasets.video_io.errors import UnreadableVideo
from mmtimesformer.datasets.video_io.frame_folder import (
    FrameFolderReader,
    FrameNames,
    is_frame_archive,
)
from mmtimesformer.datasets.video_io.pyav_reader import SparsePyAVReader
from mmtimesformer.datasets.video_io.safe_open import check_file, is_folder, unreadable
from mmtimesformer.registry import TRANSFORMS

T = TypeVar('T')


READERS: dict[str, Callable[..., Any]] = {
    'decord': DecordReader,
    'pyav': SparsePyAVReader,
    'torchcodec': TorchCodecReader,
}


def check_reader(reader: str, device: str) -> None:
    """Refuse a reader or device that cannot be used here.

    Raises:
        ValueError: There is no such reader, or it does not decode on that device.
        ModuleNotFoundError: torchcodec cannot be imported.
    """
    if reader != 'auto' and reader not in READERS:
        raise ValueError(
            f'reader={reader!r} is not known; set it to auto, decord, pyav or torchcodec'
        )
    if reader == 'torchcodec':
        torchcodec_decoder()
    if device == 'cpu':
        return
    if reader != 'torchcodec' or device.partition(':')[0] != 'cuda':
        raise ValueError(
            f"device={device!r} is not possible with reader={reader!r}; set device to 'cpu', or "
            "to 'cuda' with reader='torchcodec'"
        )
    if get_worker_info() is not None and get_start_method() == 'fork':
        raise ValueError(
            f'device={device!r} is not possible in DataLoader workers that are forked; set '
            "multiprocessing_context='spawn' in the dataloader, or num_workers=0"
        )
    if not torch.cuda.is_available():
        raise ValueError(f"device={device!r} needs a GPU, and torch finds none; set it to 'cpu'")


class Video:
    """A video whose frames can be asked for by number: a file, or a folder of JPG or PNG frames.

    Args:
        path: The file, or the folder (:mod:`..video_io.frame_folder`).
        reader: ``'pyav'``; ``'decord'`` or ``'torchcodec'``, which refuse a file whose frames they
            may number in another way; or ``'auto'``: PyAV, and for what it cannot decode decord,
            where that is installed. (decord fails on some narrow frames, AV1 and GIF, and takes
            1.1 to 3 times as long.)
        num_threads: Threads that decode; 1 is best where DataLoader workers use all cores.
        name: What the video is called in errors, if that is not its path.
        fps: Frames per second of a folder, which has no rate of its own; ``None`` for
            ``ASSUMED_FPS``.
        frames: How the frames of a folder are named, or their names in order.
        device: Where torchcodec decodes: ``'cpu'``, or ``'cuda'`` (not measured by us).

    Attributes:
        fps: Frames per second.
        fps_is_assumed: Whether nothing gives the rate of a folder, and ``ASSUMED_FPS`` is used.
        is_folder: Whether its frames are images.

    Raises:
        MissingVideo: There is no such file or folder.
        UnreadableVideo: It cannot be read as a video, or holds no frame; a ``ValueError``.
    """

    def __init__(
        self,
        path: str | Path,
        reader: str = 'auto',
        num_threads: int = 1,
        name: str = '',
        fps: float | None = None,
        frames: FrameNames | Sequence[str] | None = None,
        device: str = 'cpu',
    ) -> None:
        self.path = Path(path)
        self.name = name
        self.num_threads = num_threads
        self.device = device
        check_reader(reader, device)
        if reader == 'auto':
            self._readers = ['pyav', 'decord'] if _is_installed('decord') else ['pyav']
        else:
            self._readers = [reader]
        self._given = frames, fps
        named = frames is not None and not isinstance(frames, FrameNames)
        self.is_folder = named or is_folder(self.path)
        if not self.is_folder:
            check_file(self.path, name)
            self.is_folder = is_frame_archive(self.path)
        if self.is_folder:
            self._readers = ['']
        self.fps_is_assumed = self.is_folder and fps is None
        self._reader: Any = None
        self._length, self.fps = self._ask(lambda reader: (len(reader), reader.fps))
        if self._length < 1:
            raise unreadable(self.path, 'it holds no frame', self._readers[0], name)
        total = frames.total if isinstance(frames, FrameNames) else None
        if total is not None and total != self._length:  # of a file among folders
            why = f'the list gives {total} frames, and there are {self._length}'
            raise unreadable(self.path, why, '', name)

    def __len__(self) -> int:
        return self._length

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Decode frames, in the order asked for, each ``(H, W, 3)`` RGB ``uint8``.

        Raises:
            UnreadableVideo: A frame cannot be decoded.
        """
        return self._ask(lambda reader: reader.frames(indices))

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Put a question to the current reader; where it fails, go over to the next for good."""
        try:
            if self._reader is None:
                self._reader = self._open()
            return question(self._reader)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # decord and PyAV have many error classes
            refused = unreadable(self.path, _in_words(error), self._readers[0], self.name)
            refused.__cause__ = error
        if len(self._readers) > 1 and not isinstance(refused.__cause__, TimeoutError):
            self._reader = None
            first = self._readers.pop(0)
            try:
                return self._ask(question)
            except UnreadableVideo:
                self._readers = [first]
        raise refused

    def _open(self) -> Any:
        if self.is_folder:
            return FrameFolderReader(self.path, *self._given)
        options = {} if self.device == 'cpu' else {'device': self.device}
        return READERS[self._readers[0]](self.path, self.num_threads, **options)


@cache  # or it would take a millisecond for each video
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _in_words(error: Exception) -> str:
    message = getattr(error, 'strerror', None) or str(error)  # without number and file
    return next(iter(message.strip().splitlines()), type(error).__name__)


@TRANSFORMS.register_module()
class VideoInit(Transform):
    """Open the video named by ``filename``; where that is no path, the file ``local_path``.

    A folder of frames is opened like a file; where they are known, ``fps`` and ``frames`` are used
    (:class:`Video`). It takes the place of MMAction2's ``DecordInit`` or ``PyAVInit``;
    :class:`VideoDecode` goes with it. Added keys: ``video_reader``, ``total_frames``, ``avg_fps``
    (frames per second).

    Args:
        reader: ``'pyav'``, ``'decord'``, ``'torchcodec'`` or ``'auto'``, see :class:`Video`.
        num_threads: Threads that decode one video.
        device: Where torchcodec decodes: ``'cpu'``, or ``'cuda'`` (not measured by us), which in
            DataLoader workers needs ``multiprocessing_context='spawn'``.
    """

    def __init__(self, reader: str = 'auto', num_threads: int = 1, device: str = 'cpu') -> None:
        check_reader(reader, device)
        self.reader = reader
        self.num_threads = num_threads
        self.device = device

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        name = str(results['filename'])
        path = results.get('local_path', name)
        frames, fps = results.get('frames'), results.get('fps')
        video = Video(path, self.reader, self.num_threads, name, fps, frames, self.device)
        results['video_reader'] = video
        results['total_frames'] = len(video)
        results['avg_fps'] = video.fps
        return results


def openers(transforms: Sequence[Any]) -> Iterator[str]:
    """Yield the names of the transforms that open videos, inside wrappers too."""
    for transform in transforms:
        yield from openers(getattr(transform, 'transforms', ()))
        if type(transform).__name__.endswith('Init'):
            yield type(transform).__name__


@TRANSFORMS.register_module()
class VideoDecode(Transform):
    """Decode the frames ``frame_inds`` of the video that :class:`VideoInit` opened.

    Added keys: ``imgs`` (a list of ``(H, W, 3)`` RGB ``uint8`` arrays), ``original_shape`` and
    ``img_shape``, both ``(H, W)`` in pixels. The reader is let go.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        video: Video = results.pop('video_reader')
        results['imgs'] = video.frames(np.asarray(results['frame_inds']).reshape(-1).tolist())
        results['original_shape'] = results['img_shape'] = results['imgs'][0].shape[:2]
        return results
