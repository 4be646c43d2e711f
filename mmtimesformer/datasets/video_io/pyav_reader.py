"""PyAV reader that decodes only what the wanted frames of a video need.

Three things are not decoded, which changes no pixel:

- what is stored before the last *keyframe* before a wanted frame;
- an unwanted frame to which no other refers, as most B-frames are (*non-reference* in libavcodec);
- what is stored after the last wanted frame.

Frames are numbered as they are shown. Their order follows from the times of the packets, which are
all read when the video is opened, as decord reads them, and kept until they are decoded. Where that
order is not certain, the numbers are those of decoding everything: frames are decoded from the
beginning and counted, also to find out how many there are.
"""

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, count, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.datasets.video_io.safe_open import in_time, kept_size, open_container

# Codecs of which a packet is always a frame, shown once. (MPEG-4 may repeat a frame and VP8 stores
# frames that are never shown: those are counted.)
INDEXED_CODECS = {'av1', 'libdav1d', 'h264', 'hevc', 'mjpeg', 'vp9'}
# Codecs whose decoder passes over a non-reference frame as if it had never been there. In VP9 even
# such a frame teaches the arithmetic decoder.
SKIPPING_CODECS = {'h264'}
# Packets of up to this many bytes are kept from opening to decoding; more are read again.
KEPT_BYTES = 32 * 2**20
VOP = b'\0\0\1\xb6'  # begins a frame of MPEG-4
MOST_FPS = 10_000  # more is the unit of the time stamps, and no rate
END = object()  # behind the last packet
SMALLEST_VOP = 12  # bytes; "as before" takes 7 or 8
PROGRESSIVE = 1  # of a decoder's field_order: 0 is unknown, more are interlaced


@dataclass
class PacketIndex:
    """Index of a video's packets, made without decoding.

    Attributes:
        times: When each packet is shown, in the order in which they are stored; ``None`` where the
            container has no time.
        keys: Positions of the keyframes at which decoding may begin.
        first_key: Position of the first packet that is marked as a keyframe.
        marked: How many packets are marked as keyframes; at some of them decoding may not begin.
        shown: Positions of the packets that an edit list does not hide, in the order in which they
            are shown if ``indexed``, else as they are stored.
        indexed: Whether each packet is one frame whose number follows from its time. It is not if a
            time is missing or repeated, the first packet is no keyframe or is not shown first,
            frames are stored as two fields, or the codec is not among ``INDEXED_CODECS``.
        countable: Whether each packet is one frame, though its number does not follow.
        packets: The packets, or ``None`` if they are too large to be kept.
    """

    times: list[Any]
    keys: list[int]
    first_key: int
    marked: int
    shown: list[int]
    indexed: bool
    countable: bool
    packets: list[Any] | None


def index_packets(container: Any) -> PacketIndex:
    """Read all packets of a video; raise ``TimeoutError`` if that takes too long."""
    decoder = container.streams.video[0].codec_context
    one_by_one = _packet_check(decoder)
    is_keyframe = KEYFRAMES.get(decoder.codec.canonical_name, lambda data, extradata: True)
    extradata = decoder.extradata
    packets: list[Any] | None = []
    times: list[Any] = []
    keys: list[int] = []
    first_key, marked = sys.maxsize, 0
    shown: list[int] = []  # not hidden by an edit list
    size = 0
    countable = True
    for i, packet in enumerate(in_time(stored_packets(container), 'to open')):
        times.append(packet.pts)
        if packet.is_keyframe:
            first_key, marked = min(first_key, i), marked + 1
            if is_keyframe(memoryview(packet), extradata):
                keys.append(i)
        if not packet.is_discard:
            shown.append(i)
        countable = countable and one_by_one(i, packet)
        size += packet.size
        if size > KEPT_BYTES:
            packets = None
        elif packets is not None:
            packets.append(packet)
    indexed = (
        decoder.name in INDEXED_CODECS
        # AVI has no times; those that FFmpeg makes up are right where no frame changes places.
        and (container.format.name != 'avi' or len(keys) == len(times))
        and not getattr(decoder, 'field_order', 0) > PROGRESSIVE
        and keys[:1] == [0]
        and None not in times
        and len(set(times)) == len(times)
        and [min(times)] == times[:1]
    )
    if indexed:
        shown.sort(key=times.__getitem__)
    countable = countable and first_key == 0
    return PacketIndex(times, keys, first_key, marked, shown, indexed, countable, packets)


def _packet_check(decoder: Any) -> Any:
    """Return the function that decides whether a packet is exactly one frame."""
    if getattr(decoder.codec, 'intra_only', False):
        return lambda i, packet: True
    if decoder.codec.canonical_name == 'mpeg4':
        return _is_one_mpeg4_frame
    if decoder.codec.canonical_name == 'vp8':  # of which some frames are never shown
        return lambda i, packet: memoryview(packet)[0] >> 4 & 1 == 1
    return lambda i, packet: False


def _is_one_mpeg4_frame(i: int, packet: Any) -> bool:
    """Whether an MPEG-4 packet is one frame, not two, none ("as before"), or one without past."""
    data = bytes(packet)
    start = data.find(VOP)
    if start < 0 or data.find(VOP, start + 4) >= 0 or len(data) - start < SMALLEST_VOP:
        return False
    is_b = data[start + 4] >> 6 == 2
    return not (i == 1 and is_b)  # it may refer to what was in front of the first keyframe


def _is_h264_keyframe(data: memoryview, extradata: bytes | None) -> bool:
    """Whether decoding may begin at a packet that is marked as a keyframe, and change no pixel.

    It may at an IDR picture, and at an intra picture from which recovery takes no other frame (open
    GOP). With intra refresh a picture is marked from which it takes a second until all is there.
    """
    recovers, intra = False, False
    for unit in _units(data, extradata, avc=True):
        kind = unit[0] & 31
        if kind == 5:
            return True
        if kind == 6:
            recovers = recovers or _recovers_at_once(unit)
        elif kind == 1:
            _, end_of_address = _golomb(unit, 8)
            slice_type, _ = _golomb(unit, end_of_address)
            intra = slice_type >= 0 and slice_type % 5 in (2, 4)
            if not intra:
                return False
    return recovers and intra


def _recovers_at_once(unit: memoryview) -> bool:
    """Whether supplemental information holds a recovery point, 0 frames from here."""
    at = 1
    while at + 2 < len(unit):
        kind, at = _sum_of_bytes(unit, at)
        size, at = _sum_of_bytes(unit, at)
        if at >= len(unit):
            return False
        if kind == 6:
            return _golomb(unit, 8 * at)[0] == 0
        at += size
    return False


def _sum_of_bytes(unit: memoryview, at: int) -> tuple[int, int]:
    """Read a number that is a sum of bytes up to the first below 255, and where it ends."""
    value = 0
    while at < len(unit) and unit[at] == 255:
        value, at = value + 255, at + 1
    return (value + unit[at], at + 1) if at < len(unit) else (value, at)


def _is_hevc_keyframe(data: memoryview, extradata: bytes | None) -> bool:
    """Whether a packet holds a picture at which decoding may begin: IDR, BLA or CRA."""
    return any(16 <= unit[0] >> 1 & 63 <= 21 for unit in _units(data, extradata, avc=False))


KEYFRAMES = {'h264': _is_h264_keyframe, 'hevc': _is_hevc_keyframe}


def _units(data: memoryview, extradata: bytes | None, avc: bool) -> Iterator[memoryview]:
    """Split a packet of H.264 or HEVC into its NAL units: by lengths (MP4) or start codes (TS)."""
    place = 4 if avc else 21
    if extradata and extradata[0] == 1 and len(extradata) > place:
        width = (extradata[place] & 3) + 1
        at = 0
        while at + width < len(data):
            size = int.from_bytes(data[at : at + width], 'big')
            if size:
                yield data[at + width : at + width + min(size, 256)]
            at += width + size
        return
    stored = bytes(data)
    at = stored.find(b'\0\0\1')
    while 0 <= at < len(stored) - 4:
        yield data[at + 3 : at + 259]
        at = stored.find(b'\0\0\1', at + 3)


def _golomb(data: memoryview, bit: int) -> tuple[int, int]:
    """Read an Exp-Golomb number: it, and the bit behind it; -1 where the data end."""
    start = bit
    while bit < 8 * len(data) and not data[bit // 8] >> 7 - bit % 8 & 1:
        bit += 1
    zeros = bit - start
    if bit + zeros >= 8 * len(data):
        return -1, bit
    value = 0
    for at in range(bit, bit + zeros + 1):
        value = value << 1 | data[at // 8] >> 7 - at % 8 & 1
    return value - 1, bit + zeros + 1


class SparsePyAVReader:
    """A video through PyAV, of which only what is needed is decoded, in order.

    Args:
        path: The file.
        num_threads: Threads that decode.

    Attributes:
        fps: Frames per second, 0 if the file has none.
        indexed: Whether frames are found by the times of their packets. Else they are counted from
            the first one that can be decoded, see :class:`PacketIndex`.
    """

    def __init__(self, path: Path, num_threads: int) -> None:
        self.path = path
        self._container = open_container(path)
        stream = self._container.streams.video[0]
        self.fps = float(stream.average_rate or stream.guessed_rate or 0)
        self._decoder = stream.codec_context
        self._num_threads = self._decoder.thread_count = num_threads
        self._used = False
        self._skips = self._decoder.name in SKIPPING_CODECS
        index = index_packets(self._container)
        self.indexed = index.indexed
        self._packets, self._times, self._keys = index.packets, index.times, index.keys
        self._shown, self._first_key = index.shown, index.first_key
        if self.indexed:
            self._numbers = {self._times[i]: number for number, i in enumerate(self._shown)}
            if self.fps > MOST_FPS and len(self._shown) > 1:
                first, last = (self._times[self._shown[i]] for i in (0, -1))
                self.fps = float((len(self._shown) - 1) / ((last - first) * stream.time_base))
        self._length = len(self._shown)
        if not (self.indexed or index.countable):
            self._length = count_frames(path)

    def __len__(self) -> int:
        return self._length

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Decode frames, in the order asked for; none a view of another.

        Rotation is applied, as by players and decord; very large frames are made smaller
         (:func:`.safe_open.kept_size`). If the size changes on the way, the first counts.

        Raises:
            ValueError: A frame is not there.
            TimeoutError: It takes too long.
        """
        import av

        places: dict[int, list[int]] = {}  # where in the answer a frame goes
        for place, number in enumerate(indices):
            places.setdefault(int(number), []).append(place)
        # One converter of colours for all frames: to set it up costs more than a small frame.
        convert = partial(_as_rgb, av.video.reformatter.VideoReformatter())
        answer: Any = None
        left = set(places)
        for number, frame in self._decode(left):
            if answer is None:
                size = kept_size(frame.width, frame.height)
            pixels = apply_rotation(_as_array(convert(frame, *size)), frame)
            if answer is None:
                answer = np.empty((len(indices), *pixels.shape), np.uint8)
            answer[places[number]] = pixels
        if left:
            raise ValueError(f'frame {min(left)} of {len(self)} is not there')
        return list(answer)

    def _decode(self, left: set[int]) -> Iterator[tuple[int, Any]]:
        """Decode frames until none is left: first as little as possible, then all there is."""
        if self.indexed and min(left) >= 0 and max(left) < len(self):
            for start, stop in self._runs(left):
                yield from self._decode_run(start, stop, left, self._skips)
        if left:
            yield from self._decode_run(0, len(self._times), left)

    def _runs(self, wanted: Iterable[int]) -> list[tuple[int, int]]:
        """Choose the packets to be decoded: runs from a keyframe to a wanted frame."""
        needed = []
        for i in (self._shown[number] for number in wanted):
            key = bisect_right(self._keys, i) - 1
            while self._times[self._keys[key]] > self._times[i]:  # shown before, stored after it
                key -= 1
            needed.append((self._keys[key], i + 1))
        runs: list[tuple[int, int]] = []
        for start, stop in sorted(needed):
            if runs and start <= runs[-1][1]:
                start, before = runs.pop()
                stop = max(stop, before)
            runs.append((start, stop))
        return runs

    def _decode_run(
        self, start: int, stop: int, left: set[int], skip: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Decode packets ``start`` to ``stop``; what is found is not left any more.

        From a keyframe that is none, libavcodec gives out no frame before it has all pixels.
        """
        if self._used and not self.indexed:  # what a decoder has seen may let it decode more
            self._container = open_container(self.path)
            self._decoder = self._container.streams.video[0].codec_context
            self._decoder.thread_count = self._num_threads
        self._used = True
        wanted = {self._shown[number] for number in left} if skip else set()
        first_key = self._first_key
        counted = count()
        stored = self._packets or stored_packets(open_container(self.path))
        packets = in_time(chain(islice(stored, start, stop), [None]), 'to decode')
        try:
            for i, packet in enumerate(packets, start):
                if skip:
                    self._decoder.skip_frame = 'DEFAULT' if i in wanted else 'NONREF'
                may_fail = i < first_key or i == len(self._times) - 1
                for frame in _decode_packet(self._decoder, packet, may_fail):
                    number = self._numbers.get(frame.pts) if self.indexed else next(counted)
                    if number in left:
                        left.remove(number)
                        yield number, frame
                if not left:
                    return
        finally:
            self._decoder.skip_frame = 'DEFAULT'
            self._decoder.flush_buffers()


def apply_rotation(pixels: np.ndarray, frame: Any) -> np.ndarray:
    """Turn the pixels of a frame as a player does.

    Phones store videos rotated, with the angle as metadata. decord applies it; PyAV returns it,
    from version 14 on.

    Shape:
        - pixels: ``H W 3`` -> the same, or ``W H 3``
    """
    turns = round(getattr(frame, 'rotation', 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def stored_packets(container: Any) -> Iterator[Any]:
    """Read a video's packets in the order in which they are stored.

    AVI marks a frame that was dropped by a packet without bytes, which decoders take for the end of
    the video; it is no frame, and left out.
    """
    for packet in container.demux(container.streams.video[0]):
        if packet.size:  # else it is the end
            yield packet


def decoded_frames(container: Any) -> Iterator[Any]:
    """Decode all frames of a video in the order in which they are shown.

    Frames are numbered as in :class:`SparsePyAVReader`. What is stored before the first keyframe,
    and the last packet, of which a part may be missing, may fail to be decoded; then they are no
    frame.

    Raises:
        av.FFmpegError: Another packet cannot be decoded.
    """
    decoder = container.streams.video[0].codec_context
    begun = False
    for packet, following in pairwise(chain(stored_packets(container), [None, END])):
        begun = begun or packet is None or packet.is_keyframe
        yield from _decode_packet(decoder, packet, may_fail=not begun or following is None)


def _decode_packet(decoder: Any, packet: Any, may_fail: bool) -> list[Any]:
    import av

    try:
        return list(decoder.decode(packet))  # of None: what it has held back
    except av.error.InvalidDataError:
        if may_fail:
            return []
        raise


def count_frames(path: Path) -> int:
    """Count the frames of a video by decoding all; once for a file in each process.

    Raises:
        ValueError: It cannot be opened.
        av.FFmpegError: A packet cannot be decoded.
        TimeoutError: It takes too long.
    """
    status = path.stat()
    return _count(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2**16)
def _count(path: Path, *status: int) -> int:
    with open_container(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in in_time(decoded_frames(container), 'to count its frames'))


def _as_rgb(converter: Any, frame: Any, width: int, height: int) -> Any:
    try:  # left alone it starts a thread for each core
        return converter.reformat(frame, width, height, 'rgb24', threads=1)
    except TypeError:  # older PyAV has no argument threads
        return converter.reformat(frame, width, height, 'rgb24')


def _as_array(frame: Any) -> np.ndarray:
    """View the pixels of an RGB frame as an array; rows are padded in memory."""
    (plane,) = frame.planes
    rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
