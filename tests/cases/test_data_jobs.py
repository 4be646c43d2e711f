"""One pair of names or one file never ends a job; nothing is skipped without a word."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmtimesformer.checkpoints.download import fetch
from mmtimesformer.datasets.preparation import isolation, packing, resizing
from mmtimesformer.datasets.preparation.finding import SkippedFiles, walk_videos
from mmtimesformer.datasets.preparation.packing import (
    Listed,
    TarShard,
    read_tar_shard,
    write_tar_shard,
)
from mmtimesformer.datasets.preparation.resizing import Resize, choose_targets, resize_video
from mmtimesformer.datasets.preparation.transcoding import PRESETS, plan_transcodes
from mmtimesformer.datasets.transforms.decoding import Video, VideoInit
from mmtimesformer.inference.inputs import check_exists, videos_of

DATA_TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'data'
NOT_UTF8 = os.fsdecode(b'caf\xe9.mp4')
Tool = Callable[..., tuple[int, str]]


def video(path: Path, frames: int = 4, width: int = 48, height: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w', format='mp4') as container:
        stream: Any = container.add_stream('libx264', rate=25, options={'preset': 'ultrafast'})
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        for i in range(frames):
            picture = np.full((height, width, 3), 10 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode())
    return path


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Tool:
    """Run a tool of tools/data in this process: its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: object) -> tuple[int, str]:
        spec: Any = importlib.util.spec_from_file_location(f'job_{name}', DATA_TOOLS / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        code = module.main([str(word) for word in words])
        printed = capfd.readouterr()
        assert 'Traceback' not in printed.out + printed.err
        return code, printed.out + printed.err

    return run


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """A folder with two good videos and all that stands between videos in the wild."""
    folder = tmp_path / 'messy'
    good = video(folder / 'good.mp4')
    shutil.copy(good, folder / 'good too.mkv')
    for name in ('clash.avi', 'clash.mp4', 'three.mov', 'three.ts', 'three.gif'):
        shutil.copy(good, folder / name)
    shutil.copy(good, folder / NOT_UTF8)
    shutil.copy(good, folder / 'tab\tand\nbreak.mp4')
    (folder / 'broken.mp4').write_bytes(b'\0nothing')
    (folder / 'dangling.mp4').symlink_to('nowhere.mp4')
    os.mkfifo(folder / 'pipe.mp4')
    for name in ('picture.jpg', 'notes.txt', 'sub/more.TXT', 'no_ending'):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('x')
    return folder


NOTE = '4 files with other endings were skipped: no ending, .jpg, .txt'


def test_a_job_of_resizing_does_all_that_can_be_done(
    tool: Tool, messy: Path, tmp_path: Path
) -> None:
    code, printed = tool('resize_videos', messy, 'small', '--short-side', 24, '--with', 'pyav')
    assert code == 3
    assert NOTE in printed
    small = tmp_path / 'small'
    done = {path.name for path in small.iterdir()} - {'failed.txt'}
    assert done == {'good.mp4', 'good too.mp4', NOT_UTF8, 'tab\tand\nbreak.mp4'}
    assert all(len(Video(small / name)) == 4 for name in done)
    failed = dict(line.split('\t') for line in (small / 'failed.txt').read_text().splitlines())
    reasons = {Path(name).name: reason for name, reason in failed.items()}
    clashes = 'clash.avi', 'clash.mp4', 'three.gif', 'three.mov', 'three.ts'
    assert sorted(reasons) == sorted(['broken.mp4', 'dangling.mp4', 'pipe.mp4', *clashes])
    for name in ('clash.avi', 'clash.mp4'):
        assert 'clash.avi and clash.mp4 would both become' in reasons[name]
    for name in ('three.gif', 'three.mov', 'three.ts'):
        assert 'three.gif, three.mov and three.ts would all become' in reasons[name]
    assert reasons['dangling.mp4'] == 'it is a link to nothing'
    assert reasons['pipe.mp4'] == 'it is a pipe'
    again, printed = tool('resize_videos', messy, 'small', '--short-side', 24, '--with', 'pyav')
    assert again == 3
    assert '4 there already' in printed


def test_a_job_of_transcoding_does_all_that_can_be_done(
    tool: Tool, messy: Path, tmp_path: Path
) -> None:
    lines = [
        'good.mp4 1',
        'clash.avi 2',
        'clash.mp4 3',
        'gone.mp4 4',
        '../messy/good.mp4 5',
    ]
    (tmp_path / 'train.txt').write_text('\n'.join([*lines, 'good too.mkv 7']))
    video(tmp_path / 'new/clash.mp4')  # of an earlier run: whose is it?
    code, _ = tool('transcode', messy, 'new', '--annotations', 'train.txt', '--short-side', 24)
    assert code == 3
    assert (tmp_path / 'new/train.txt').read_text() == 'good.mp4 1\ngood too.mp4 7\n'
    failed = (tmp_path / 'new/failed.txt').read_text()
    assert failed.count('clash.avi and clash.mp4 would both become') == 2
    for reason in ('gone.mp4 does not exist', 'leads out of'):
        assert reason in failed


def test_a_job_of_checking_names_all_that_is_bad(tool: Tool, messy: Path, tmp_path: Path) -> None:
    code, printed = tool('check_videos', messy, '--out', 'bad.csv')
    assert code == 3
    assert NOTE in printed
    assert '12 videos: 9 good, 3 bad' in printed
    bad = dict(line.split(',', 1) for line in (tmp_path / 'bad.csv').read_text().splitlines()[1:])
    assert sorted(bad) == ['broken.mp4', 'dangling.mp4', 'pipe.mp4']


def test_a_preparation_leaves_out_names_that_no_list_can_hold(tool: Tool, tmp_path: Path) -> None:
    for name in ('a.mp4', 'b.mp4', 'tab\there.mp4', NOT_UTF8):
        video(tmp_path / 'mine/wave' / name)
    (tmp_path / 'mine/wave/gone.mp4').symlink_to('nowhere.mp4')
    (tmp_path / 'mine/wave/cover.jpg').write_text('x')
    code, printed = tool('prepare', 'folder', 'mine', '--out', 'out', '--val', 0.25)
    assert code == 3
    assert '1 file with other endings was skipped: .jpg' in printed
    listed = [(tmp_path / 'out' / f'{name}.txt').read_text() for name in ('train', 'val')]
    assert sorted(''.join(listed).split('\n')) == ['', 'wave/a.mp4 0', 'wave/b.mp4 0']
    missing = (tmp_path / 'out/missing.txt').read_text()
    assert 'wave/tab\\there.mp4\thas a tab or a line break' in missing
    assert 'wave/caf\\udce9.mp4\tis not UTF-8' in missing
    assert 'wave/gone.mp4\tit is a link to nothing' in missing
    manifest = json.loads((tmp_path / 'out/manifest.json').read_text())
    assert sum(split['found'] for split in manifest['splits'].values()) == 2


def test_a_folder_that_cannot_be_read_does_not_end_a_walk(
    messy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not stop root, so the system's answer is played."""
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith('sub'):
            raise PermissionError(13, 'Permission denied', path)
        return real(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    skipped = SkippedFiles()
    assert len(list(walk_videos(messy, skipped))) == 10
    assert ('sub/', 'the folder cannot be read: permission denied') in skipped.faults


def test_a_file_that_vanishes_during_the_job_is_one_failure(tmp_path: Path) -> None:
    gone = Resize(tmp_path / 'a.mp4', tmp_path / 'b.mp4', tmp_path / 'part', 24, 18, None)
    with pytest.raises(FileNotFoundError, match=r'a\.mp4 does not exist'):
        resize_video(gone)


def test_a_name_too_long_for_its_new_ending_ends_no_job(tool: Tool, tmp_path: Path) -> None:
    video(tmp_path / 'long' / f'{"x" * 252}.ts')
    video(tmp_path / 'long/short.mp4')
    code, _ = tool('resize_videos', 'long', 'small', '--short-side', 24, '--with', 'pyav')
    assert code == 3
    assert len(Video(tmp_path / 'small/short.mp4')) == 4
    assert 'File name too long' in (tmp_path / 'small/failed.txt').read_text()


def test_a_name_that_no_file_can_have_ends_no_plan(tmp_path: Path) -> None:
    targets, refused = choose_targets(['a\0.mp4', '', 'b.mp4'], tmp_path)
    assert list(targets) == ['b.mp4']
    assert [name for name, _ in refused] == ['a\0.mp4', '']


@pytest.mark.parametrize('ignores', [True, False])
def test_names_that_differ_in_case_clash_where_the_disk_takes_them_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignores: bool
) -> None:
    monkeypatch.setattr(resizing, 'ignores_case', lambda folder: ignores)
    targets, refused = choose_targets(['A.mp4', 'a.avi', 'b.mp4'], tmp_path)
    assert list(targets) == (['b.mp4'] if ignores else ['A.mp4', 'a.avi', 'b.mp4'])
    assert [name for name, _ in refused] == (['A.mp4', 'a.avi'] if ignores else [])


def test_nothing_but_clashes_is_an_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / 'videos').mkdir()
    names = ('a.avi', 'a.mp4', 'b.avi', 'b.mp4')
    with pytest.raises(ValueError, match=r'a\.avi and a\.mp4 would both become .*3 others'):
        plan_transcodes(tmp_path / 'videos', tmp_path / 'new', names, PRESETS['storage'], 60)


# -- packing ---------------------------------------------------------------------------------------


def shard_of(folder: Path, *names: str) -> TarShard:
    listed = tuple(Listed(i, name, (0,)) for i, name in enumerate(names))
    return TarShard(folder, listed, folder / 'shard-000000.tar', folder / '.part')


def test_a_video_that_changes_while_it_is_packed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('a.mp4', 'b.mp4', 'c.mp4', 'd.mp4'):
        video(tmp_path / name)

    class Opened(Video):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            if path.name == 'b.mp4':
                path.unlink()

    class Shrinking(packing._Source):
        def __init__(self, path: Path, number: int) -> None:
            super().__init__(path, number)
            self.size += path.name == 'c.mp4'  # as if it had been longer a moment ago

    monkeypatch.setattr(packing, 'Video', Opened)
    monkeypatch.setattr(packing, '_Source', Shrinking)
    shard = shard_of(tmp_path, 'a.mp4', 'b.mp4', 'c.mp4', 'd.mp4')
    write_tar_shard(shard)
    members, left_out = read_tar_shard(shard, shard.path)
    assert [member.number for member in members] == [0, 3]
    assert left_out[1].startswith('it disappeared')
    assert left_out[2] == 'it became shorter while it was packed'


def test_a_video_that_ends_the_process_is_left_out_of_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('a.mp4', 'b.mp4', 'c.mp4'):
        video(tmp_path / name)

    def call_here(job: Any, items: Any, *_: Any) -> Any:
        """Call without processes; what would end one is an answer, as of a worker that died."""
        for item in items:
            names = [v.name for v in item.videos if (v.number, DIED) not in item.left_out] if (
                isinstance(item, TarShard)
            ) else [Path(item).name]  # fmt: skip
            if 'b.mp4' in names:
                yield item, None, DIED
            else:
                yield item, job(item), None

    for module in (packing, isolation):
        monkeypatch.setattr(module, 'call_isolated', call_here)
    shard = shard_of(tmp_path, 'a.mp4', 'b.mp4', 'c.mp4')
    ((written, wrong),) = packing.write_tar_shards([shard], 1, 60)
    assert wrong is None
    members, left_out = read_tar_shard(written, written.path)
    assert [member.number for member in members] == [0, 2]
    assert left_out == {1: DIED}


DIED = 'the process that read it crashed (exit code 7)'


# -- endings ---------------------------------------------------------------------------------------


ENDINGS = [
    *('gif', 'ts', 'mts', 'm2ts', 'vob', 'asf', 'f4v', 'mxf', 'y4m', 'ogg', 'mpe', 'm1v', 'm2v'),
    *('divx', 'ogv', 'wmv', '3gp', 'h264', 'MP4'),
]


def test_endings_that_ffmpeg_reads_are_found(tmp_path: Path) -> None:
    for ending in ENDINGS:
        (tmp_path / f'x.{ending}').write_text('x')
    skipped = SkippedFiles()
    found = [name for name, _ in walk_videos(tmp_path, skipped)]
    assert found == sorted(f'x.{ending}' for ending in ENDINGS)
    assert not skipped.note()


def test_predict_on_a_folder_says_once_what_it_skips(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video(tmp_path / 'a.gif')
    (tmp_path / 'b.txt').write_text('x')
    (tmp_path / 'c.mp4').symlink_to('nowhere')
    assert [Path(given.name).name for given in videos_of(tmp_path)] == ['a.gif']
    assert [record.getMessage() for record in caplog.records] == [
        f'{tmp_path}: 1 file with other endings was skipped: .txt',
        f'{tmp_path}: c.mp4: it is a link to nothing',
    ]
    (tmp_path / 'a.gif').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 file with other endings was skipped: \.txt'):
        videos_of(tmp_path)


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize('address', ['rtsp://host/live', 'https://host/a.mp4', 's3://bucket/a.mp4'])
def test_an_address_keeps_its_slashes_and_the_sentence_says_what_to_do(
    tool: Tool, address: str
) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: check_exists(Path(address), address),
        lambda: check_exists(Path(address)),
        lambda: Video(address),
        lambda: Video(Path(address)),
        lambda: VideoInit()({'filename': address}),
    ]
    for attempt in attempts:
        with pytest.raises(FileNotFoundError) as error:
            attempt()
        assert address in str(error.value)
        assert 'download it first' in str(error.value)
    for words in (['check_videos', address], ['resize_videos', address, 'out']):
        code, printed = tool(*words)
        assert code == 1
        assert address in printed
        assert 'download it first' in printed


def test_the_address_of_a_checkpoint_that_is_not_fetched_keeps_its_slashes() -> None:
    for source in ('s3://bucket/a.pth', Path('s3://bucket/a.pth')):
        with pytest.raises(FileNotFoundError, match=r's3://bucket/a\.pth .*download it first'):
            fetch(source)
