"""Readers of other libraries, decord and torchcodec, refused where they would return wrong frames.

On open groups of pictures, MPEG-TS, AVI, and files that were cut between keyframes both return
other frames than those that were asked for, without an error (``benchmarks/readers.py``). So a file
is opened by them only if each packet is a frame whose number follows from its time
(:class:`.PacketIndex`), and what they find is compared with that index:

- torchcodec returns the time of each frame: a frame with another time than that of its number is an
  error;
- decord does not: files in which its seeking is known to fail are refused.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.datasets.video_io.pyav_reader import PacketIndex, index_packets
from mmtimesformer.datasets.video_io.safe_open import (
    KEPT_PIXELS,
    check_for_other_library,
    open_container,
)

USE_OURS = 'set reader to pyav or auto'
TORCHCODEC = 'torchcodec==0.13.0'  # the newest that imports with torch's CPU build


class CheckedFile:
    """The index of a file that another library is to read.

    Args:
        path: The file.
        reader: The library.

    Attributes:
        stream: Place of the video among the file's streams.
        unit: Seconds of one unit of time.
        times: When each frame is shown, in these units.

    Raises:
        ValueError: The library would not give the frames that PyAV gives under these numbers.
    """

    def __init__(self, path: Path, reader: str) -> None:
        self.reader = reader
        check_for_other_library(path, reader)
        with open_container(path) as container:
            stream = container.streams.video[0]
            decoder = stream.codec_context
            if decoder.width * decoder.height > KEPT_PIXELS:  # decord takes 30 bytes for each
                raise ValueError(
                    f'frames of {decoder.width} x {decoder.height} pixels are too large for '
                    f'{reader}'
                )
            if stream.frames > path.stat().st_size:
                raise ValueError(f'its header states {stream.frames:,} frames; that is too many')
            self.index = index_packets(container)
            self.stream, self.unit = stream.index, stream.time_base
            self.fps = float(stream.average_rate or stream.guessed_rate or 0)
        if not self.index.indexed or self.index.marked != len(self.index.keys):
            self.refuse('its time stamps and keyframes do not identify each frame')
        self.times = [self.index.times[i] for i in self.index.shown]

    def refuse(self, reason: str) -> None:
        """Raise the error about a file whose frames the library may number in another way."""
        raise ValueError(
            f'{self.reader} may number its frames in another way than PyAV ({reason}); {USE_OURS}'
        )

    def check_length(self, length: int) -> None:
        """Raise ``ValueError`` if the library finds another number of frames."""
        if length != len(self.times):
            self.refuse(f'it finds {length}, PyAV {len(self.times)}')

    def check_indices(self, indices: Sequence[int]) -> None:
        """Raise ``ValueError`` if a frame is not there; the libraries count -1 from the end."""
        for number in indices:
            if not 0 <= number < len(self.times):
                raise ValueError(f'frame {number} of {len(self.times)} is not there')


class DecordReader:
    """A video through decord, if it has no group of pictures whose frames decord mistakes.

    Args:
        path: The file.
        num_threads: Threads that decode.

    Raises:
        ValueError: decord would not give the frames that PyAV gives under these numbers.
    """

    def __init__(self, path: Path, num_threads: int) -> None:
        import decord

        self._file = CheckedFile(path, 'decord')
        if has_open_group(self._file.index):
            self._file.refuse('in an open group of pictures it finds other frames')
        # An absolute path, see open_demuxer
        self.container = decord.VideoReader(str(path.absolute()), num_threads=num_threads)
        self._file.check_length(len(self.container))
        if not self._agrees([time * self._file.unit for time in self._file.times]):
            self._file.refuse('it finds other times')
        self.fps = float(self.container.get_avg_fps())

    def _agrees(self, times: Sequence[Any]) -> bool:
        """Whether frames are shown at these times, in seconds, from the first on."""
        theirs = self.container.get_frame_timestamp(range(len(times)))[:, 0]
        ours = np.array([float(time - times[0]) for time in times])
        # They are of single precision.
        return bool(np.allclose(theirs - theirs[0], ours, rtol=1e-5, atol=2e-3))

    def __len__(self) -> int:
        return len(self.container)

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        self._file.check_indices(indices)
        return list(self.container.get_batch(list(indices)).asnumpy())


def has_open_group(index: PacketIndex) -> bool:
    """Whether a frame is stored after a keyframe and shown before it."""
    return any(
        min(index.times[key:following]) < index.times[key]
        for key, following in pairwise([*index.keys, len(index.times)])
    )


class TorchCodecReader:
    """A video through torchcodec, each frame compared with the file's index by its time.

    Args:
        path: The file.
        num_threads: Threads that decode on a CPU.
        device: Where it decodes, ``'cpu'`` or ``'cuda'``. Frames are copied to the CPU.

    Raises:
        ValueError: torchcodec finds another number of frames.
        ModuleNotFoundError: It cannot be imported.
    """

    def __init__(self, path: Path, num_threads: int, device: str = 'cpu') -> None:
        decoder = torchcodec_decoder()
        self._file = CheckedFile(path, 'torchcodec')
        self._video = decoder(
            str(path.absolute()),
            stream_index=self._file.stream,
            dimension_order='NHWC',
            num_ffmpeg_threads=num_threads,
            device=device,
        )
        self._file.check_length(len(self._video))
        self.fps = self._file.fps

    def __len__(self) -> int:
        return len(self._file.times)

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Decode frames, in the order asked for.

        Raises:
            ValueError: A frame is not there, or another one came.
        """
        self._file.check_indices(indices)
        batch = self._video.get_frames_at(indices=list(indices))
        for number, seconds in zip(indices, batch.pts_seconds.tolist(), strict=True):
            if round(seconds / self._file.unit) != self._file.times[number]:
                shown = float(self._file.times[number] * self._file.unit)
                self._file.refuse(
                    f'frame {number} is shown at {shown:.3f} s, and the one of {seconds:.3f} s came'
                )
        return list(batch.data.cpu().numpy())


@cache
def torchcodec_decoder() -> Any:
    """Import torchcodec's ``VideoDecoder``.

    Raises:
        ModuleNotFoundError: It is not installed, or its libraries cannot be loaded.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError:
        reason = 'is not installed'
    except (ImportError, OSError, RuntimeError):  # of CUDA, of FFmpeg, or of another torch
        reason = "is installed, but cannot load FFmpeg's libraries or those of its torch"
    else:
        return VideoDecoder
    raise ModuleNotFoundError(
        f"reader='torchcodec' needs torchcodec, which {reason}; with torch's CPU build: pip "
        f"install --no-deps {TORCHCODEC}, with FFmpeg's libraries on the machine; or set reader "
        'to auto'
    )
