"""Videos are re-encoded completely into a new folder, with annotation files for them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmtimesformer.datasets.preparation import transcoding
from mmtimesformer.datasets.preparation.resizing import encode_again
from mmtimesformer.datasets.preparation.transcoding import (
    PRESETS,
    Preset,
    Transcode,
    plan_transcodes,
    transcode_video,
)
from mmtimesformer.datasets.transforms.decoding import Video

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'data' / 'transcode.py'
FRAMES = 40


def write(path: Path, codec: str = 'libx264', colorspace: int = 2, width: int = 80) -> Path:
    """Write a video of a coloured pattern that moves, all of it one group of pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 255, (64 // 16, width // 16, 3), dtype=np.uint8)
    pattern = pattern.repeat(16, axis=0).repeat(16, axis=1)
    with av.open(str(path), 'w') as container:
        stream: Any = container.add_stream(codec, rate=25, options={'g': '250'})
        stream.width, stream.height, stream.pix_fmt = width, 64, 'yuv420p'
        stream.codec_context.colorspace = colorspace
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.roll(pattern, i, axis=1), format='rgb24')
            frame = frame.reformat(format='yuv420p', dst_colorspace=colorspace)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Callable[..., tuple[int, str]]:
    """Run the tool in this process, in ``tmp_path``: its exit code and output."""
    monkeypatch.chdir(tmp_path)
    spec: Any = importlib.util.spec_from_file_location('data_transcode', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*words: object) -> tuple[int, str]:
        code = module.main([str(word) for word in words])
        printed = capfd.readouterr()
        assert 'Traceback' not in printed.out + printed.err
        return code, printed.out + printed.err

    return run


def keyframes(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [i for i, packet in enumerate(packets) if packet.is_keyframe]


def test_a_data_set_is_written_anew_beside_its_source(
    tool: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    sources = [write(tmp_path / 'videos/a b/one.avi', 'mpeg4'), write(tmp_path / 'videos/two.mp4')]
    (tmp_path / 'videos/noise.mp4').write_bytes(b'\0nothing')
    before = [path.read_bytes() for path in sources]
    (tmp_path / 'train.txt').write_text('a b/one.avi\t3\nnoise.mp4\t1\n')
    (tmp_path / 'val.txt').write_text('two.mp4 0\n')
    words = ['videos', 'new', '--annotations', 'train.txt', 'val.txt', '--preset', 'speed']
    words += ['--short-side', '48', '--num-workers', '2']
    code, output = tool(*words)
    assert code == 3, 'one could not be read'
    assert [path.read_bytes() for path in sources] == before
    assert 'noise.mp4\t' in (tmp_path / 'new/failed.txt').read_text()
    assert (tmp_path / 'new/train.txt').read_text() == 'a b/one.mp4\t3\n'
    assert (tmp_path / 'new/val.txt').read_text() == 'two.mp4 0\n'
    for line in (
        '2 written, 0 there already',
        'train.txt: 1 videos, 1 left out',
        'GB before',
        'dB of signal to noise',
        'times as fast',
    ):
        assert line in output
    files = {'a b/one.mp4', 'two.mp4'}
    for name in files:
        path = tmp_path / 'new' / name
        video = Video(path)
        assert len(video) == FRAMES
        assert video.frames([0])[0].shape == (48, 60, 3)
        assert keyframes(path) == list(range(0, FRAMES, PRESETS['speed'].gop))
    left = {str(path.relative_to(tmp_path / 'new')) for path in (tmp_path / 'new').rglob('*.*')}
    assert left == {*files, 'failed.txt', 'train.txt', 'val.txt'}, 'and nothing unfinished'

    times = [(tmp_path / 'new' / name).stat().st_mtime_ns for name in files]
    (tmp_path / 'videos/noise.mp4').unlink()
    (tmp_path / 'train.txt').write_text('a b/one.avi\t3\n')
    code, output = tool(*words)
    assert code == 0
    assert '0 written, 2 there already' in output
    assert times == [(tmp_path / 'new' / name).stat().st_mtime_ns for name in files]
    assert not (tmp_path / 'new/failed.txt').exists()


def job(folder: Path, source: Path, preset: Preset = PRESETS['balanced']) -> Transcode:
    return Transcode(source, folder / 'new.mp4', folder / '.new.part', preset, timed=False)


def test_frames_keep_their_pictures_and_colours(tmp_path: Path) -> None:
    """Whichever matrix their colours were mixed by: 1 is HD's, 5 that of older video."""
    for colorspace in (1, 5):
        source = write(tmp_path / f'{colorspace}.mp4', colorspace=colorspace)
        written = transcode_video(job(tmp_path, source))
        assert written.psnr > 30
        for old, new in zip(
            *(Video(path).frames([0, 17, 39]) for path in (source, tmp_path / 'new.mp4')),
            strict=True,
        ):
            assert np.abs(old.mean((0, 1)) - new.mean((0, 1))).max() < 4
        (tmp_path / 'new.mp4').unlink()


@pytest.mark.parametrize(
    ('lost', 'message'),
    [('read', '39 of 40 frames can be decoded'), ('written', 'of 40 frames 39 were written')],
)
def test_a_video_of_which_a_frame_is_lost_gets_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str, message: str
) -> None:
    def lose_one(source: Path, target: Path, *options: Any) -> int:
        count = encode_again(source, target, *options)
        if lost == 'read':
            return count - 1
        other = target.with_suffix('.mkv')
        with av.open(str(target)) as whole, av.open(str(other), 'w') as cut:
            stream = cut.add_stream_from_template(whole.streams.video[0])
            packets = [packet for packet in whole.demux(video=0) if packet.size]
            for packet in packets[:-1]:
                packet.stream = stream
                cut.mux(packet)
        other.replace(target)
        return count

    monkeypatch.setattr(transcoding, 'encode_again', lose_one)
    with pytest.raises(ValueError, match=message):
        transcode_video(job(tmp_path, write(tmp_path / 'source.mp4')))
    assert not (tmp_path / 'new.mp4').exists()


def test_what_cannot_be_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    videos, new = tmp_path / 'videos', tmp_path / 'new'
    videos.mkdir()
    preset = PRESETS['storage']

    def plan(
        source: Path = videos, target: Path = new, names: tuple[str, ...] = (), how: Preset = preset
    ) -> None:
        plan_transcodes(source, target, names, how, 60)

    with pytest.raises(ValueError, match='lie in one another; set DST'):
        plan(target=videos / 'new')
    with pytest.raises(ValueError, match='lie in one another; set DST'):
        plan(target=tmp_path)
    with pytest.raises(ValueError, match=r'a\.avi and a\.mp4 would both become'):
        plan(names=('a.avi', 'a.mp4'))
    with pytest.raises(ValueError, match=r'\.\./videos/a\.mp4 leads out of'):
        plan(names=('../videos/a.mp4',))
    with pytest.raises(ValueError, match='--short-side 47 must be an even number'):
        plan(how=Preset(short_side=47, gop=8, crf=23))
    assert not new.exists()
