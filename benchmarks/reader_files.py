"""Videos of every kind that a reader meets, whose frames have their number drawn into them.

They are small, are made by PyAV in some seconds, and are what a data set downloaded, cut and
rewritten by others has: open groups of pictures, B-frames, variable rates, edit lists, cuts between
keyframes, containers without time stamps.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from drawn_numbers import HEIGHT, WIDTH, draw_number, read_number

FRAMES, FPS = 96, 30
STEADY = range(FRAMES)
UNEVEN = [i + i // 9 * 4 for i in STEADY]  # of 30 a second: every ninth frame stays for five
X264 = {'g': '12', 'bf': '3', 'preset': 'veryfast'}
OPEN_GOP = {**X264, 'x264-params': 'open-gop=1:scenecut=0:b-adapt=0'}
X265 = 'keyint=12:min-keyint=12:open-gop=1:log-level=none'
MPEG = {'g': '12', 'bf': '2'}
VP8 = {'cpu-used': '8', 'auto-alt-ref': '1', 'lag-in-frames': '16'}
PACKET = 188  # bytes of MPEG-TS


def write(
    path: Path,
    codec: str = 'libx264',
    options: dict[str, str] | None = None,
    times: Iterable[int] = STEADY,
    container: dict[str, str] | None = None,
    format: str | None = None,
    pixels: str = 'yuv420p',
) -> None:
    """Write numbered frames, frame ``i`` shown at ``times[i]`` thirtieths of a second."""
    with av.open(str(path), 'w', format=format, options=container or {}) as output:
        stream: Any = output.add_stream(codec, rate=FPS, options=options or X264)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.time_base = Fraction(1, FPS)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(draw_number(i), format='rgb24')
            frame.pts, frame.time_base = time, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def copy(source: Path, path: Path, first: int = 0, shift: int = 0) -> None:
    """Copy the packets from keyframe ``first`` on, as ``ffmpeg -c copy`` does.

    Args:
        source: The video.
        path: The copy.
        first: How many keyframes to leave out.
        shift: Frames by which the copy begins later than its first keyframe (an edit list).
    """
    options = {'avoid_negative_ts': 'disabled'}
    with av.open(str(source)) as whole, av.open(str(path), 'w', options=options) as cut:
        stream = whole.streams.video[0]
        target = cut.add_stream_from_template(stream)
        packets = [packet for packet in whole.demux(stream) if packet.size]
        keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
        begin = packets[keys[first]].pts + round(Fraction(shift, FPS) / stream.time_base)
        for packet in packets[keys[first] :]:
            packet.pts -= begin
            packet.dts -= begin
            packet.stream = target
            cut.mux(packet)


def without_beginning(source: Path, path: Path, packets: int) -> None:
    """Copy a file of MPEG-TS without its first packets, as a recording begins."""
    path.write_bytes(source.read_bytes()[PACKET * packets :])


# What each file is, and what makes it. A copy is made from a file above it.
Maker = Callable[[Path], None]
KINDS: dict[str, tuple[str, Maker]] = {
    'steady.mp4': ('H.264, B-frames, MP4', write),
    'open_gop.mp4': ('H.264, open GOP, MP4', lambda path: write(path, options=OPEN_GOP)),
    'one_keyframe.mp4': (
        'H.264, one keyframe, MP4',
        lambda path: write(path, options={**X264, 'g': '250'}),
    ),
    'ten_bit.mp4': ('H.264, 10 bit, MP4', lambda path: write(path, pixels='yuv420p10le')),
    'interlaced.mp4': (
        'H.264, interlaced, MP4',
        lambda path: write(path, options={**X264, 'flags': '+ilme+ildct', 'x264-params': 'tff=1'}),
    ),
    'intra_refresh.mp4': (
        'H.264, intra refresh, MP4',
        lambda path: write(path, options={'x264-params': 'intra-refresh=1:keyint=15:bframes=2'}),
    ),
    'fragments.mp4': (
        'H.264, fragmented MP4',
        lambda path: write(path, container={'movflags': 'frag_keyframe+empty_moov'}),
    ),
    'uneven.mp4': ('H.264, variable rate, MP4', lambda path: write(path, times=UNEVEN)),
    'uneven.mkv': ('H.264, variable rate, MKV', lambda path: write(path, times=UNEVEN)),
    'pause.mp4': (
        'H.264, a pause of 9 s, MP4',
        lambda path: write(path, times=[*range(48), *range(318, 366)]),
    ),
    'late.mkv': ('H.264, begins at 100 s, MKV', lambda path: write(path, times=range(3000, 3096))),
    'edit_list.mp4': (
        'H.264, edit list, MP4',
        lambda path: copy(path.with_name('steady.mp4'), path, shift=7),
    ),
    'edit_list.mov': (
        'H.264, open GOP, edit list, MOV',
        lambda path: copy(path.with_name('open_gop.mp4'), path, first=1, shift=5),
    ),
    'cut.mkv': (
        'H.264, cut at an open GOP, MKV',
        lambda path: copy(path.with_name('open_gop.mp4'), path, first=2),
    ),
    'cut.mp4': (
        'H.264, cut at an open GOP, MP4',
        lambda path: copy(path.with_name('open_gop.mp4'), path, first=2),
    ),
    'negative.mkv': (
        'H.264, negative time stamps, MKV',
        lambda path: copy(path.with_name('steady.mp4'), path, shift=3),
    ),
    'steady.ts': ('H.264, MPEG-TS', write),
    'open_gop.ts': ('H.264, open GOP, MPEG-TS', lambda path: write(path, options=OPEN_GOP)),
    'uneven.ts': ('H.264, variable rate, MPEG-TS', lambda path: write(path, times=UNEVEN)),
    'recorded.ts': (
        'H.264, begins between keyframes, MPEG-TS',
        lambda path: without_beginning(path.with_name('steady.ts'), path, 20),
    ),
    'intra_refresh.ts': (
        'H.264, intra refresh, MPEG-TS',
        lambda path: write(path, options={'x264-params': 'intra-refresh=1:keyint=15:bframes=2'}),
    ),
    'no_times.avi': ('H.264, B-frames, AVI', write),
    'steady.flv': ('H.264, FLV', write),
    'raw.h264': ('H.264 without container', lambda path: write(path, format='h264')),
    'hevc.mp4': (
        'HEVC, open GOP, MP4',
        lambda path: write(path, 'libx265', {'x265-params': X265}),
    ),
    'cut_hevc.mkv': (
        'HEVC, cut at an open GOP, MKV',
        lambda path: copy(path.with_name('hevc.mp4'), path, first=1),
    ),
    'av1.mp4': (
        'AV1, MP4',
        lambda path: write(path, 'libsvtav1', {'preset': '8', 'crf': '20', 'g': '12'}),
    ),
    'vp9.webm': (
        'VP9, variable rate, WebM',
        lambda path: write(path, 'libvpx-vp9', {'cpu-used': '8', 'g': '20'}, UNEVEN),
    ),
    'vp8.webm': ('VP8, hidden frames, WebM', lambda path: write(path, 'libvpx', VP8, UNEVEN)),
    'mpeg4.avi': ('MPEG-4, B-frames, AVI', lambda path: write(path, 'mpeg4', MPEG)),
    'dropped.avi': (
        'MPEG-4, dropped frames, AVI',
        lambda path: write(path, 'mpeg4', MPEG, UNEVEN),
    ),
    'mpeg4.mp4': ('MPEG-4, B-frames, MP4', lambda path: write(path, 'mpeg4', MPEG)),
    'mjpeg.avi': (
        'MJPEG, AVI',
        lambda path: write(path, 'mjpeg', {'q': '3'}, pixels='yuvj420p'),
    ),
    'mpeg2.ts': ('MPEG-2, MPEG-TS', lambda path: write(path, 'mpeg2video', MPEG)),
    'mpeg2.mpg': ('MPEG-2, MPG', lambda path: write(path, 'mpeg2video', MPEG)),
    'wmv2.wmv': ('WMV 2, WMV', lambda path: write(path, 'wmv2', {'g': '12'})),
    'colours.gif': (
        'GIF, variable rate',
        lambda path: write(path, 'gif', {'loop': '0'}, UNEVEN, pixels='rgb8'),
    ),
}


def make(folder: Path) -> list[Path]:
    """Make the files that are not there, and next to each all its frames, decoded in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in KINDS]
    for path in paths:
        if not Path(f'{path}.npy').exists():
            KINDS[path.name][1](path)
            frames = decode_all(path)
            if None in map(read_number, frames):
                raise RuntimeError(f'{path.name}: the encoder has lost the number of a frame')
            np.save(f'{path}.npy', frames)
    return paths


def decode_all(path: Path) -> np.ndarray:
    """Decode everything in order, by PyAV alone: the truth."""
    with av.open(str(path)) as container:
        frames: Sequence[Any] = list(container.decode(video=0))
    return np.stack([frame.to_ndarray(format='rgb24') for frame in frames])
