"""Whatever is left undecoded, frames are those of decoding everything, bit for bit."""

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmtimesformer.datasets.video_io import pyav_reader
from mmtimesformer.datasets.video_io.pyav_reader import SparsePyAVReader

FRAMES, WIDTH, HEIGHT = 47, 80, 48

# File, its codec, options, and whether frames are found without counting.
CORPUS: dict[str, tuple[str, dict[str, str], bool]] = {
    'b_frames.mp4': ('libx264', {'g': '16', 'bf': '3'}, True),
    'no_b_frames.mp4': ('libx264', {'g': '8', 'bf': '0'}, True),
    'open_gop.mp4': ('libx264', {'g': '8', 'x264-params': 'open-gop=1:scenecut=0'}, True),
    'intra.mp4': ('libx264', {'g': '1'}, True),
    'one_gop.mkv': ('libx264', {'g': '250', 'refs': '5'}, True),
    'uneven.mp4': ('libx264', {'g': '12'}, True),
    'late.mkv': ('libx264', {'g': '12'}, True),
    'stream.ts': ('libx264', {'g': '12'}, True),
    'refreshed.mp4': ('libx264', {'g': '12', 'intra-refresh': '1'}, True),  # no true keyframe
    'fields.mp4': ('libx264', {'g': '12', 'flags': '+ildct+ilme'}, False),
    'no_times.avi': ('libx264', {'g': '12', 'bf': '2'}, False),
    'divx.avi': ('mpeg4', {'g': '12', 'bf': '2'}, False),
    'cif.mpg': ('mpeg2video', {'g': '12', 'bf': '2'}, False),
    'hidden.webm': ('libvpx-vp9', {'g': '20', 'cpu-used': '8', 'lag-in-frames': '9'}, True),
    'jpegs.avi': ('mjpeg', {}, True),
    'hevc.mp4': ('libx265', {'x265-params': 'keyint=12:open-gop=1:log-level=none'}, True),
}


def write(path: Path) -> Path:
    """Write the corpus' video of that name: a moving pattern, a new one every 19 frames."""
    codec, options, _ = CORPUS[path.name]
    rng, jumps = np.random.default_rng(0), random.Random(0)
    patterns = rng.integers(0, 255, (3, HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    patterns = patterns.repeat(4, axis=1).repeat(4, axis=2)
    with av.open(str(path), 'w') as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        base = Fraction(1, 1000 if path.stem == 'uneven' else 25)
        stream.codec_context.time_base = base
        time = 50 if path.stem == 'late' else 0
        for i in range(FRAMES):
            picture = np.roll(patterns[i // 19], 3 * i, axis=1)
            frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
            frame.pts, frame.time_base = time, base
            time += jumps.choice([20, 40, 90]) if path.stem == 'uneven' else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]


@pytest.fixture(scope='module')
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp('corpus')

    def get(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write(path)

    return get


@pytest.mark.parametrize('name', CORPUS)
def test_frames_are_those_of_decoding_everything(corpus: Callable[[str], Path], name: str) -> None:
    path = corpus(name)
    everything = decode_all(path)
    reader = SparsePyAVReader(path, num_threads=1)
    assert len(reader) == len(everything) == FRAMES
    assert reader.indexed is CORPUS[name][2]
    draw = random.Random(1)
    wanted = [[i] for i in range(FRAMES)]
    wanted += [draw.choices(range(FRAMES), k=draw.randint(2, 8)) for _ in range(12)]
    for indices in wanted:
        frames = reader.frames(indices)
        different = [i for i, frame in zip(indices, frames, strict=True)
                     if not np.array_equal(frame, everything[i])]  # fmt: skip
        assert not different, f'of {indices}'


class Counting:
    """A decoder that counts the frames it gives out."""

    def __init__(self, decoder: Any) -> None:
        self.__dict__.update(decoder=decoder, frames=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.decoder, name, value)

    def decode(self, packet: Any) -> list[Any]:
        frames = self.decoder.decode(packet)
        self.__dict__['frames'] += len(frames)
        return frames


@pytest.mark.parametrize(
    ('name', 'wanted', 'at_most'),
    [
        ('intra.mp4', [3, 40, 20], 3),
        ('no_b_frames.mp4', [41], 4),  # a pattern, and a keyframe with it, begins at 38
        ('no_b_frames.mp4', [1, 41], 6),
        ('no_b_frames.mp4', [15, 17], 10),  # from the keyframe at 8
        ('open_gop.mp4', [15], 10),  # stored after the keyframe at 16, and begins at 8
        ('b_frames.mp4', [10], 7),  # of 11: most of those in front are B-frames
        ('one_gop.mkv', [40], 28),
    ],
)
def test_little_more_than_the_wanted_frames_is_decoded(
    corpus: Callable[[str], Path], name: str, wanted: list[int], at_most: int
) -> None:
    reader = SparsePyAVReader(corpus(name), num_threads=1)
    counting: Any = Counting(reader._decoder)
    reader._decoder = counting
    reader.frames(wanted)
    assert len(wanted) <= counting.frames <= at_most


def test_what_an_edit_list_hides_is_not_counted(
    corpus: Callable[[str], Path], tmp_path: Path
) -> None:
    """A cut without a new encoding: the file begins at a keyframe, the show 5 frames later."""
    path = tmp_path / 'cut.mp4'
    options = {'avoid_negative_ts': 'disabled'}
    with (
        av.open(str(corpus('b_frames.mp4'))) as whole,
        av.open(str(path), 'w', options=options) as cut,
    ):
        stream = whole.streams.video[0]
        target = cut.add_stream_from_template(stream)
        for packet in whole.demux(stream):
            if packet.pts is not None and packet.dts is not None:
                packet.pts -= 5 * 512  # of 12,800 a second
                packet.dts -= 5 * 512
                packet.stream = target
                cut.mux(packet)
    reader = SparsePyAVReader(path, num_threads=1)
    shown = decode_all(corpus('b_frames.mp4'))[5:]
    assert len(reader) == len(shown)
    for i in (0, 7, len(shown) - 1):
        assert np.array_equal(reader.frames([i])[0], shown[i])


def test_a_long_video_is_not_kept_in_memory(
    corpus: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyav_reader, 'KEPT_BYTES', 1000)
    path = corpus('b_frames.mp4')
    reader = SparsePyAVReader(path, num_threads=1)
    assert reader._packets is None
    everything = decode_all(path)
    for indices in ([30, 2], [46], [0]):
        for i, frame in zip(indices, reader.frames(indices), strict=True):
            assert np.array_equal(frame, everything[i])


def test_a_frame_asked_for_twice_comes_twice(corpus: Callable[[str], Path]) -> None:
    """Transforms change frames in place, and would change the same one twice."""
    one, other = SparsePyAVReader(corpus('b_frames.mp4'), num_threads=1).frames([5, 5])
    assert np.array_equal(one, other)
    assert not np.shares_memory(one, other)


@pytest.mark.parametrize('number', [-1, FRAMES])
def test_a_frame_that_is_not_there_is_named(corpus: Callable[[str], Path], number: int) -> None:
    reader = SparsePyAVReader(corpus('b_frames.mp4'), num_threads=1)
    with pytest.raises(ValueError, match=f'frame {number} of {FRAMES} is not there'):
        reader.frames([3, number])
