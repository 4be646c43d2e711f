"""Videos are opened by path, frames come in the order asked for, bad files are named."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from mmtimesformer.datasets.transforms.decoding import Video, VideoDecode, VideoInit
from mmtimesformer.datasets.video_io.pyav_reader import SparsePyAVReader


def write_counted(path: Path, width: int) -> Path:
    """Twenty-four grey frames, each as bright as ten times its number, with B-frames."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=12, options={'bf': '2', 'g': '8'})
        stream.width, stream.height, stream.pix_fmt = width, 32, 'yuv420p'
        for i in range(24):
            grey = np.full((32, width, 3), 10 * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format='rgb24')))
        container.mux(stream.encode())
    return path


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    return write_counted(tmp_path / 'counted.mp4', width=64)


def turned(path: Path, out: Path) -> Path:
    """Copy an mp4, and note in it that a player shall turn it a quarter to the right."""
    data = bytearray(path.read_bytes())
    start = data.index(b'tkhd') + 44  # of the matrix, in a header of version 0
    matrix = [0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30]
    data[start : start + 36] = b''.join(n.to_bytes(4, 'big', signed=True) for n in matrix)
    out.write_bytes(data)
    return out


@pytest.mark.parametrize('reader', ['decord', 'pyav'])
def test_a_video_that_a_phone_stored_lying_down_is_upright(
    reader: str, tiny_videos: Path, tmp_path: Path
) -> None:
    if reader == 'decord':
        pytest.importorskip('decord')
    if not hasattr(av.VideoFrame, 'rotation'):
        pytest.skip('this PyAV does not give the rotation of a frame')
    lying = Video(tiny_videos / '0.mp4', reader).frames([0, 7])
    apply_rotation = Video(turned(tiny_videos / '0.mp4', tmp_path / 'turned.mp4'), reader).frames(
        [0, 7]
    )
    for before, after in zip(lying, apply_rotation, strict=True):
        assert before.shape == (64, 96, 3)
        assert np.array_equal(after, np.rot90(before, -1))


@pytest.mark.parametrize('reader', ['decord', 'pyav'])
def test_frames_come_as_asked_for(counted: Path, reader: str) -> None:
    if reader == 'decord':
        pytest.importorskip('decord')
    video = Video(counted, reader)
    assert len(video) == 24
    assert video.fps == pytest.approx(12)
    wanted = [17, 3, 3, 23, 0]
    frames = video.frames(wanted)
    assert [frame.shape for frame in frames] == [(32, 64, 3)] * 5
    assert [round(frame.mean() / 10) for frame in frames] == wanted


def test_auto_reads_what_decord_cannot(tmp_path: Path) -> None:
    pytest.importorskip('decord')
    path = write_counted(tmp_path / 'narrow.mp4', width=48)
    with pytest.raises(ValueError, match=r'narrow\.mp4 .* cannot be read by decord'):
        Video(path, 'decord').frames([3])
    (frame,) = Video(path, 'auto').frames([3])
    assert round(frame.mean() / 10) == 3


@pytest.mark.parametrize('method', ['__init__', 'frames'])
def test_what_pyav_cannot_read_is_left_to_decord(
    counted: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('decord')

    def fail(*_: object) -> None:
        raise av.FFmpegError(1, 'no')

    monkeypatch.setattr(SparsePyAVReader, method, fail)
    (frame,) = Video(counted, 'auto').frames([3])
    assert round(frame.mean() / 10) == 3


def test_both_readers_see_the_same_pixels(tiny_videos: Path) -> None:
    pytest.importorskip('decord')
    path = tiny_videos / '0.mp4'
    ours, theirs = (Video(path, reader).frames(range(20)) for reader in ('pyav', 'decord'))
    difference = np.abs(np.stack(ours).astype(int) - np.stack(theirs).astype(int))
    assert difference.max() <= 3  # rounding of YUV to RGB
    assert difference.mean() < 0.5


@pytest.mark.parametrize('reader', ['auto', 'pyav'])
def test_the_transforms_give_what_mmaction2_expects(counted: Path, reader: str) -> None:
    results: dict[str, Any] = dict(filename=str(counted))
    results = VideoInit(reader=reader)(results)
    assert results['total_frames'] == 24
    assert results['avg_fps'] == pytest.approx(12)
    results['frame_inds'] = np.array([[4], [20]])
    results = VideoDecode()(results)
    assert [round(image.mean() / 10) for image in results['imgs']] == [4, 20]
    assert results['img_shape'] == results['original_shape'] == (32, 64)
    assert 'video_reader' not in results, 'an open file must not travel on through the pipeline'


def test_the_transforms_are_found_by_name(default_scope: str | None) -> None:
    assert TRANSFORMS.get('mmtimesformer.VideoInit') is VideoInit
    assert TRANSFORMS.get('mmtimesformer.VideoDecode') is VideoDecode


@pytest.mark.parametrize('reader', ['decord', 'pyav'])
@pytest.mark.parametrize('content', [b'', b'<html>404</html>' * 50, None], ids=['0', 'html', 'cut'])
def test_a_file_that_is_no_video_is_named(
    tmp_path: Path, counted: Path, reader: str, content: bytes | None
) -> None:
    if reader == 'decord':
        pytest.importorskip('decord')
    path = tmp_path / 'bad.mp4'
    path.write_bytes(counted.read_bytes()[:900] if content is None else content)
    with pytest.raises(ValueError, match=r'bad\.mp4 \(\d+ bytes\) cannot be read') as error:
        Video(path, reader)
    assert '\n' not in str(error.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'none\.mp4 does not exist; .*data_prefix'):
        Video(tmp_path / 'none.mp4')
    with pytest.raises(ValueError, match=f'{tmp_path.name}.* cannot be read: it is a folder'):
        Video(tmp_path)


def test_an_unknown_reader_is_answered_with_the_known_ones(counted: Path) -> None:
    with pytest.raises(ValueError, match='ffmpeg.* auto, decord, pyav or torchcodec'):
        Video(counted, 'ffmpeg')
