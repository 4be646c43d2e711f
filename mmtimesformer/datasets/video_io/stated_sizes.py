"""Read from its header how large a video file should be, to detect truncated files.

Only what the containers' headers state is read, no packet: MP4 boxes, the segment of MKV and WebM,
the chunks of AVI, the file properties of ASF.
"""

from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT = b'\x1a\x45\xdf\xa3', b'\x18\x53\x80\x67'
ASF = bytes.fromhex('3026b2758e66cf11a6d900aa0062ce6c')
ASF_FILE_PROPERTIES = bytes.fromhex('a1dcab8c47a9cf118ee400c00c205365')
MOST_BOXES = 200_000  # of a file in fragments; a header that lies could name more


def stated_bytes(path: Path) -> int:
    """Return the size that an MKV, WebM, AVI or ASF file states; 0 where it states none."""
    with path.open('rb') as file:
        head = file.read(4)
        if head == EBML:
            return _stated_mkv_bytes(file)
        if head == b'RIFF':
            size = int.from_bytes(file.read(4), 'little')
            return 8 + size if 0 < size < 2**32 - 9 else 0
        if head == ASF[:4]:
            return _stated_asf_bytes(file)
    return 0


def stated_mp4_bytes(path: Path) -> int:
    """Return where the last box of an MP4 in fragments ends; 0 for one that is not in fragments.

    (Its index has more, and its last box may be of any kind.)
    """
    end = at = 0
    total = path.stat().st_size
    in_fragments = False
    with path.open('rb') as file:
        for _ in range(MOST_BOXES):
            if at + 8 > total:
                break
            file.seek(at)
            head = file.read(16)
            size, kind = int.from_bytes(head[:4], 'big'), head[4:8]
            if size == 1:
                size = int.from_bytes(head[8:16], 'big')
            if size < 8:  # 0: up to the end of the file
                break
            in_fragments = in_fragments or kind == b'moof'
            at += size
            if kind in (b'moof', b'mdat'):
                end = at
    return end if in_fragments else 0


def _stated_mkv_bytes(file: BinaryIO) -> int:
    size, _ = _ebml_size(file)
    file.seek(size, 1)
    if file.read(4) != SEGMENT:
        return 0
    size, known = _ebml_size(file)
    return file.tell() + size if known else 0


def _ebml_size(file: BinaryIO) -> tuple[int, bool]:
    """Read the size of an EBML element, and whether it is known (live streams set all bits)."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, False
    length = 9 - first[0].bit_length()
    value = first[0] & (1 << 8 - length) - 1
    for byte in file.read(length - 1):
        value = value << 8 | byte
    return value, value != (1 << 7 * length) - 1


def _stated_asf_bytes(file: BinaryIO) -> int:
    head = file.read(2**16)
    at = head.find(ASF_FILE_PROPERTIES)
    fields = head[at : at + 96] if at >= 0 else b''
    if len(fields) < 96 or fields[88] & 1:  # a broadcast, whose size is not valid
        return 0
    return int.from_bytes(fields[40:48], 'little')
