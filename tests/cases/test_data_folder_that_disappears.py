"""A folder of videos that disappears during a run is waited for, and never counts as bad."""

import copy
import pickle
import shutil
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmtimesformer.checkpoints import load_torch
from mmtimesformer.cli import FAILED, STOPPED, RunStopped
from mmtimesformer.datasets.preparation.packing import (
    list_entries,
    list_labelled,
    plan_tar_shards,
    write_tar_shard,
)
from mmtimesformer.datasets.tar_shards.dataset import TarShardVideoDataset
from mmtimesformer.datasets.tar_shards.index import format_index
from mmtimesformer.datasets.video_dataset import FailedSample, VideoDataset
from mmtimesformer.datasets.video_io.local_folder import LocalFolder
from mmtimesformer.engine.launch import train_and_test as commands
from mmtimesformer.fileio.storage_error import StorageError
from tests.tools.conftest import tiny_config  # noqa: F401  (a fixture)
from tests.tools.running import finish, start

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=4, frame_interval=2, num_clips=1),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]


@pytest.fixture
def videos(tiny_videos: Path, tmp_path: Path) -> Path:
    folder = tmp_path / 'videos'
    folder.mkdir()
    for i in range(6):
        shutil.copy(tiny_videos / f'{i}.mp4', folder)
    (tmp_path / 'list.txt').write_text(''.join(f'{i}.mp4 {i % 2}\n' for i in range(6)))
    return folder


def build(videos: Path, **options: Any) -> VideoDataset:
    settings = {'ann_file': str(videos.parent / 'list.txt'), 'data_prefix': {'video': str(videos)}}
    return VideoDataset(**{**settings, 'pipeline': PIPELINE, 'patience': 30, **options})


@contextmanager
def lost(folder: Path, how: str, seconds: float) -> Iterator[None]:
    """Let a folder disappear for a while."""
    aside = folder.with_name('aside')

    def come_back() -> None:
        time.sleep(seconds)
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)

    folder.rename(aside)
    if how != 'moved':
        folder.mkdir()
    if how == 'another':
        (folder / 'README').write_text('nothing is mounted here')
    thread = threading.Thread(target=come_back)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize('how', ['moved', 'empty', 'another'])
@pytest.mark.parametrize('test_mode', [False, True])
def test_it_is_waited_for(videos: Path, how: str, test_mode: bool) -> None:
    dataset = build(videos, test_mode=test_mode)
    before = [dataset[i]['data_samples'] for i in range(3)]
    assert not any(isinstance(one, FailedSample) for one in before)
    with lost(videos, how, 0.5):
        sample = dataset[4]['data_samples']
    assert not isinstance(sample, FailedSample)
    assert 'replaces' not in sample
    assert int(sample.gt_label if 'gt_label' in sample else sample.gt_labels.item) == 0


def test_a_sample_after_the_wait_is_that_of_a_run_that_never_lost_it(videos: Path) -> None:
    dataset = build(videos)
    np.random.seed(7)  # noqa: NPY002
    expected = dataset[2]['inputs']
    np.random.seed(7)  # noqa: NPY002
    with lost(videos, 'moved', 0.3):
        assert torch.equal(dataset[2]['inputs'], expected)


@pytest.mark.parametrize('test_mode', [False, True])
def test_what_stays_away_is_an_error_and_no_bad_video(videos: Path, test_mode: bool) -> None:
    dataset = build(videos, test_mode=test_mode, patience=0.2)
    dataset[0]
    shutil.rmtree(videos)
    began = time.monotonic()
    with pytest.raises(StorageError, match=r'gone or empty for .*No such file.*patience=0\.2'):
        dataset[1]
    assert time.monotonic() - began < 2


def test_single_videos_that_are_missing_are_bad_as_ever(videos: Path) -> None:
    dataset = build(videos)
    for i in range(3):
        dataset[i]
    (videos / '4.mp4').unlink()
    began = time.monotonic()
    sample = dataset[4]['data_samples']
    assert sample.replaces[0]['reason'] == 'it does not exist'
    assert time.monotonic() - began < 1


def test_a_folder_that_never_was_is_an_error_at_once(videos: Path) -> None:
    dataset = build(videos, data_prefix={'video': str(videos / 'wrong')})
    with pytest.raises(ValueError, match='videos one after the other cannot be read'):
        dataset[0]


def test_a_subfolder_that_is_lost_is_waited_for(videos: Path, tmp_path: Path) -> None:
    """Each class may be a mount of its own."""
    lines = []
    for i in range(6):
        folder = videos / f'class{i % 2}'
        folder.mkdir(exist_ok=True)
        (videos / f'{i}.mp4').rename(folder / f'{i}.mp4')
        lines.append(f'class{i % 2}/{i}.mp4 {i % 2}\n')
    (tmp_path / 'list.txt').write_text(''.join(lines))
    dataset = build(videos)
    for i in range(4):
        dataset[i]
    with lost(videos / 'class0', 'empty', 0.5):
        assert 'replaces' not in dataset[4]['data_samples']
    dataset = build(videos)
    dataset[0]
    shutil.rmtree(videos / 'class1')
    assert 'replaces' in dataset[1]['data_samples'], 'of which nothing was read before'


def test_without_a_prefix_the_folder_is_that_of_all_videos(videos: Path, tmp_path: Path) -> None:
    (tmp_path / 'list.txt').write_text(''.join(f'{videos}/{i}.mp4 0\n' for i in range(6)))
    dataset = build(videos, data_prefix={'video': ''})
    assert dataset.folder is not None and dataset.folder.path == str(videos)


def test_a_wait_is_logged_once_for_all_processes(
    videos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each process of the loader waits; they share a note of that."""

    def note(text: str, **_: Any) -> None:
        with (tmp_path / 'log').open('a') as file:
            file.write(text + '\n')

    monkeypatch.setattr('mmtimesformer.datasets.video_io.local_folder.print_log', note)
    loader = DataLoader(build(videos), batch_size=1, num_workers=2, collate_fn=list)
    with lost(videos, 'moved', 2):
        assert len(list(loader)) == 6
    lines = (tmp_path / 'log').read_text().splitlines()
    assert len(lines) == 2, lines
    assert 'is gone or empty (No such file or directory)' in lines[0]
    assert 'is there again' in lines[1]


def test_shards_on_a_disk_are_waited_for(videos: Path, tmp_path: Path) -> None:
    tar = tmp_path / 'tar'
    tar.mkdir()
    plan = plan_tar_shards(list_labelled(tmp_path / 'list.txt'), videos, tar, 10**9, 60)
    for shard in plan:
        write_tar_shard(shard)
    (tar / 'index.tsv').write_text('\n'.join(format_index(list_entries(plan)[0])) + '\n')
    dataset = TarShardVideoDataset(str(tar / 'index.tsv'), PIPELINE, patience=30)
    dataset[0]
    with lost(tar, 'empty', 0.5):
        assert 'replaces' not in dataset[3]['data_samples']
    dataset.shards.local.patience = 0.2
    shutil.rmtree(tar)
    with pytest.raises(StorageError, match='gone or empty'):
        dataset[1]


def test_a_copy_and_a_pickle_are_data_sets(videos: Path) -> None:
    dataset = build(videos)
    for other in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert other[0]['inputs'].shape == dataset[0]['inputs'].shape


def test_a_wrong_patience_is_an_error(videos: Path) -> None:
    with pytest.raises(ValueError, match='patience=-1'):
        LocalFolder(str(videos), -1)


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture
def config(tiny_config: Path, tiny_videos: Path, videos: Path) -> Path:  # noqa: F811
    for name in ('train.txt', 'val.txt'):
        shutil.copy(videos.parent / 'list.txt', videos.parent / name)
    text = tiny_config.read_text()
    text = text.replace(f"ann_file='{tiny_videos}", f"patience=0.5, ann_file='{videos.parent}")
    text = text.replace(str(tiny_videos), str(videos))
    for theirs, ours in {
        'DecordInit': 'mmtimesformer.VideoInit',
        'DecordDecode': 'mmtimesformer.VideoDecode',
        "type='VideoDataset'": "type='mmtimesformer.VideoDataset'",
    }.items():
        text = text.replace(theirs, ours)
    tiny_config.write_text(text)
    return tiny_config


def train(config: Path, work_dir: Path, resume: str | None = None, **options: Any) -> None:
    commands.train(
        Namespace(
            config=str(config), work_dir=str(work_dir), cfg_options=options, launcher='none',
            no_validate=False, amp=None, auto_scale_lr=False, accumulate=False, resume=resume,
            seed=3, diff_rank_seed=False, deterministic=True,
        )
    )  # fmt: skip


def lose_at(monkeypatch: pytest.MonkeyPatch, videos: Path, stage: str) -> None:
    """Lose the folder after the first step of a training or validation."""
    from mmtimesformer.engine import UnreadableVideosHook

    method = f'before_{stage}_iter'
    before = getattr(UnreadableVideosHook, method)

    def losing(self: Any, runner: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        if batch_idx == 0 and videos.exists():
            videos.rename(videos.with_name('aside'))
        before(self, runner, batch_idx, *args, **kwargs)

    monkeypatch.setattr(UnreadableVideosHook, method, losing)


@pytest.mark.parametrize(('stage', 'workers'), [('train', 0), ('train', 1), ('val', 0)])
def test_a_training_saves_and_ends_and_can_be_resumed(
    config: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    stage: str, workers: int,
) -> None:  # fmt: skip
    out = tmp_path / 'out'
    options = {f'{stage}_dataloader.num_workers': workers}
    if workers:
        options[f'{stage}_dataloader.prefetch_factor'] = 1
    with monkeypatch.context() as patch:
        lose_at(patch, videos, stage)
        expected = r'stopped after epoch [01], step [123]: the folder .* gone or empty'
        with pytest.raises(RunStopped, match=expected) as ended:
            train(config, out, **options)
    assert ended.value.code == STOPPED
    assert 'all is saved' in str(ended.value) and 'Traceback' not in str(ended.value)
    assert not (out / 'bad_videos.jsonl').exists()
    meta = load_torch(out / 'mid_epoch.pth')['meta']
    assert meta['iter'] in ([3] if stage == 'val' else [1, 2] if workers else [1])
    with pytest.raises((ValueError, FileNotFoundError), match=r'videos'):
        train(config, out, resume='auto')  # it is still away: an error at once
    videos.with_name('aside').rename(videos)
    train(config, out, resume='auto')
    if stage == 'val':
        return
    train(config, tmp_path / 'undisturbed')
    one, other = (
        load_torch(folder / 'epoch_1.pth')['state_dict']
        for folder in (out, tmp_path / 'undisturbed')
    )
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_test_never_counts_it_as_wrong(
    config: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmtimesformer.engine import UnreadableVideosHook

    train(config, tmp_path / 'out')
    after = UnreadableVideosHook.after_test_iter

    def losing(self: Any, runner: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        if batch_idx == 1:
            videos.rename(videos.with_name('aside'))
        after(self, runner, batch_idx, *args, **kwargs)

    monkeypatch.setattr(UnreadableVideosHook, 'after_test_iter', losing)
    arguments = Namespace(
        config=str(config), checkpoint=str(tmp_path / 'out/epoch_1.pth'), launcher='none',
        work_dir=str(tmp_path / 'test'), cfg_options={}, amp=None, dump=None, show=False,
        show_dir=None, interval=1, wait_time=1, calibrated=False, preprocessing=None,
    )  # fmt: skip
    with pytest.raises(StorageError, match='gone or empty'):
        commands.test(arguments)


def test_what_cannot_be_saved_ends_with_an_error(
    config: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_at(monkeypatch, videos, 'train')
    monkeypatch.setattr(
        'mmtimesformer.engine.hooks.stop_on_signal.save_mid_epoch', lambda runner, meta: False
    )
    with pytest.raises(RunStopped) as ended:
        train(config, tmp_path / 'out')
    assert ended.value.code == FAILED


@pytest.mark.slow
@pytest.mark.parametrize('signalled', [False, True])
def test_all_processes_save_together(
    config: Path, videos: Path, tmp_path: Path, signalled: bool
) -> None:
    """Also where a signal comes during the wait, which would last much longer."""
    out = tmp_path / 'out'
    patience = 600 if signalled else 3
    config.write_text(config.read_text().replace('patience=0.5', f'patience={patience}'))
    process = start(
        'bash', ROOT / 'tools/dist_train.sh', config, 2, '--work-dir', out, '--cfg-options',
        'train_cfg.max_epochs=1000', 'train_cfg.val_interval=1000',
        'train_dataloader.num_workers=1', PYTHON=sys.executable,
    )  # fmt: skip
    until = time.monotonic() + 240
    while not any('Epoch(train)' in path.read_text() for path in out.rglob('*.log')):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.2)
    aside = videos.with_name('aside')
    videos.rename(aside)
    if signalled:
        time.sleep(6)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
    code, printed = finish(process, 240)
    assert code == 75, printed
    assert (out / 'mid_epoch.pth').is_file()
    assert not (out / 'bad_videos.jsonl').exists()
    if signalled:
        assert time.monotonic() - began < 60
    else:
        assert 'gone or empty' in printed
    assert aside.is_dir()
