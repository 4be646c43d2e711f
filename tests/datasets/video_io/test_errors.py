"""A reader returns in time whatever a file holds, with a message that names the file."""

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose

from mmtimesformer.datasets.preparation.checking import check_video
from mmtimesformer.datasets.preparation.isolation import call_isolated
from mmtimesformer.datasets.preparation.resizing import Resize, resize_video
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.safe_open import (
    KEPT_PIXELS,
    check_file,
    in_time,
    open_container,
)

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 10  # seconds
PRELOAD = ('mmtimesformer.datasets.video_dataset', 'mmtimesformer.models', 'av', 'decord')


def train_pipeline(reader: str) -> Compose:
    """The training pipeline of the published models, from the file to the crop."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/protocols/kinetics_mmaction2.py')
    steps = [dict(step) for step in cfg.train_pipeline]
    for step in steps:
        if '.' not in step['type']:
            step['type'] = f'mmaction.{step["type"]}'
    steps[0]['reader'] = reader
    return Compose(steps)


def open_apart(pipeline: Compose, path: Path) -> str | None:
    """Read a video in a process of its own, and return what went wrong."""
    item = {'filename': str(path), 'label': 0, 'start_index': 0, 'modality': 'RGB'}
    with closing(call_isolated(pipeline, [item], 1, LIMIT, PRELOAD)) as results:
        ((_, sample, wrong),) = results
    assert (sample is None) == (wrong is not None)
    return wrong


def faults(path: Path, kind: str, wrong: str | None, reader: str) -> list[str]:
    """Tell what is not as promised; decord alone may refuse what is good."""
    if wrong is None:
        return [f'{path.name} was taken'] if kind == 'bad' else []
    found = []
    if str(path) not in wrong or not ('cannot be read' in wrong or 'does not exist' in wrong):
        found.append(f'{path.name}: {wrong}')
    if kind == 'good' and reader != 'decord':
        found.append(f'{path.name} was refused: {wrong}')
    return found


def test_the_corpus_is_large_enough(bad_videos: dict[Path, str]) -> None:
    assert len(bad_videos) >= 128
    assert {*bad_videos.values()} == {'good', 'bad', 'either'}


def test_no_file_of_a_few_makes_a_reader_hang_or_crash(bad_videos: dict[Path, str]) -> None:
    by_name = {path.name: path for path in bad_videos}
    feared = ['bad_fifo.mp4', 'bad_link_to_a_fifo.mp4', 'bad_link_to_a_device.mp4']
    feared += ['bad_playlist.mp4', 'either_two_billion_durations.mp4', 'bad_4096x2.mp4']
    few = {*[by_name[name] for name in feared], *list(bad_videos)[::10]}
    pipeline, found = train_pipeline('auto'), []
    for path in sorted(few):
        found += faults(path, bad_videos[path], open_apart(pipeline, path), 'auto')
    assert not found
    assert len(few) >= 18


@pytest.mark.slow
@pytest.mark.parametrize('reader', ['auto', 'pyav', 'decord'])
def test_no_file_makes_a_reader_hang_or_crash(bad_videos: dict[Path, str], reader: str) -> None:
    if reader == 'decord':
        pytest.importorskip('decord')
    pipeline, found, seconds = train_pipeline(reader), [], []
    for _ in range(5):
        for path, kind in bad_videos.items():
            start = time.monotonic()
            wrong = open_apart(pipeline, path)
            seconds.append(time.monotonic() - start)
            found += faults(path, kind, wrong, reader)
    assert not found
    print(f'{reader}: {len(seconds)} openings, the slowest took {max(seconds[1:]):.1f} s')


def test_what_passes_the_check_has_the_frames_of_an_independent_decoder(
    bad_videos: dict[Path, str], tmp_path: Path
) -> None:
    """Every third file of the corpus; and so has its smaller copy."""
    found, checked = [], 0
    for path in list(bad_videos)[::3]:
        try:
            total = check_video(str(path))
        except ValueError:
            continue
        with av.open(str(path)) as container:
            if sum(1 for _ in container.decode(video=0)) != total:
                found.append(path.name)
        checked += 1
        resize = Resize(path, tmp_path / 'new.mp4', tmp_path / 'part', 16, 18, None)
        how = resize_video(resize)
        new = resize.copy if how == 'copied' else resize.target
        if len(Video(new)) != total:
            found.append(f'{path.name}, {how}')
    assert not found
    assert checked >= 15


PEAK = """
import json, re, sys
import av
from mmtimesformer.datasets.transforms.decoding import Video

def peak():  # in megabytes; getrusage includes that of the parent process
    with open('/proc/self/status') as status:
        return int(re.search('VmHWM:[^0-9]*([0-9]+)', status.read())[1]) / 1024

before = peak()
video = Video(sys.argv[1])
frames = video.frames([0, len(video) // 2, len(video) - 1])
print(json.dumps([peak() - before, frames[0].size // 3, len(video)]))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='the peak is read in /proc')
@pytest.mark.slow
def test_the_largest_videos_take_neither_the_memory_nor_long(large_videos: dict[Path, str]) -> None:
    for path in large_videos:
        done = subprocess.run(
            [sys.executable, '-c', PEAK, str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            timeout=LIMIT + 20,  # the imports take some
            check=True,
        )
        megabytes, pixels, length = json.loads(done.stdout)
        print(f'{path.name}: {megabytes:.0f} MB')
        assert 0 < megabytes < 1000
        assert pixels <= KEPT_PIXELS
        assert length == 36_000 or 'hours' not in path.name


def test_frames_of_8k_are_made_smaller(tmp_path: Path, encode: Any) -> None:
    encode(tmp_path / 'huge.mp4', width=7680, height=4320, frames=1)
    (frame,) = Video(tmp_path / 'huge.mp4').frames([0])
    assert frame.shape == (2304, 4096, 3)
    assert frame[:1000, :1000].mean() > 230, 'the corner is white in the large one'
    with pytest.raises(
        ValueError, match=r'huge\.mp4 .*7680 x 4320 pixels are too large for decord'
    ):
        Video(tmp_path / 'huge.mp4', 'decord')


def test_frames_beyond_16k_are_refused(
    bad_videos: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is brought down to the file, for one of that size takes minutes to make."""
    (path,) = (path for path in bad_videos if path.name == 'good_moov_in_front.mp4')
    monkeypatch.setattr('mmtimesformer.datasets.video_io.safe_open.MAX_PIXELS', 96 * 64)
    assert len(Video(path)) == 24
    monkeypatch.setattr('mmtimesformer.datasets.video_io.safe_open.MAX_PIXELS', 96 * 64 - 1)
    with pytest.raises(
        ValueError, match=r'front\.mp4 .* its frames have 96 x 64 pixels, more than'
    ):
        Video(path)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('bad_empty.mp4', 'it is empty'),
        ('bad_fifo.mp4', 'it is a pipe'),
        ('bad_folder.mp4', 'it is a folder without a JPG or PNG image'),
        ('bad_link_to_a_device.mp4', 'it is a device'),
        ('bad_link_to_itself.mp4', 'too many levels of symbolic links'),
        ('bad_link_to_nothing.mp4', 'it does not exist'),
        ('bad_html.mp4', 'it is text (an HTML page)'),
        ('bad_lfs_pointer.mp4', 'it is text (a Git LFS pointer; git lfs pull fetches the file)'),
        ('bad_playlist.mp4', 'it is text (a playlist, M3U8, which names other files)'),
        ('bad_text.mp4', 'it is text'),
        ('bad_sound_alone.mp4', 'it holds no video, only audio'),
        ('bad_header_alone.mp4', 'it holds no frame'),
        ('bad_4096x2.mp4', 'its frames have 4096 x 2 pixels, and are too narrow'),
        ('either_unknown_codec.mp4', 'its codec is not known'),
        (
            'either_two_billion_durations.mp4',
            'its header states 2,147,483,647 frames, more than it has bytes',
        ),
    ],
)
def test_the_reason_is_a_sentence(bad_videos: dict[Path, str], name: str, reason: str) -> None:
    (path,) = (path for path in bad_videos if path.name == name)
    with pytest.raises(ValueError) as error:
        Video(path)
    assert error.value.reason == reason  # type: ignore[attr-defined]


def test_words_in_front_of_pixels_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / 'grey.y4m'
    path.write_bytes(b'YUV4MPEG2 W16 H16 F25:1 C420\nFRAME\n' + b'd' * 384)
    check_file(path)
    assert len(Video(path)) == 1


def test_a_colon_in_a_name_is_no_protocol(
    tmp_path: Path, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / 'http:video.mp4')
    with open_container(Path('http:video.mp4')) as container:
        assert container.streams.video[0].frames == 24


def test_reading_ends_when_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch, tiny_videos: Path
) -> None:
    assert list(in_time([1, 2], 'to open')) == [1, 2]
    monkeypatch.setattr('mmtimesformer.datasets.video_io.safe_open.PATIENCE', -1)
    with pytest.raises(
        ValueError, match=r'0\.mp4 .* by pyav: to open it takes more than -1 seconds'
    ):
        Video(tiny_videos / '0.mp4')
