"""decord and torchcodec return the frames of decoding everything, or an error."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from mmtimesformer.datasets.transforms import decoding
from mmtimesformer.datasets.transforms.decoding import Video, VideoInit
from mmtimesformer.datasets.video_io import checked_readers
from mmtimesformer.datasets.video_io.checked_readers import torchcodec_decoder

ROOT = Path(__file__).resolve().parents[3]
FRAMES = 30


def write(path: Path, codec: str = 'libx264', **options: str) -> Path:
    """Write grey frames, each brighter than the one before."""
    with av.open(str(path), 'w') as container:
        stream: Any = container.add_stream(codec, rate=30, options={'g': '8', **options})
        stream.width, stream.height, stream.pix_fmt = 64, 64, 'yuv420p'
        for i in range(FRAMES):
            grey = np.full((64, 64, 3), 8 * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format='rgb24')))
        container.mux(stream.encode())
    return path


def numbers(frames: list[np.ndarray]) -> list[int]:
    return [round(frame.mean() / 8) for frame in frames]


OPEN_GOP = {'bf': '3', 'x264-params': 'open-gop=1:scenecut=0:b-adapt=0'}
REFUSED_BY_DECORD = {
    'open_gop.mp4': ({**OPEN_GOP}, 'open group of pictures'),
    'mpeg4.avi': ({'codec': 'mpeg4', 'bf': '2'}, 'do not identify each frame'),
    'wmv.wmv': ({'codec': 'wmv2'}, 'do not identify each frame'),
    'refreshed.mp4': (
        {'x264-params': 'intra-refresh=1:keyint=15:bframes=2'},
        'do not identify each frame',
    ),
    'stream.ts': ({}, 'decord is given MP4, MKV'),
}


@pytest.mark.parametrize('name', REFUSED_BY_DECORD)
def test_files_that_decord_mistakes_are_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip('decord')
    options, reason = REFUSED_BY_DECORD[name]
    path = write(tmp_path / name, **options)
    with pytest.raises(ValueError, match=f'{reason}.*set reader to pyav or auto'):
        Video(path, 'decord')
    assert numbers(Video(path).frames([13, 2])) == [13, 2]


def test_decord_does_not_count_from_the_end(tmp_path: Path) -> None:
    pytest.importorskip('decord')
    video = Video(write(tmp_path / 'video.mp4'), 'decord')
    assert numbers(video.frames([29, 0])) == [29, 0]
    for number in (-1, FRAMES):
        with pytest.raises(ValueError, match=f'frame {number} of {FRAMES} is not there'):
            video.frames([number])


# -- torchcodec ------------------------------------------------------------------------------------


class Pretended:
    """What this project uses of torchcodec's decoder; it returns frames ``late`` too late."""

    late, missing = 0, 0

    def __init__(self, path: str, **options: Any) -> None:
        type(self).options = options
        with av.open(path) as container:
            shown = list(container.decode(video=options['stream_index']))
        self.times = [float(frame.pts * frame.time_base) for frame in shown]
        self.pixels = torch.from_numpy(np.stack([f.to_ndarray(format='rgb24') for f in shown]))

    def __len__(self) -> int:
        return len(self.times) - self.missing

    def get_frames_at(self, indices: list[int]) -> SimpleNamespace:
        came = [min(i + self.late, len(self.times) - 1) for i in indices]
        times = torch.tensor([self.times[i] for i in came], dtype=torch.float64)
        return SimpleNamespace(data=self.pixels[came], pts_seconds=times)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> type[Pretended]:
    """Put a stand-in in the place of torchcodec."""
    fresh = type('Pretended', (Pretended,), {})
    package, module = ModuleType('torchcodec'), ModuleType('torchcodec.decoders')
    module.__dict__['VideoDecoder'] = fresh
    monkeypatch.setitem(sys.modules, 'torchcodec', package)
    monkeypatch.setitem(sys.modules, 'torchcodec.decoders', module)
    monkeypatch.setattr(checked_readers, 'torchcodec_decoder', torchcodec_decoder.__wrapped__)
    monkeypatch.setattr(decoding, 'torchcodec_decoder', torchcodec_decoder.__wrapped__)
    return fresh


def test_frames_of_torchcodec_are_those_that_were_asked_for(pretended: Any, tmp_path: Path) -> None:
    path = write(tmp_path / 'video.mp4', **OPEN_GOP)
    results = VideoInit(reader='torchcodec', num_threads=2)({'filename': str(path)})
    assert results['total_frames'] == FRAMES
    assert results['avg_fps'] == pytest.approx(30)
    assert pretended.options['num_ffmpeg_threads'] == 2
    frames = results['video_reader'].frames([17, 3, 3])
    assert numbers(frames) == [17, 3, 3]
    assert not np.shares_memory(frames[1], frames[2])
    with pytest.raises(ValueError, match='frame -1 of 30 is not there'):
        results['video_reader'].frames([-1])


def test_another_frame_of_torchcodec_is_an_error(pretended: Any, tmp_path: Path) -> None:
    pretended.late = 1
    video = Video(write(tmp_path / 'video.mp4'), 'torchcodec')
    with pytest.raises(ValueError, match=r'frame 3 is shown at 0\.100 s, and the one of 0\.133 s'):
        video.frames([3])


def test_another_number_of_frames_is_an_error(pretended: Any, tmp_path: Path) -> None:
    pretended.missing = 1
    with pytest.raises(ValueError, match='it finds 29, PyAV 30'):
        Video(write(tmp_path / 'video.mp4'), 'torchcodec')


@pytest.mark.parametrize('name', ['mpeg4.avi', 'stream.ts', 'refreshed.mp4'])
def test_files_that_torchcodec_mistakes_are_refused(
    pretended: Any, name: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, **REFUSED_BY_DECORD[name][0])
    with pytest.raises(ValueError, match='torchcodec.*set reader to pyav or auto'):
        Video(path, 'torchcodec')


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (ModuleNotFoundError('no'), 'is not installed'),
        (RuntimeError('Could not load libtorchcodec'), "is installed, but cannot load FFmpeg's"),
    ],
)
def test_without_torchcodec_one_sentence_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    """When the pipeline is built, before anything is read."""

    class Finder:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.partition('.')[0] == 'torchcodec':
                raise error

    for name in [name for name in sys.modules if name.partition('.')[0] == 'torchcodec']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [Finder(), *sys.meta_path])
    torchcodec_decoder.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=reason) as raised:
        VideoInit(reader='torchcodec')
    assert 'pip install --no-deps torchcodec==' in str(raised.value)
    assert '\n' not in str(raised.value)
    assert VideoInit().reader == 'auto', 'the default needs none'


@pytest.mark.parametrize(
    ('reader', 'device', 'words'),
    [
        ('pyav', 'cuda', "device='cuda' is not possible with reader='pyav'"),
        ('auto', 'cuda:0', "device='cuda:0' is not possible with reader='auto'"),
        ('torchcodec', 'gpu', "device='gpu' is not possible with reader='torchcodec'"),
        ('torchcodec', 'cuda', 'needs a GPU, and torch finds none'),
        ('other', 'cpu', "reader='other' is not known"),
    ],
)
def test_a_device_that_cannot_decode_is_refused(
    pretended: Any, monkeypatch: pytest.MonkeyPatch, reader: str, device: str, words: str
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match=words):
        VideoInit(reader=reader, device=device)


def test_cuda_is_refused_in_a_forked_worker(
    pretended: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    path = write(tmp_path / 'video.mp4')
    Video(path, 'torchcodec', device='cuda')
    assert pretended.options['device'] == 'cuda'
    monkeypatch.setattr(decoding, 'get_worker_info', lambda: 'a worker')
    monkeypatch.setattr(decoding, 'get_start_method', lambda: 'fork')
    with pytest.raises(ValueError, match="multiprocessing_context='spawn'"):
        Video(path, 'torchcodec', device='cuda')


@pytest.mark.slow
def test_torchcodec_itself_returns_no_wrong_frame(tmp_path: Path) -> None:
    """On every kind of file of the benchmark: right, or refused."""
    try:
        torchcodec_decoder()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    code = (
        'import json, sys; from pathlib import Path; import numpy as np\n'
        'import reader_files, reader_process, readers\n'
        'for path in reader_files.make(Path(sys.argv[1])):\n'
        '    truth = [readers.read_number(frame) for frame in np.load(f"{path}.npy")]\n'
        '    found = reader_process.check(reader_process.READERS["ours_torchcodec"], str(path))\n'
        '    print(path.name, readers.classify(found, truth).kind)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)],
        cwd=ROOT / 'benchmarks', capture_output=True, text=True, check=True,
    )  # fmt: skip
    kinds = dict(line.split() for line in done.stdout.splitlines())
    assert set(kinds.values()) == {'right', 'refused'}
    for name in ('steady.mp4', 'open_gop.mp4', 'hevc.mp4', 'uneven.mkv', 'vp9.webm'):
        assert kinds[name] == 'right', name
