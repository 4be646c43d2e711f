"""A corpus of odd videos: broken, with wrong headers, and merely unusual ones.

Each name states what is wrong with its file. Everything is made from fixed seeds, of small frames,
in a few seconds; what takes longer is made by :func:`write_large_videos` for slow tests alone.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

# What a file may be: 'bad' must be refused, 'good' must give frames, 'either' may do both, but
# must neither crash nor hang.
Kind = str
WIDTH, HEIGHT, FRAMES = 96, 64, 24


@pytest.fixture(scope='session')
def bad_videos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Kind]]:
    """At least 128 files and what each may be."""
    folder = tmp_path_factory.mktemp('bad_videos')
    yield write_bad_videos(folder)
    (folder / 'bad_locked.mp4').chmod(0o600)  # so that pytest can sweep up


@pytest.fixture(scope='session')
def large_videos(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Kind]:
    """A few files that take long to make, or to read."""
    return write_large_videos(tmp_path_factory.mktemp('large_videos'))


def write_bad_videos(folder: Path) -> dict[Path, Kind]:
    """Write the corpus.

    Returns:
        Each file, and what it may be, which is the first word of its name.
    """
    encode(folder / 'good_moov_at_the_end.mp4')
    encode(folder / 'good_moov_in_front.mp4', container={'movflags': 'faststart'})
    write_odd_videos(folder)
    write_no_videos(folder)
    write_cut_videos(folder)
    write_lies(folder)
    write_flips(folder)
    kinds = {path: path.name.split('_')[0] for path in sorted(folder.iterdir())}
    if os.access(folder / 'bad_locked.mp4', os.R_OK):  # nothing is locked for root
        del kinds[folder / 'bad_locked.mp4']
    return kinds


# -- what can be read, though it is unlike the others ----------------------------------------------


def write_odd_videos(folder: Path) -> None:
    """Videos that are whole, of uncommon sizes, rates, formats and lengths."""
    encode(folder / 'good_one_frame.mp4', frames=1)
    encode(folder / 'good_two_frames.mp4', frames=2)
    encode(folder / 'good_16x16.mp4', width=16, height=16)
    encode(folder / 'good_2x2.mp4', width=2, height=2)
    encode(folder / 'good_odd_size.mp4', width=97, height=63, pixels='yuv444p')
    encode(folder / 'good_narrow.mp4', width=48, height=200)
    encode(folder / 'good_wide.mp4', width=1024, height=16, frames=4)
    encode(folder / 'bad_4096x2.mp4', width=4096, height=2, frames=4)
    encode(folder / 'good_no_keyframe_but_the_first.mp4', frames=120, gop=250)
    encode(folder / 'good_b_frames.mp4', options={'bf': '3'})
    encode(folder / 'good_240_per_second.mp4', rate=240)
    encode(folder / 'good_ntsc.mp4', rate=Fraction(30000, 1001))
    encode(folder / 'good_one_a_minute.mp4', rate=Fraction(1, 60))
    encode(folder / 'good_ten_hours_of_60_frames.mp4', rate=Fraction(1, 600), frames=60)
    rng = random.Random(1)
    times = np.cumsum([rng.randrange(1, 40) for _ in range(FRAMES)]).tolist()
    encode(folder / 'good_variable_rate.mp4', times=times)
    encode(folder / 'good_gap_of_an_hour.mp4', times=[*range(12), *range(36_000, 36_012)])
    encode(folder / 'good_begins_late.mp4', times=range(3000, 3000 + FRAMES))
    encode(folder / 'good_10_bit.mp4', pixels='yuv420p10le')
    encode(folder / 'good_422.mp4', pixels='yuv422p')
    encode(folder / 'good_444.mp4', pixels='yuv444p')
    encode(folder / 'good_grey.mp4', pixels='gray')
    encode(folder / 'good_interlaced.mp4', options={'flags': '+ilme+ildct', 'x264-params': 'tff=1'})
    for degrees in (90, 180, 270):
        encode(folder / f'good_rotated_by_{degrees}.mp4')
        turn(folder / f'good_rotated_by_{degrees}.mp4', degrees)
    encode(folder / 'good_hevc.mp4', codec='libx265', options={'x265-params': 'log-level=none'})
    encode(folder / 'good_av1.mp4', codec='libsvtav1', options={'preset': '12'})
    encode(folder / 'good_vp9.webm', codec='libvpx-vp9', options={'deadline': 'realtime'})
    encode(folder / 'good_vp8.webm', codec='libvpx', options={'deadline': 'realtime'})
    encode(folder / 'good_mpeg4.avi', codec='mpeg4')
    encode(folder / 'good_mjpeg.avi', codec='mjpeg', pixels='yuvj420p')
    encode(folder / 'good_mpeg2.mpg', codec='mpeg2video', rate=25)
    encode(folder / 'good_h264.ts')
    encode(folder / 'good_h264.mkv')
    encode(folder / 'good_h264.flv')
    encode(folder / 'good_wmv2.wmv', codec='wmv2')
    encode(folder / 'good_ffv1.mkv', codec='ffv1')
    encode(folder / 'good_raw.h264', format='h264')
    encode(folder / 'good_with_sound.mp4', sound=True)
    encode(folder / 'good_fragments.mp4', container={'movflags': 'frag_keyframe+empty_moov'})
    encode(folder / 'either_picture.gif', codec='gif', pixels='rgb8')
    encode(folder / 'either_picture.png', codec='png', pixels='rgb24', frames=1, format='image2')
    encode(folder / 'good_name with spaces, ünïcode and #%.mp4')
    whole = folder / 'good_moov_at_the_end.mp4'
    (folder / 'good_no_suffix').write_bytes(whole.read_bytes())
    (folder / 'good_wrong_suffix.avi').write_bytes(whole.read_bytes())
    (folder / 'good_link.mp4').symlink_to(whole.name)


def write_large_videos(folder: Path) -> dict[Path, Kind]:
    """Write frames of 4K to 16K, and a real ten hours."""
    fast = {'preset': 'ultrafast'}
    encode(folder / 'good_4k.mp4', width=3840, height=2160, frames=3, options=fast)
    encode(folder / 'either_8k.mp4', width=7680, height=4320, frames=3, options=fast)
    encode(folder / 'either_16k.mp4', width=16384, height=8192, frames=3, options=fast)
    encode(folder / 'either_16k_mjpeg.avi', 'mjpeg', 16384, 8192, 1, pixels='yuvj420p')
    encode(folder / 'good_ten_hours.mp4', width=64, height=48, frames=36_000, rate=1, gop=600)
    return {path: path.name.split('_')[0] for path in sorted(folder.iterdir())}


# -- what is no video ------------------------------------------------------------------------------


def write_no_videos(folder: Path) -> None:
    """Files of other kinds, and things that are no files."""
    numbers = np.random.default_rng(2)
    texts = {
        'bad_empty.mp4': b'',
        'bad_one_byte.mp4': b'\0',
        'bad_text.mp4': b'hello, not a video\n' * 100,
        'bad_html.mp4': b'<!doctype html><html><body>404 Not Found</body></html>',
        'bad_json.mp4': b'{"error": "quota exceeded"}',
        'bad_zeros.mp4': bytes(100_000),
        'bad_subtitles.srt': b'1\n00:00:01,000 --> 00:00:02,000\nhello\n',
        'bad_lfs_pointer.mp4': b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n',
        # Text that FFmpeg takes for a list of other files, of which one is a device
        'bad_playlist.m3u8': b'#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/dev/zero\n',
        'bad_playlist.mp4': b'#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/dev/zero\n',
        'bad_concat.mp4': b"ffconcat version 1.0\nfile '/dev/zero'\n",
        'bad_sdp.mp4': b'v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\n'
        b'm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
    }
    for name, content in texts.items():
        (folder / name).write_bytes(content)
    for size in (100, 10_000, 1_000_000):
        (folder / f'bad_random_{size}.mp4').write_bytes(numbers.bytes(size))
    for form in ('mp4', 'm4a', 'wav', 'mp3'):
        encode(folder / f'bad_sound_alone.{form}', frames=0, sound=True)
    os.mkfifo(folder / 'bad_fifo.mp4')
    (folder / 'bad_folder.mp4').mkdir()
    (folder / 'bad_link_to_itself.mp4').symlink_to('bad_link_to_itself.mp4')
    (folder / 'bad_link_to_nothing.mp4').symlink_to('nothing.mp4')
    (folder / 'bad_link_to_a_device.mp4').symlink_to('/dev/zero')
    (folder / 'bad_link_to_a_fifo.mp4').symlink_to('bad_fifo.mp4')
    locked = folder / 'bad_locked.mp4'
    locked.write_bytes((folder / 'good_moov_in_front.mp4').read_bytes())
    locked.chmod(0)


def write_cut_videos(folder: Path) -> None:
    """Files that end too early, as downloads do."""
    for where in ('at_the_end', 'in_front'):
        whole = (folder / f'good_moov_{where}.mp4').read_bytes()
        for percent in (1, 5, 10, 25, 50, 75, 90, 99):
            kind = 'bad' if where == 'at_the_end' else 'either'
            path = folder / f'{kind}_cut_at_{percent:02}_percent_moov_{where}.mp4'
            path.write_bytes(whole[: len(whole) * percent // 100])
    whole = (folder / 'good_moov_in_front.mp4').read_bytes()
    (folder / 'bad_header_alone.mp4').write_bytes(whole[: whole.find(b'mdat') + 4])
    (folder / 'bad_body_of_zeros.mp4').write_bytes(
        whole[: whole.find(b'mdat') + 4].ljust(len(whole), b'\0')
    )
    for form in ('avi', 'mkv', 'ts', 'flv'):
        source = folder / f'good_{"mpeg4" if form == "avi" else "h264"}.{form}'
        content = source.read_bytes()
        (folder / f'either_cut_in_half.{form}').write_bytes(content[: len(content) // 2])
    content = (folder / 'good_vp9.webm').read_bytes()
    (folder / 'either_cut_in_half.webm').write_bytes(content[: len(content) // 2])


# -- damaged files and wrong headers --------------------------------------------------------------


def write_lies(folder: Path) -> None:
    """MP4 files whose header is wrong."""
    whole = (folder / 'good_moov_in_front.mp4').read_bytes()

    def set_field(name: str, box: bytes, *fields: tuple[int, int, int]) -> None:
        """Overwrite fields of a box: (bytes behind its name, length, value)."""
        content = bytearray(whole)
        start = content.find(box) + 4
        for offset, length, value in fields:
            content[start + offset : start + offset + length] = value.to_bytes(length, 'big')
        (folder / name).write_bytes(content)

    set_field('bad_no_samples.mp4', b'stsz', (8, 4, 0))
    set_field('either_two_billion_samples.mp4', b'stsz', (8, 4, 2**31 - 1))
    set_field('either_samples_of_two_billion_bytes.mp4', b'stsz', (4, 4, 2**31 - 1))
    set_field('either_samples_of_one_byte.mp4', b'stsz', (4, 4, 1))
    set_field('either_no_durations.mp4', b'stts', (4, 4, 0))
    set_field('either_two_billion_durations.mp4', b'stts', (8, 4, 2**31 - 1))
    set_field('either_endless_frames.mp4', b'stts', (12, 4, 2**31 - 1))
    set_field('either_frames_of_no_duration.mp4', b'stts', (12, 4, 0))
    set_field('either_no_chunks.mp4', b'stco', (4, 4, 0))
    set_field('either_two_billion_chunks.mp4', b'stco', (4, 4, 2**31 - 1))
    set_field('either_chunks_beyond_the_end.mp4', b'stco', (8, 4, 2**32 - 1))
    set_field('either_65535_pixels.mp4', b'avc1', (24, 2, 65535), (26, 2, 65535))
    set_field('either_no_pixels.mp4', b'avc1', (24, 2, 0), (26, 2, 0))
    set_field('either_other_codec.mp4', b'stsd', (12, 4, int.from_bytes(b'hvc1', 'big')))
    set_field('either_unknown_codec.mp4', b'stsd', (12, 4, int.from_bytes(b'zzzz', 'big')))
    set_field('either_no_time_scale.mp4', b'mdhd', (12, 4, 0))
    set_field('either_huge_time_scale.mp4', b'mdhd', (12, 4, 2**32 - 1))
    set_field('either_ten_hours_by_the_header.mp4', b'mdhd', (12, 4, 1), (16, 4, 36_000))
    set_field('either_a_hundred_years.mp4', b'mvhd', (12, 4, 1), (16, 4, 2**32 - 2))
    set_field('either_a_box_of_four_gigabytes.mp4', b'moov', (-8, 4, 2**32 - 1))
    set_field('either_a_box_of_no_bytes.mp4', b'trak', (-8, 4, 0))
    set_field('either_a_box_of_seven_bytes.mp4', b'trak', (-8, 4, 7))


def write_flips(folder: Path) -> None:
    """MP4 files with some bytes replaced: by bad disks, bad memory, bad networks."""
    whole = (folder / 'good_moov_in_front.mp4').read_bytes()
    body = whole.find(b'mdat') + 4
    for seed in range(20):
        (folder / f'either_flips_in_header_{seed:02}.mp4').write_bytes(
            flip(whole[:body], 0.01, 100 + seed) + whole[body:]
        )
    for seed in range(10):
        share = (0.001, 0.05)[seed % 2]
        (folder / f'either_flips_in_body_{seed:02}.mp4').write_bytes(
            whole[:body] + flip(whole[body:], share, 200 + seed)
        )
    for form in ('vp9.webm', 'mpeg4.avi', 'h264.ts', 'hevc.mp4', 'h264.mkv', 'av1.mp4'):
        content = (folder / f'good_{form}').read_bytes()
        for seed in range(2):
            (folder / f'either_flips_{seed}_{form}').write_bytes(flip(content, 0.01, 300 + seed))


def flip(content: bytes, share: float, seed: int) -> bytes:
    """Replace a share of the bytes, at least one."""
    rng = random.Random(seed)
    flipped = bytearray(content)
    for _ in range(max(1, int(len(flipped) * share))):
        flipped[rng.randrange(len(flipped))] = rng.randrange(256)
    return bytes(flipped)


# -- writing ---------------------------------------------------------------------------------------


@pytest.fixture(name='encode')
def give_encode() -> Callable[..., None]:
    """Return :func:`encode`."""
    return encode


def encode(
    path: Path,
    codec: str = 'libx264',
    width: int = WIDTH,
    height: int = HEIGHT,
    frames: int = FRAMES,
    *,
    rate: int | Fraction = 30,
    pixels: str = 'yuv420p',
    gop: int = 12,
    times: Sequence[int] | None = None,
    format: str | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    sound: bool = False,
) -> None:
    """Write a video of moving noise, its upper left corner white; without frames, its sound alone.

    Args:
        path: The file.
        codec: The encoder.
        width: Pixels.
        height: Pixels.
        frames: Their number.
        rate: Frames per second.
        pixels: Their format.
        gop: Frames from one key frame to the next.
        times: When each frame is shown, in tenths of a second; evenly if ``None``.
        format: The container; by the suffix if ``None``.
        options: Of the encoder.
        container: Options of the container.
        sound: Whether to add noise.
    """
    with av.open(str(path), 'w', format=format, options=container or {}) as output:
        video = None
        if frames:
            if codec == 'libx264':
                options = {'preset': 'ultrafast', **(options or {})}
            video = output.add_stream(codec, rate=rate, options=options or {})
            video.width, video.height, video.pix_fmt = width, height, pixels
            video.gop_size = gop
            if times is not None:
                video.codec_context.time_base = Fraction(1, 10)
        if sound:
            add_sound(output, path.suffix)
        rng = np.random.default_rng(4)
        scene = rng.integers(0, 200, (min(height, 512), min(width, 512), 3), dtype=np.uint8)
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        for i in range(frames):
            picture[: len(scene), : scene.shape[1]] = np.roll(scene, i, axis=1)
            picture[: height // 2, : width // 2] = 240  # upper left, so that a turn is seen
            frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 10)
            output.mux(video.encode(frame))
        if video:
            output.mux(video.encode())


def add_sound(output: 'av.container.OutputContainer', suffix: str) -> None:
    codec = {'.wav': 'pcm_s16le', '.mp3': 'mp3'}.get(suffix, 'aac')
    stream = output.add_stream(codec, rate=44100)
    noise = np.random.default_rng(3)
    for i in range(20):
        samples = noise.integers(-3000, 3000, (1, 2 * 1024), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format='s16', layout='stereo')
        frame.rate, frame.pts, frame.time_base = 44100, i * 1024, Fraction(1, 44100)
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def turn(path: Path, degrees: int) -> None:
    """Write into an MP4's track header how players are to turn it, as telephones do."""
    matrix = {
        90: (0, 1, -1, 0),
        180: (-1, 0, 0, -1),
        270: (0, -1, 1, 0),
    }[degrees]
    content = bytearray(path.read_bytes())
    start = content.find(b'tkhd') + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
    for place, value in zip((0, 1, 3, 4), matrix, strict=True):
        at = start + 4 * place
        content[at : at + 4] = (value * 65536).to_bytes(4, 'big', signed=True)
    path.write_bytes(content)
