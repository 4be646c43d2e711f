"""Opening a file that may be anything: what can do harm is refused before a decoder sees it.

Decoders are C. What makes them hang, crash or fill the memory was found by trying, and is looked
for first:

- a pipe or a device, which is waited for until somebody writes, and may never end: a video is a
  regular file;
- text. Some texts are lists of other files, local and distant ones, and FFmpeg opens those
  (``#EXTM3U``); a video is never text, and the first words of one tell what it is instead (an error
  page, a pointer of Git LFS);
- a header that tells of more frames than the file has bytes, for which decord wants the memory;
- frames of more than ``MAX_PIXELS`` pixels, of which one takes hundreds of megabytes; and those so
  narrow that they would become as large once their short side is resized to some hundred pixels.

What is left cannot wait for anything but its disk, and so long as ``PATIENCE``.
"""

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mmtimesformer.datasets.bad_videos import MissingVideo, UnreadableVideo

T = TypeVar('T')

MAX_PIXELS = 2**27  # 16384 x 8192 of a frame as it is stored
MAX_ASPECT = 64  # of a frame's long side to its short side
KEPT_PIXELS = 4096 * 2304  # of a frame as it is handed on; larger ones are made smaller
PATIENCE = 60  # seconds to open a video, and to decode a clip of it; both take milliseconds
TEXT_BYTES = 256  # looked at to tell whether a file is text

_IS_NO_FILE = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}


def unreadable(path: Path, reason: str, reader: str = '', name: str = '') -> UnreadableVideo:
    """Write the letter about a video that cannot be read, by its name if that is not its path."""
    try:
        size = f' ({path.stat().st_size} bytes)'
    except OSError:
        size = ''
    by = f' by {reader}' if reader else ''
    return UnreadableVideo(
        f'the video {name or path}{size} cannot be read{by}: {reason}; replace the file, or take '
        'its line out of the annotation file',
        reason,
    )


def check_file(path: Path, name: str = '') -> None:
    """Refuse what is no regular file, has nothing in it, or is text.

    Raises:
        MissingVideo: There is no such file.
        UnreadableVideo: It is none of a video.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind != stat.S_IFREG:
            raise unreadable(path, f'it is {_IS_NO_FILE.get(kind, "no file")}', name=name)
        with path.open('rb') as file:
            beginning = file.read(TEXT_BYTES)
    except FileNotFoundError:
        raise MissingVideo(
            f'the video {name or path} does not exist; correct the annotation file or data_prefix',
            'it does not exist',
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise unreadable(path, reason[0].lower() + reason[1:], name=name) from None
    if not beginning:
        raise unreadable(path, 'it is empty', name=name)
    if _is_text(beginning):
        words = ' '.join(beginning.decode('utf-8', 'replace').split())[:40]
        raise unreadable(path, f'it is text, which begins {words!r}', name=name)


def open_container(path: Path) -> Any:
    """Open a video in PyAV, and refuse what its header alone rules out.

    Raises:
        ValueError: The header rules it out.
        Exception: PyAV cannot open it.
    """
    import av

    # An absolute path: FFmpeg would take `a:b.mp4` for a file `b.mp4` of the protocol `a`.
    container = av.open(
        str(path.absolute()),
        options={'protocol_whitelist': 'file'},
        metadata_errors='replace',  # titles in other alphabets than UTF-8
        timeout=PATIENCE,
    )
    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams})
        raise ValueError(f'it holds no video, only {" and ".join(kinds) or "a header"}')
    stream = container.streams.video[0]
    decoder = stream.codec_context
    if decoder is None:
        raise ValueError('its codec is not known')
    width, height = decoder.width, decoder.height
    if width * height > MAX_PIXELS:
        raise ValueError(f'its frames have {width} x {height} pixels, more than {MAX_PIXELS:,}')
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f'its frames have {width} x {height} pixels, and are too narrow')
    if stream.frames > path.stat().st_size:
        raise ValueError(f'its header tells of {stream.frames:,} frames, more than it has bytes')
    return container


def kept_size(width: int, height: int) -> tuple[int, int]:
    """Return the size at which a frame is handed on: its own, or ``KEPT_PIXELS`` at most."""
    shrunk = min(1, (KEPT_PIXELS / (width * height)) ** 0.5)
    return max(1, int(width * shrunk)), max(1, int(height * shrunk))


def in_time(items: Iterable[T], doing: str) -> Iterator[T]:
    """Hand items on, for so long as ``PATIENCE``.

    Raises:
        TimeoutError: It takes longer.
    """
    end = time.monotonic() + PATIENCE
    for item in items:
        if time.monotonic() > end:
            raise TimeoutError(f'{doing} it takes more than {PATIENCE} seconds')
        yield item


def _is_text(beginning: bytes) -> bool:
    if beginning.startswith(b'YUV4MPEG2'):  # words, and then pixels
        return False
    return not any(byte < 32 and byte not in b'\t\n\v\f\r' for byte in beginning)
