"""Open untrusted video files safely: refuse what can crash, hang or mislead a decoder.

Decoders are C. What makes them hang, crash, fill the memory or open other files was found by
trying, and is refused first:

- a pipe or a device, which is waited for until somebody writes, and may never end: a video is a
  regular file;
- a container that is not in ``CONTAINERS``. FFmpeg also opens playlists (HLS, DASH, ffconcat),
  session descriptions, sequences of pictures and scripts, and reads the files and addresses that
  they name. Its own detection decides, so neither the ending nor text inside the file matters, and
  the refusal comes before the header is read. Nothing but the named file is ever opened;
- a header that promises more frames than the file has bytes, for which decord wants the memory;
- frames of more than ``MAX_PIXELS`` pixels, of which one takes hundreds of megabytes; and those so
  narrow that they would become as large once their short side is resized to some hundred pixels.

What is left cannot wait for anything but its disk, and so long as ``PATIENCE``.

NOTE: every file is opened by :func:`open_demuxer`; a test searches for other calls of ``av.open``.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mmtimesformer.datasets.video_io.errors import MissingVideo, UnreadableVideo

T = TypeVar('T')

MAX_PIXELS = 2**27  # 16384 x 8192 of a frame as it is stored
MAX_ASPECT = 64  # of a frame's long side to its short side
KEPT_PIXELS = 4096 * 2304  # of a frame as it is handed on; larger ones are made smaller
PATIENCE = 60  # seconds to open a video, and to decode a clip of it; both take milliseconds
HEAD_BYTES = 512  # read to recognize what a file is

# FFmpeg's names of the containers that are read, each a file of its own pictures. Not in the list:
# hls, dash, concat, imf, sdp, image2, vobsub, mlv (read other files), lavfi, tty, subtitles
# (draw pictures), single pictures, sound.
CONTAINERS = (
    # files
    *('mov', 'mp4', 'm4a', '3gp', '3g2', 'mj2', 'matroska', 'webm', 'avi', 'asf', 'asf_o'),
    *('flv', 'live_flv', 'kux', 'mpegts', 'mpeg', 'ogg', 'gif', 'apng', 'mxf', 'gxf', 'lxf', 'dv'),
    *('nut', 'ivf', 'rm', 'wtv', 'nsv', 'nuv', 'pva', 'ty', 'dhav', 'yuv4mpegpipe'),
    *('bink', 'smk', 'roq', 'flic', 'film_cpk', 'vmd', '4xm'),
    # streams of one codec, without a container
    *('h261', 'h263', 'h264', 'hevc', 'vvc', 'evc', 'm4v', 'mpegvideo', 'mjpeg', 'av1', 'obu'),
    *('vc1', 'dirac', 'dnxhd', 'cavsvideo', 'avs2', 'avs3'),
)
_OPTIONS = {'format_whitelist': ','.join(CONTAINERS), 'protocol_whitelist': 'file'}
# An MP4 may refer to pictures in other files. (Off by default since FFmpeg 3.2.)
_NO_REFERENCES = {'enable_drefs': '0', 'use_absolute_path': '0'}

IS_NO_FILE = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}

# How files begin that often stand where a video should be; in lower case.
_KINDS = (
    (b'#extm3u', 'text (a playlist, M3U8, which names other files)'),
    (b'[playlist]', 'text (a playlist, PLS, which names other files)'),
    (b'ffconcat version', 'text (a list of files for FFmpeg, ffconcat)'),
    (b'v=0', 'text (a session description, SDP, which names an address)'),
    (b'version https://git-lfs', 'text (a Git LFS pointer; git lfs pull fetches the file)'),
    (b'<!doctype html', 'text (an HTML page)'),
    (b'<html', 'text (an HTML page)'),
    (b'\x89png', 'a picture (PNG)'),
    (b'\xff\xd8\xff', 'a picture (JPEG)'),
)


def unreadable(path: Path, reason: str, reader: str = '', name: str = '') -> UnreadableVideo:
    """Write the error about a video that cannot be read, by its name if that is not its path."""
    try:
        size = '' if path.is_dir() else f' ({path.stat().st_size} bytes)'
    except OSError:
        size = ''
    by = f' by {reader}' if reader else ''
    return UnreadableVideo(
        f'the video {name or path}{size} cannot be read{by}: {reason}; replace the file, or take '
        'its line out of the annotation file',
        reason,
    )


def is_folder(path: Path) -> bool:
    """Whether there is a folder; a name that no file can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_address(name: str | Path) -> bool:
    """Whether a name is a URL (``rtsp://…``, ``https://…``), also after ``Path`` took a slash."""
    return re.match(r'[A-Za-z][A-Za-z0-9+.-]+:/', str(name)) is not None


def address_refused(address: str) -> str:
    """Write the error about an address that stands where a file should; its slashes stay."""
    address = re.sub(r'^([A-Za-z][A-Za-z0-9+.-]+):/(?=[^/])', r'\1://', address)
    return (
        f'the video {address} does not exist as a file: it is an address, and only files are '
        'opened; download it first and give the path of the file'
    )


def check_file(path: Path, name: str = '') -> None:
    """Refuse what is no regular file, has nothing in it, or is text.

    The error names the kind of file, and quotes nothing of it.

    Raises:
        MissingVideo: There is no such file.
        UnreadableVideo: It is none of a video.
    """
    if '\0' in str(path):
        reason = 'its name has a null character'
        raise UnreadableVideo(
            f'the video {name or str(path)!r} cannot be read: {reason}; correct it', reason
        )
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind != stat.S_IFREG:
            raise unreadable(path, f'it is {IS_NO_FILE.get(kind, "no file")}', name=name)
        with path.open('rb') as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise _missing(path, name) from None
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise unreadable(path, reason[0].lower() + reason[1:], name=name) from None
    if not head:
        raise unreadable(path, 'it is empty', name=name)
    found = kind_of(head)
    if found:
        raise unreadable(path, f'it is {found}', name=name)


def _missing(path: Path, name: str) -> MissingVideo:
    shown = name or str(path)
    if is_address(shown):
        return MissingVideo(address_refused(shown), 'it is an address, not a file')
    return MissingVideo(
        f'the video {shown} does not exist; correct the annotation file or data_prefix',
        'it does not exist',
    )


def kind_of(head: bytes) -> str:
    """Name what a file is by its first bytes if that is no video; else return ``''``."""
    start = head.removeprefix(b'\xef\xbb\xbf').lstrip(b' \t\r\n\v\f')[:32].lower()
    for beginning, kind in _KINDS:
        if start.startswith(beginning) and b'acTL' not in head:  # an animated PNG
            return kind
    if not _is_text(head):
        return ''
    if b'<mpd' in head.lower():
        return 'text (a playlist, DASH, which names other files)'
    if start.startswith((b'<?xml', b'<')):
        return 'text (XML)'
    if start.startswith((b'{', b'[')):
        return 'text (JSON)'
    return 'text'


def open_demuxer(path: Path) -> Any:
    """Open a file in PyAV, without checking its streams. Nothing but this file is opened.

    Raises:
        ValueError: Its container is not in ``CONTAINERS``.
        Exception: PyAV cannot open it.
    """
    import av

    # FFmpeg takes `spin%03d.gif` for a sequence of pictures, by its name alone.
    with path.open('rb') as file:
        forced = 'gif' if file.read(4) == b'GIF8' else None
    try:
        # An absolute path: FFmpeg would take `a:b.mp4` for a file `b.mp4` of the protocol `a`.
        return av.open(
            str(path.absolute()),
            format=forced,
            options={**_OPTIONS, **_NO_REFERENCES},
            metadata_errors='replace',  # titles in other alphabets than UTF-8
            timeout=PATIENCE,
        )
    except av.error.ArgumentError:  # of the list of formats
        raise ValueError(
            'its container is not that of a video file (playlists, lists, scripts, subtitles and '
            'single pictures are refused)'
        ) from None


def open_container(path: Path) -> Any:
    """Open a video in PyAV, and refuse what its header alone rules out.

    Raises:
        ValueError: The header rules it out.
        Exception: PyAV cannot open it.
    """
    container = open_demuxer(path)
    try:
        _check_header(container, path)
    except BaseException:
        container.close()
        raise
    return container


def check_for_other_reader(filename: str | Path) -> None:
    """Refuse a file before a reader that is not ours opens it (MMAction2's ``DecordInit``).

    Those have no list of allowed containers. What is not a local file is theirs to fetch.

    Raises:
        UnreadableVideo: It is not a video file, or its header rules it out.
    """
    path = Path(filename)
    if is_folder(path):
        reason = 'it is a folder, and only mmtimesformer.VideoInit reads folders of frames'
        raise unreadable(path, reason)
    if not path.is_file():
        return
    check_file(path)
    try:
        open_container(path).close()
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # PyAV has a class for each
        reason = getattr(error, 'strerror', None) or str(error)
        raise unreadable(path, str(reason).partition('\n')[0]) from error


def _check_header(container: Any, path: Path) -> None:
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
    # AVI that was written to a pipe states 2**30 frames; only decord wants the memory for them.
    if stream.frames > path.stat().st_size and container.format.name != 'avi':
        raise ValueError(f'its header states {stream.frames:,} frames, more than it has bytes')


def check_for_other_library(path: Path, reader: str) -> None:
    """Refuse a file that another library's own FFmpeg could take for another container.

    decord and torchcodec have no list of allowed formats. They get only files whose first bytes
    leave no doubt.

    Raises:
        ValueError: They leave doubt.
    """
    with path.open('rb') as file:
        head = file.read(16)
    boxes = {b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'pnot'}
    certain = (
        (head[4:8] in boxes and b'\0' in head[:4])
        or head.startswith((b'\x1a\x45\xdf\xa3', b'FLV\x01', b'\x30\x26\xb2\x75', b'OggS\0'))
        or (head.startswith(b'RIFF') and head[8:11] == b'AVI')
    )
    if not certain:
        raise ValueError(
            f'{reader} is given MP4, MKV, WebM, AVI, FLV, ASF and Ogg alone; set reader to pyav or '
            'auto'
        )
    if re.search(r'%\d*d', path.name):  # a sequence of pictures, by its name alone
        raise ValueError(f'{reader} takes its name for a pattern; set reader to pyav or auto')


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
