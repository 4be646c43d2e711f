"""Cases W7, W8, W9: the reader and all tools agree on the frames of a file, whatever its container.

What counts is an independent pass: PyAV decodes everything, without our reader.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmtimesformer.datasets.preparation.checking import CutShortError, check_complete, check_video
from mmtimesformer.datasets.preparation.resizing import Resize, resize_video
from mmtimesformer.datasets.preparation.transcoding import Preset, Transcode, transcode_video
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.pyav_reader import SparsePyAVReader, decoded_frames
from mmtimesformer.datasets.video_io.safe_open import open_container

FRAMES, WIDTH, HEIGHT = 60, 80, 48
X264 = {'g': '12', 'bf': '3', 'preset': 'veryfast'}
OPEN_GOP = {**X264, 'x264-params': 'open-gop=1:scenecut=0:b-adapt=0'}
STEADY = range(FRAMES)
UNEVEN = [i + i // 9 * 4 for i in STEADY]  # of 30 a second: every ninth frame stays for five


def write(
    path: Path,
    codec: str = 'libx264',
    options: dict[str, str] | None = None,
    times: Sequence[int] = STEADY,
    container: dict[str, str] | None = None,
    format: str | None = None,
    pixels: str = 'yuv420p',
) -> Path:
    """Write a pattern that moves, frame ``i`` shown at ``times[i]`` thirtieths of a second."""
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    pattern = pattern.repeat(4, axis=0).repeat(4, axis=1)
    with av.open(str(path), 'w', format=format, options=container or {}) as output:
        stream: Any = output.add_stream(codec, rate=30, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.time_base = Fraction(1, 30)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.roll(pattern, 3 * i, axis=1), format='rgb24')
            frame.pts, frame.time_base = time, Fraction(1, 30)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def write_to_pipe(path: Path, format: str) -> Path:
    """Copy a video to where a muxer cannot go back to fill in the header when it is done."""
    with av.open(str(MADE('steady.mp4'))) as whole, path.open('wb') as file:
        pipe = type('Pipe', (), {'write': lambda self, data: file.write(data)})()
        with av.open(pipe, 'w', format=format) as output:
            stream = output.add_stream_from_template(whole.streams.video[0])
            for packet in whole.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    output.mux(packet)
    return path


def as_from_a_pipe(source: Path, path: Path) -> Path:
    """Write into the header of an AVI what FFmpeg writes where it cannot go back: 2**30 frames."""
    content = bytearray(source.read_bytes())
    content[4:8] = bytes(4)  # bytes of the file
    length = content.index(b'strh') + 40
    content[length : length + 4] = (2**30).to_bytes(4, 'little')
    path.write_bytes(content)
    return path


def copy(
    source: Path,
    path: Path,
    first: int = 0,
    shift: int = 0,
    last: int | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Copy the packets from keyframe ``first`` on, as ``ffmpeg -c copy`` does.

    Args:
        source: The video.
        path: The copy.
        first: How many keyframes to leave out.
        shift: Frames by which the copy is to begin later than its first keyframe (an edit list).
        last: How many packets to copy, all if ``None``.
        options: Of the container.
    """
    options = {'avoid_negative_ts': 'disabled', **(options or {})}
    with av.open(str(source)) as whole, av.open(str(path), 'w', options=options) as cut:
        stream = whole.streams.video[0]
        target = cut.add_stream_from_template(stream)
        packets = [packet for packet in whole.demux(stream) if packet.size]
        keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
        begin = packets[keys[first]].pts + round(shift / 30 / stream.time_base)
        for packet in packets[keys[first] :][:last]:
            packet.pts -= begin
            packet.dts -= begin
            packet.stream = target
            cut.mux(packet)
    return path


def without_beginning(source: Path, path: Path, bytes_lost: int) -> Path:
    path.write_bytes(source.read_bytes()[bytes_lost:])
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    'steady.mp4': lambda path: write(path, options=X264),
    # variable rate
    'uneven.mp4': lambda path: write(path, options=X264, times=UNEVEN),
    'uneven.mkv': lambda path: write(path, options=X264, times=UNEVEN),
    'uneven.ts': lambda path: write(path, options=X264, times=UNEVEN),
    'uneven_vp9.webm': lambda path: write(path, 'libvpx-vp9', {'cpu-used': '8'}, UNEVEN),
    'uneven_vp8.webm': lambda path: write(
        path, 'libvpx', {'cpu-used': '8', 'auto-alt-ref': '1', 'lag-in-frames': '16'}, UNEVEN
    ),
    'uneven.flv': lambda path: write(path, 'flv1', None, UNEVEN),
    'uneven.wmv': lambda path: write(path, 'wmv2', None, UNEVEN),
    'uneven.gif': lambda path: write(path, 'gif', None, UNEVEN, pixels='rgb8'),
    'uneven.apng': lambda path: write(path, 'apng', None, UNEVEN, pixels='rgb24'),
    'long_pause.mp4': lambda path: write(path, options=X264, times=[*range(30), *range(330, 360)]),
    'last_frame_late.webm': lambda path: write(
        path, 'libvpx', {'cpu-used': '8'}, [*range(FRAMES - 1), 900]
    ),
    # no number of frames in the header
    'live.webm': lambda path: write(
        path, 'libvpx-vp9', {'cpu-used': '8'}, UNEVEN, container={'live': '1'}
    ),
    'fragments.mp4': lambda path: write(
        path, options=X264, container={'movflags': 'frag_keyframe+empty_moov'}
    ),
    'raw.h264': lambda path: write(path, options=X264, format='h264'),
    'piped.avi': lambda path: as_from_a_pipe(MADE('gaps_mpeg4.avi'), path),
    'piped.mkv': lambda path: write_to_pipe(path, 'matroska'),
    # frames that were dropped: AVI has empty chunks for them
    'gaps_mpeg4.avi': lambda path: write(path, 'mpeg4', {'g': '12', 'bf': '2'}, UNEVEN),
    'gaps_h264.avi': lambda path: write(path, options={**X264, 'bf': '0'}, times=UNEVEN),
    'gaps_mjpeg.avi': lambda path: write(path, 'mjpeg', None, UNEVEN, pixels='yuvj420p'),
    'gaps_raw.avi': lambda path: write(path, 'rawvideo', None, UNEVEN),
    # cut by copying packets
    'edit_list.mp4': lambda path: copy(MADE('steady.mp4'), path, shift=7),
    'edit_list.mov': lambda path: copy(MADE('steady.mp4'), path, first=1, shift=5, last=30),
    'edit_list_open_gop.mp4': lambda path: copy(MADE('open_gop.mp4'), path, first=1, shift=5),
    'open_gop.mp4': lambda path: write(path, options=OPEN_GOP),
    'cut_open_gop.mkv': lambda path: copy(MADE('open_gop.mp4'), path, first=2),
    'cut_open_gop.mp4': lambda path: copy(MADE('open_gop.mp4'), path, first=2),
    'cut_hevc.mkv': lambda path: copy(MADE('hevc.mp4'), path, first=1),
    'hevc.mp4': lambda path: write(
        path, 'libx265', {'x265-params': 'keyint=12:min-keyint=12:open-gop=1:log-level=none'}
    ),
    'cut_mpeg4.avi': lambda path: copy(MADE('gaps_mpeg4.avi'), path, first=1),
    'cut_mpeg2.ts': lambda path: without_beginning(MADE('mpeg2.ts'), path, 188 * 45),
    'mpeg2.ts': lambda path: write(path, 'mpeg2video', {'g': '12', 'bf': '2'}),
    'mpeg2.mpg': lambda path: write(path, 'mpeg2video', {'g': '12', 'bf': '2'}),
    'no_keyframe_first.ts': lambda path: without_beginning(MADE('uneven.ts'), path, 188 * 20),
    'negative_times.mkv': lambda path: copy(MADE('steady.mp4'), path, shift=3),
    'begins_late.mkv': lambda path: write(path, options=X264, times=range(3000, 3000 + FRAMES)),
    # a picture that is marked as a keyframe, and is none
    'intra_refresh.ts': lambda path: write(
        path, options={'x264-params': 'intra-refresh=1:keyint=15:bframes=2'}
    ),
}
FOLDER: list[Path] = []


def MADE(name: str) -> Path:
    """Return the file of that name; it is made once."""
    path = FOLDER[0] / name
    return path if path.exists() else MAKERS[name](path)


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDER[:] = [tmp_path_factory.mktemp('odd_videos')]


def decode_all(path: Path) -> list[np.ndarray]:
    """Decode everything by PyAV, without the reader."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]


def seconds(path: Path) -> np.ndarray:
    """Return when each frame is shown, from the first on."""
    with open_container(path) as container:
        base = container.streams.video[0].time_base
        times = [frame.pts for frame in decoded_frames(container)]
    if None in times:
        return np.full(len(times), np.nan)
    return np.array([float((time - times[0]) * base) for time in times])


@pytest.mark.parametrize('name', MAKERS)
def test_the_reader_gives_the_frames_of_decoding_everything(name: str) -> None:
    """As many, under the same numbers, bit for bit; whichever reader was asked for."""
    path = MADE(name)
    everything = decode_all(path)
    assert len(everything) > 5
    for reader in ('pyav', 'auto'):
        assert len(Video(path, reader)) == len(everything)
    draw = random.Random(0)
    last = len(everything) - 1
    for indices in ([last], [0], [last // 2], [draw.randint(0, last) for _ in range(5)], [last, 0]):
        for i, frame in zip(indices, Video(path).frames(indices), strict=True):
            assert np.array_equal(frame, everything[i]), f'frame {i} of {indices}'


@pytest.mark.parametrize('name', ['intra_refresh.ts', 'open_gop.mp4', 'steady.mp4', 'hevc.mp4'])
def test_each_frame_alone_is_that_of_decoding_everything(name: str) -> None:
    everything = decode_all(MADE(name))
    reader = SparsePyAVReader(MADE(name), num_threads=1)
    wrong = [i for i, old in enumerate(everything) if (reader.frames([i])[0] != old).any()]
    assert not wrong


@pytest.mark.parametrize('name', MAKERS)
def test_checking_resizing_and_transcoding_keep_every_frame_and_its_time(
    name: str, tmp_path: Path
) -> None:
    path = MADE(name)
    number, times = len(decode_all(path)), seconds(path)
    assert check_video(str(path)) == number
    tools = [shutil.which('ffmpeg'), None]
    for i, program in enumerate(tools):
        new = tmp_path / f'{i}.mp4'
        resize_video(Resize(path, new, tmp_path / 'part', 24, 18, program))
        assert len(Video(new)) == len(decode_all(new)) == number, program
        if not np.isnan(times).any() and path.suffix != '.avi':  # which has no times
            assert np.abs(seconds(new) - times).max() < 2e-3, program
    new = tmp_path / 'new.mp4'
    transcode_video(Transcode(path, new, tmp_path / 'part', Preset(24, 4, 23), timed=False))
    assert len(Video(new)) == len(decode_all(new)) == number


def test_the_cases_are_what_their_names_say() -> None:
    """A copy with an edit list hides packets; a cut open GOP has packets that cannot be decoded."""
    for name in ('edit_list.mp4', 'edit_list.mov'):
        with av.open(str(MADE(name))) as container:
            hidden = sum(packet.is_discard for packet in container.demux(video=0))
        assert hidden, name
    for name in ('cut_open_gop.mkv', 'cut_mpeg4.avi'):
        with av.open(str(MADE(name))) as container:
            packets = sum(packet.size > 0 for packet in container.demux(video=0))
        assert packets > len(decode_all(MADE(name))), name
    assert not SparsePyAVReader(MADE('cut_open_gop.mkv'), 1).indexed


def test_numbers_of_two_readers_are_never_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader decord stands in where PyAV fails, if both number the frames alike."""
    pytest.importorskip('decord')

    def fail(*_: object) -> None:
        raise av.FFmpegError(1, 'no')

    monkeypatch.setattr(SparsePyAVReader, 'frames', fail)
    assert len(Video(MADE('steady.mp4')).frames([3])) == 1
    for name in ('edit_list.mp4', 'cut_open_gop.mkv', 'gaps_h264.avi', 'uneven.ts'):
        with pytest.raises(ValueError, match=f'{name}.* cannot be read by pyav'):
            Video(MADE(name)).frames([3])


@pytest.mark.parametrize('name', ['edit_list.mp4', 'cut_open_gop.mkv'])
def test_decord_by_name_is_refused_where_its_numbers_differ(name: str) -> None:
    pytest.importorskip('decord')
    with pytest.raises(ValueError, match='decord may number its frames in another way'):
        Video(MADE(name), 'decord')


# -- the program ffmpeg ----------------------------------------------------------------------------


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a program in the place of ffmpeg."""

    def write_program(result: Path, refused: str = '') -> str:
        script = (
            f'#!/bin/sh\necho "$@" >> {tmp_path}/commands\n'
            f'for word; do [ "$word" = "{refused or "?"}" ] && '
            f'{{ echo "Unrecognized option \'{refused[1:]}\'." >&2; exit 1; }}; done\n'
            f'for last; do :; done\ncp {result} "$last"\n'
        )
        program = tmp_path / 'ffmpeg'
        program.write_text(script)
        program.chmod(0o755)
        return str(program)

    return write_program


def resize_by(program: str, source: Path, folder: Path) -> str:
    return resize_video(Resize(source, folder / 'new.mp4', folder / 'part', 24, 18, program))


@pytest.mark.parametrize('difference', [-1, 1, 5])
def test_another_number_of_frames_than_before_is_an_error(
    stand_in: Callable[..., str], tmp_path: Path, difference: int
) -> None:
    """More are one as well: the frames of a variable rate were repeated."""
    written = write(tmp_path / 'written.mp4', options=X264, times=range(FRAMES + difference))
    with pytest.raises(ValueError, match=f'of {FRAMES} frames {FRAMES + difference} were written'):
        resize_by(stand_in(written), MADE('uneven.mkv'), tmp_path)
    assert not (tmp_path / 'new.mp4').exists()


@pytest.mark.parametrize('old', [False, True], ids=['new', 'before 5.1'])
def test_ffmpeg_is_asked_for_every_frame_once_at_its_time(
    stand_in: Callable[..., str], tmp_path: Path, old: bool
) -> None:
    program = stand_in(MADE('uneven.mkv'), '-fps_mode' if old else '')
    assert resize_by(program, MADE('uneven.mkv'), tmp_path) == 'resized'
    command = (tmp_path / 'commands').read_text().splitlines()[-1]
    assert ('-vsync passthrough' if old else '-fps_mode passthrough') in command
    assert '-enc_time_base 1:1000' in command, 'that of MKV'


# -- cut short -------------------------------------------------------------------------------------


CUT = {
    'faststart.mp4': lambda path: write(path, options=X264, container={'movflags': 'faststart'}),
    'faststart_uneven.mov': lambda path: write(
        path, options=X264, times=UNEVEN, container={'movflags': 'faststart'}
    ),
    **{
        name: MAKERS[name]
        for name in ('fragments.mp4', 'uneven.mkv', 'uneven_vp9.webm', 'gaps_mpeg4.avi')
    },
    'uneven.wmv': MAKERS['uneven.wmv'],
}


@pytest.mark.parametrize('name', CUT)
def test_a_file_that_lost_its_end_is_cut_short(name: str, tmp_path: Path) -> None:
    whole = CUT[name](tmp_path / name)
    check_complete(whole)
    content = whole.read_bytes()
    for share in (0.5, 0.75, 0.9):
        whole.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match='it is cut short: '):
            check_video(str(whole))


def test_a_flash_video_that_lost_a_half_is_cut_short(tmp_path: Path) -> None:
    """Its header states a duration and no size, so a little is not noticed."""
    content = MADE('uneven.flv').read_bytes()
    path = tmp_path / 'cut.flv'
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CutShortError, match=r'it ends at \S+ of the \S+ seconds in its header'):
        check_complete(path)


@pytest.mark.parametrize('name', MAKERS)
def test_a_whole_file_is_not_cut_short(name: str) -> None:
    check_complete(MADE(name))
