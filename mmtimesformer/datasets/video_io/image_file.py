"""Decode one JPG or PNG image, after its structure and size are checked.

OpenCV decodes, with the pixels of ``cv2.imread``. It returns a JPG that was cut short with a grey
lower part, and no error; so the structure of a file is followed to its end before it is decoded:
the markers of a JPG up to the end of the image, the chunks of a PNG with their checksums. The
header alone gives the size, so that an image of too many pixels is never decoded.
"""

import re
import stat
import zlib
from pathlib import Path

import numpy as np

from mmtimesformer.datasets.video_io.safe_open import (
    IS_NO_FILE,
    MAX_ASPECT,
    MAX_PIXELS,
    kept_size,
    kind_of,
)

MAX_BYTES = 2**28  # of one image file
JPG, PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
CUT_SHORT = 'it is cut short'
# A marker in the compressed data of a JPG: neither a stuffed byte, a restart, nor a fill byte.
MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a JPG that hold its size
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA


def read_bytes(path: Path) -> bytes:
    """Read an image file, and refuse what is no regular file or is too large.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        ValueError: It is a pipe, a device or a folder, or it is too large.
    """
    status = path.stat()
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f'it is {IS_NO_FILE.get(kind, "no file")}')
    if status.st_size > MAX_BYTES:
        raise ValueError(f'it has {status.st_size:,} bytes, more than {MAX_BYTES:,}')
    with path.open('rb') as file:
        return file.read(MAX_BYTES + 1)


def decode_image(content: bytes) -> np.ndarray:
    """Decode the content of a JPG or PNG file to ``(H, W, 3)`` RGB ``uint8``.

    As by ``cv2.imread``: the orientation that a camera stored is applied, grey becomes three equal
    channels, opacity is dropped, 16 bits become 8. Very large images are made smaller
    (:func:`.safe_open.kept_size`).

    Raises:
        ValueError: It is no complete JPG or PNG, or has too many pixels.
    """
    import cv2

    width, height = image_size(content)
    check_size(width, height)
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError('it cannot be decoded')
    size = kept_size(*pixels.shape[1::-1])
    if size != pixels.shape[1::-1]:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(pixels[..., ::-1])


def check_size(width: int, height: int) -> None:
    """Refuse images of too many pixels, and very narrow ones, by the limits of videos."""
    if not width or not height:
        raise ValueError('its header gives no size')
    if width * height > MAX_PIXELS:
        raise ValueError(f'it has {width} x {height} pixels, more than {MAX_PIXELS:,}')
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f'it has {width} x {height} pixels, and is too narrow')


def image_size(content: bytes) -> tuple[int, int]:
    """Return width and height of a complete JPG or PNG, by its content.

    Raises:
        ValueError: It is neither, is cut short, or a checksum is wrong.
    """
    if content.startswith(JPG):
        return _jpg_size(content)
    if content.startswith(PNG):
        return _png_size(content)
    if not content:
        raise ValueError('it is empty')
    raise ValueError(f'it is {kind_of(content[:512]) or "neither a JPG nor a PNG"}')


def _jpg_size(content: bytes) -> tuple[int, int]:
    """Follow the markers of a JPG from its start to the end of the image."""
    size = 0, 0
    at = 2
    while at + 4 <= len(content) or content[at : at + 2] == b'\xff\xd9':
        if content[at] != 0xFF:
            raise ValueError('its data are damaged')
        marker = content[at + 1]
        if marker == END_OF_IMAGE:
            return size
        if marker == 0xFF or marker in ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4], 'big')
        if marker in SIZES:
            fields = content[at + 5 : at + 9]
            size = int.from_bytes(fields[2:], 'big'), int.from_bytes(fields[:2], 'big')
        at += 2 + length
        if marker == START_OF_SCAN:
            following = MARKER.search(content, at)
            at = following.start() if following else len(content)
    raise ValueError(CUT_SHORT)


def _png_size(content: bytes) -> tuple[int, int]:
    """Follow the chunks of a PNG to the last, and compare their checksums."""
    at = len(PNG)
    while at + 12 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], 'big'), content[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(content):
            break
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], 'big'):
            raise ValueError(f'its data are damaged (checksum of {kind.decode("latin-1")!a})')
        if kind == b'acTL':
            raise ValueError('it is an animated PNG, which is a video of its own')
        if kind == b'IEND':
            return int.from_bytes(content[16:20], 'big'), int.from_bytes(content[20:24], 'big')
        at = end + 4
    raise ValueError(CUT_SHORT)
