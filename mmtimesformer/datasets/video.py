"""Files become frames: open a video by its path, decode the frames that were asked for.

decord decodes where it has a wheel (x86-64 Linux and Windows), PyAV everywhere else; both are
FFmpeg underneath and give the same pixels to within the rounding of colours.

NOTE: files are opened by path. MMAction2 reads them into memory first, and decord then crashes the
process on about one in ten truncated files instead of raising an error.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mmcv.transforms import BaseTransform

from mmtimesformer.registry import TRANSFORMS

T = TypeVar('T')


class DecordReader:
    """A video through decord."""

    def __init__(self, path: Path, num_threads: int) -> None:
        import decord

        self.container = decord.VideoReader(str(path), num_threads=num_threads)
        self.fps = float(self.container.get_avg_fps())

    def __len__(self) -> int:
        return len(self.container)

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        return list(self.container.get_batch(list(indices)).asnumpy())


class PyAVReader:
    """A video through PyAV; frames are decoded in order, up to the last that is wanted."""

    def __init__(self, path: Path, num_threads: int) -> None:
        self.path = path
        self.num_threads = num_threads
        self._opened = self._open()  # opening costs as much as decoding a few small frames
        stream = self._opened.streams.video[0]
        self.fps = float(stream.average_rate or stream.guessed_rate or 0)
        self.length = stream.frames
        if not self.length:  # some containers do not say; then count the packets, and begin anew
            with self._opened as container:
                self.length = sum(packet.size > 0 for packet in container.demux(stream))
            self._opened = None

    def __len__(self) -> int:
        return self.length

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        import av

        wanted, found = set(map(int, indices)), {}
        # One converter of colours for all frames: to_ndarray(format='rgb24') would set up one for
        # each, which costs more than decoding a small frame.
        reformatter = av.video.reformatter.VideoReformatter()
        container, self._opened = self._opened or self._open(), None
        with container:
            container.streams.video[0].thread_count = self.num_threads
            for i, frame in enumerate(container.decode(video=0)):
                if i in wanted:
                    found[i] = reformatter.reformat(frame, format='rgb24').to_ndarray()
                if i >= max(wanted):
                    break
        if len(found) < len(wanted):
            missing = sorted(wanted - set(found))
            raise ValueError(f'frame {missing[0]} of {len(self)} is not there')
        return [found[int(i)] for i in indices]

    def _open(self) -> Any:
        import av

        return av.open(str(self.path))


READERS: dict[str, Callable[[Path, int], Any]] = {'decord': DecordReader, 'pyav': PyAVReader}


class Video:
    """A video file whose frames can be asked for by number.

    Args:
        path: The file.
        reader: ``'decord'``, ``'pyav'``, or ``'auto'``: decord where it is installed, and PyAV for
            what decord cannot read (it fails on some narrow frames, AV1 and GIF).
        num_threads: Threads that decode; 1 is best where data-loader workers share the cores.

    Attributes:
        fps: Frames per second.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read as a video, or holds no frame.
    """

    def __init__(self, path: str | Path, reader: str = 'auto', num_threads: int = 1) -> None:
        self.path = Path(path)
        self.num_threads = num_threads
        if not self.path.is_file():
            raise FileNotFoundError(
                f'the video {path} does not exist; correct the annotation file or data_prefix'
            )
        if reader != 'auto' and reader not in READERS:
            raise ValueError(f'reader={reader!r} is not known; set it to auto, decord or pyav')
        if reader == 'auto':
            self._readers = ['decord', 'pyav'] if find_spec('decord') else ['pyav']
        else:
            self._readers = [reader]
        self._reader: Any = None
        self._length, self.fps = self._ask(lambda reader: (len(reader), reader.fps))
        if self._length < 1:
            raise ValueError(self._unreadable('it holds no frame'))

    def __len__(self) -> int:
        return self._length

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Decode frames, in the order asked for, each ``(H, W, 3)`` RGB ``uint8``.

        Raises:
            ValueError: A frame cannot be decoded.
        """
        return self._ask(lambda reader: reader.frames(indices))

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Put a question to the current reader; where it fails, go over to the next for good."""
        try:
            if self._reader is None:
                self._reader = READERS[self._readers[0]](self.path, self.num_threads)
            return question(self._reader)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # decord and PyAV have a class for each way to say no
            if len(self._readers) == 1:
                raise ValueError(self._unreadable(error)) from error
        self._reader = None
        del self._readers[0]
        return self._ask(question)

    def _unreadable(self, why: object) -> str:
        reason = next(iter(str(why).strip().splitlines()), type(why).__name__)
        return (
            f'the video {self.path} ({self.path.stat().st_size} bytes) cannot be read by '
            f'{self._readers[0]}: {reason}; replace the file, or take its line out of the '
            'annotation file'
        )


@TRANSFORMS.register_module()
class VideoInit(BaseTransform):
    """Open the video named by ``filename``.

    It takes the place of MMAction2's ``DecordInit`` or ``PyAVInit``; :class:`VideoDecode` goes with
    it. Added keys: ``video_reader``, ``total_frames``, ``avg_fps`` (frames per second).

    Args:
        reader: ``'decord'``, ``'pyav'``, or ``'auto'``: decord where it is installed.
        num_threads: Threads that decode one video.
    """

    def __init__(self, reader: str = 'auto', num_threads: int = 1) -> None:
        self.reader = reader
        self.num_threads = num_threads

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        video = Video(results['filename'], self.reader, self.num_threads)
        results['video_reader'] = video
        results['total_frames'] = len(video)
        results['avg_fps'] = video.fps
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(reader={self.reader!r}, num_threads={self.num_threads})'


@TRANSFORMS.register_module()
class VideoDecode(BaseTransform):
    """Decode the frames ``frame_inds`` of the video that :class:`VideoInit` opened.

    Added keys: ``imgs`` (a list of ``(H, W, 3)`` RGB ``uint8`` arrays), ``original_shape`` and
    ``img_shape``, both ``(H, W)`` in pixels. The reader is let go.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        video: Video = results.pop('video_reader')
        results['imgs'] = video.frames(np.asarray(results['frame_inds']).reshape(-1).tolist())
        results['original_shape'] = results['img_shape'] = results['imgs'][0].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
