"""Videos in tar shards are the videos on the disk: same samples, same order, same training."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.fileio import exists, get, get_text, list_from_file
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import DataLoader

from mmtimesformer.cli import STOPPED, RunStopped
from mmtimesformer.compat.data_samples import label_of
from mmtimesformer.datasets.preparation.packing import (
    list_entries,
    list_labelled,
    plan_tar_shards,
    write_tar_shard,
)
from mmtimesformer.datasets.tar_shards import index, object_store
from mmtimesformer.datasets.tar_shards.dataset import TarShardVideoDataset
from mmtimesformer.datasets.tar_shards.index import DamagedTarShardError, format_index, parse_index
from mmtimesformer.datasets.tar_shards.object_store import FsspecBackend, StorageError
from mmtimesformer.datasets.video_dataset import VideoDataset
from mmtimesformer.datasets.video_io.errors import UnreadableVideo
from mmtimesformer.engine.loops.resumable_loop import seed_all
from mmtimesformer.engine.runner import Runner
from tests.engine.conftest import At, assert_equal, whole_state

PIPELINE = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=4, frame_interval=2, num_clips=1),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
CONFIGS = Path(__file__).parents[3] / 'configs'
NAMES = ['0.mp4', '1.mp4', 'a b/2.mp4', 'empty.mp4', '3.mp4', '4.v2.mp4', 'ünïcode.mp4', '5.mp4']


@pytest.fixture(scope='module')
def folder(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with ``list.txt``, one of them empty, and below ``shards`` the same in three shards."""
    folder = tmp_path_factory.mktemp('files')
    for i, name in enumerate(NAMES):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(tiny_videos / f'{i % 6}.mp4', folder / name)
    (folder / 'empty.mp4').write_bytes(b'')
    (folder / 'list.txt').write_text(''.join(f'{n}\t{i % 2}\n' for i, n in enumerate(NAMES)))
    pack(folder, folder / 'shards')
    return folder


def pack(folder: Path, out: Path) -> None:
    size = 3 * (folder / '0.mp4').stat().st_size
    plan = plan_tar_shards(list_labelled(folder / 'list.txt'), folder, out, size, 60)
    assert len(plan) == 3
    for shard in plan:
        write_tar_shard(shard)
    (out / 'index.tsv').write_text('\n'.join(format_index(list_entries(plan)[0])) + '\n')


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Shards to be damaged."""
    return Path(shutil.copytree(folder / 'shards', tmp_path / 'shards'))


@pytest.fixture
def store(folder: Path) -> Iterator[str]:
    """The shards in an object store, which is this process's memory."""
    memory = fsspec.filesystem('memory')
    memory.put(str(folder / 'shards') + '/', '/bucket/shards', recursive=True)
    yield 'memory://bucket/shards'
    memory.rm('/bucket', recursive=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses take no time, and are counted."""
    pauses: list[float] = []
    monkeypatch.setattr(object_store.time, 'sleep', pauses.append)
    return pauses


def on_disk(folder: Path, **options: Any) -> VideoDataset:
    prefix = {'video': str(folder)}
    options = {'pipeline': PIPELINE, 'delimiter': '\t', **options}
    return VideoDataset(str(folder / 'list.txt'), data_prefix=prefix, **options)


def in_tar_shards(index: str | Path, **options: Any) -> TarShardVideoDataset:
    index = index if str(index).endswith('.tsv') else f'{index}/index.tsv'
    return TarShardVideoDataset(str(index), **{'pipeline': PIPELINE, **options})


def samples(dataset: Any, order: list[int]) -> list[tuple[Any, Any]]:
    """What a training sees: pixels and labels, and whether another video stood in."""
    seen = []
    for number in order:
        seed_all(7, number)
        sample = dataset[number]
        packed = sample['data_samples']
        failed = packed.get('replaces', packed.get('failed'))
        seen.append((sample['inputs'], label_of(packed), failed is not None))
    return seen


def assert_same(one: list[tuple[Any, Any]], other: list[tuple[Any, Any]]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert mine[1:] == theirs[1:]


# -- the same as files -----------------------------------------------------------------------------


def test_it_is_found_by_its_name(default_scope: str | None) -> None:
    assert DATASETS.get('mmtimesformer.TarShardVideoDataset') is TarShardVideoDataset


@pytest.mark.parametrize('test_mode', [False, True])
def test_samples_are_those_of_files_on_the_disk(folder: Path, store: str, test_mode: bool) -> None:
    """Also the one that stands in for a video that was left out of the tar shards."""
    files = on_disk(folder, test_mode=test_mode)
    order = DefaultSampler(files, shuffle=True, seed=1)
    expected = samples(files, list(order))
    assert sum(failed for _, _, failed in expected) == 1
    for place in (folder / 'shards', store, f'file://{folder / "shards"}'):
        dataset = in_tar_shards(place, test_mode=test_mode)
        assert_same(expected, samples(dataset, list(DefaultSampler(dataset, True, seed=1))))
    names = [dataset.get_data_info(i)['filename'].rpartition('tar/')[2] for i in range(len(files))]
    assert [n for n in names if 'empty' not in n] == [n for n in NAMES if n != 'empty.mp4']


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_are_read_ahead_and_are_the_same(folder: Path, store: str, workers: int) -> None:
    def batches(dataset: Any) -> list[torch.Tensor]:
        loader = DataLoader(dataset, 3, collate_fn=pseudo_collate, num_workers=workers)
        return [inputs for batch in loader for inputs in batch['inputs']]

    options = {'pipeline': [{**step} for step in PIPELINE], 'test_mode': True}
    options['pipeline'][1]['test_mode'] = True
    expected = batches(on_disk(folder, **options))
    for place in (folder / 'shards', store):
        assert all(map(torch.equal, expected, batches(in_tar_shards(place, **options))))


def test_the_next_videos_are_fetched_while_one_is_decoded(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four at a time, in other threads, each once."""
    begun: list[tuple[int, bool]] = []

    def slowly(self: Any, member: Any, fetch: Any = index.TarShards._fetch) -> bytes:
        begun.append((member.number, threading.current_thread() is threading.main_thread()))
        return fetch(self, member)

    monkeypatch.setattr(index.TarShards, '_fetch', slowly)
    dataset = in_tar_shards(store)
    dataset.read_ahead([7, 0, 3, 2, 1, 5, 6])
    deadline = time.monotonic() + 10
    while len(begun) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(begun) == [(0, False), (1, False), (2, False), (7, False)]
    for number in (7, 0, 2, 1, 5, 6):
        dataset[number]
    assert sorted(begun) == [(number, False) for number in (0, 1, 2, 5, 6, 7)]


class Means(BaseModel):
    """Judge a video by its mean colours."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, inputs: list[Any], data_samples: list[Any], mode: str = 'tensor') -> Any:
        colours = torch.stack([clip[0].float().mean((1, 2, 3)) / 255 for clip in inputs])
        labels = torch.tensor([label_of(sample) for sample in data_samples])
        return {'loss': (self.layer(colours)[:, 0] - labels).square().mean()}


def train(dataset: Any, work_dir: Path, *hooks: Any, workers: int = 0, **options: Any) -> None:
    scopes = dict(DefaultScope._instance_dict)
    loader = {'dataset': dataset, 'batch_size': 2, 'num_workers': workers}
    runner = Runner(
        model=Means(),
        work_dir=str(work_dir),
        train_dataloader={**loader, 'sampler': {'type': 'DefaultSampler', 'shuffle': True}},
        train_cfg={'by_epoch': True, 'max_epochs': 2},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        param_scheduler=[{'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 9}],
        default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}},
        custom_hooks=list(hooks),
        randomness={'seed': 3},
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{time.monotonic_ns()}',
        cfg={},
        **options,
    )
    try:
        runner.train()
    finally:
        DefaultScope._instance_dict.clear()
        DefaultScope._instance_dict.update(scopes)


def test_a_training_stopped_in_an_epoch_and_gone_on_is_that_of_files(
    folder: Path, store: str, tmp_path: Path
) -> None:
    """From files, without a stop; from shards on a disk and in a store, stopped at step 6 of 8."""
    train(on_disk(folder), tmp_path / 'files')
    expected = whole_state(tmp_path / 'files/epoch_2.pth')
    _drop_names(expected)
    stop = At(6, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    for name, place, workers in [('disk', folder / 'shards', 2), ('store', store, 0)]:
        with pytest.raises(RunStopped) as end:
            train(in_tar_shards(place), tmp_path / name, stop, workers=workers)
        assert end.value.code == STOPPED
        train(in_tar_shards(place), tmp_path / name, resume=True, workers=workers)
        state = whole_state(tmp_path / name / 'epoch_2.pth')
        _drop_names(state)
        assert_equal(expected, state)


def _drop_names(state: Any) -> None:
    """Drop the checksum of the names of the videos: those in shards have other addresses."""
    (position,) = (part for part in state['done'] if isinstance(part, dict) and 'list' in part)
    del position['list']


def test_a_config_reads_shards_when_its_base_file_is_swapped(tmp_path: Path) -> None:
    """Nothing else changes: not the pipelines, not the samplers."""
    path = CONFIGS / 'timesformer/timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb.py'
    text = path.read_text().replace("'../_base_", f"'{CONFIGS}/_base_")
    (tmp_path / 'config.py').write_text(
        text.replace('/kinetics400.py', '/kinetics400_tar_shards.py')
    )
    files, sharded = Config.fromfile(path), Config.fromfile(tmp_path / 'config.py')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = sharded[loader].dataset
        assert dataset.type == 'mmtimesformer.TarShardVideoDataset'
        assert dataset.ann_file.endswith('/index.tsv')
        for key in ('type', 'ann_file', 'data_prefix', 'metainfo'):
            dataset.pop(key, None)
            files[loader].dataset.pop(key, None)
        assert sharded[loader] == files[loader]


# -- readable by others ----------------------------------------------------------------------------


def test_plain_tar_reads_a_shard_in_the_layout_of_webdataset(folder: Path) -> None:
    """WebDataset makes a sample of neighbours of one key: what is in front of the first dot."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted((folder / 'shards').glob('*.tar')):
        with tarfile.open(path) as tar:
            for info in tar.getmembers()[:-1]:  # WebDataset passes over __names__ such as the last
                key, _, ending = info.name.partition('.')
                assert key not in found or key == list(found)[-1], 'they lie side by side'
                found.setdefault(key, {})[ending] = tar.extractfile(info).read()
    numbers = [i for i, name in enumerate(NAMES) if name != 'empty.mp4']
    assert list(found) == [f'{i:08d}' for i in numbers]
    for number, sample in zip(numbers, found.values(), strict=True):
        assert sample['mp4'] == (folder / NAMES[number]).read_bytes()
        assert json.loads(sample['json']) == {'name': NAMES[number], 'labels': [number % 2]}


def test_mmengine_reads_from_a_store_by_prefix_and_by_name(store: str, folder: Path) -> None:
    index = (folder / 'shards/index.tsv').read_text()
    assert get_text(f'{store}/index.tsv') == index
    assert list_from_file(f'{store}/index.tsv') == index.splitlines()
    assert exists(f'{store}/shard-000000.tar')
    assert not exists(f'{store}/shard-000009.tar')
    args = {'backend': 'fsspec'}
    assert get(str(folder / '0.mp4'), backend_args=args) == (folder / '0.mp4').read_bytes()
    backend = FsspecBackend()
    assert backend.isdir(store)
    assert backend.isfile(backend.join_path(store, 'index.tsv'))
    with backend.get_local_path(f'{store}/index.tsv') as path:
        assert Path(path).read_text() == index
    assert not Path(path).exists()


def test_a_data_set_can_be_handed_to_another_process(store: str) -> None:
    dataset = in_tar_shards(store)
    dataset.read_ahead([0, 1])
    other = pickle.loads(pickle.dumps(dataset))  # while videos are on their way
    assert_same(samples(dataset, [0, 1]), samples(other, [0, 1]))


# -- damaged and hostile ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda text: text[:-40], 'was cut short or changed after it was written'),
        (lambda text: text.replace('\t1\n', '\t0\n', 1), 'cut short or changed'),
        (lambda text: '', 'is not an index of tar shards'),
        (lambda text: 'a.mp4 0\nb.mp4 1\n', 'is not an index of tar shards'),
    ],
)  # fmt: skip
def test_an_index_that_was_cut_or_changed_is_refused(
    copy: Path, change: Callable[[str], str], message: str
) -> None:
    index = copy / 'index.tsv'
    index.write_text(change(index.read_text()))
    with pytest.raises(DamagedTarShardError, match=message) as error:
        in_tar_shards(copy)
    assert str(index) in str(error.value)


@pytest.mark.parametrize(
    'line',
    [
        '../shard-000000.tar\t512\t10\ta.mp4\t0',
        '/etc/passwd\t512\t10\ta.mp4\t0',
        '..\t512\t10\ta.mp4\t0',
        'shard-000000.tar\t-512\t10\ta.mp4\t0',
        'shard-000000.tar\t0\t10\ta.mp4\t0',
        'shard-000000.tar\t700\t10\ta.mp4\t0',
        'shard-000000.tar\t512\t99999999999999999999\ta.mp4\t0',
        'shard-000000.tar\t512\t10\ta.mp4\tone',
        'shard-000000.tar\t512\t10\ta.mp4',
        'shard-000000.tar 512 10 a.mp4 0',
        '',
    ],
)
def test_a_hostile_line_is_refused(line: str) -> None:
    """With the right checksum, and without one."""
    text = '\n'.join([index.HEADING, line]) + '\n'
    for first in ('', f'# 1 videos {index._digest(text.splitlines())}\n'):
        with pytest.raises(DamagedTarShardError, match=r'^x\.tsv'):
            parse_index(first + text, 'x.tsv')


def test_an_index_may_be_changed_on_purpose(copy: Path) -> None:
    """Without its first line, which has the checksum; videos keep their numbers."""
    index = copy / 'index.tsv'
    index.write_text(index.read_text().partition('\n')[2].replace('\t1\n', '\t0\n'))
    dataset = in_tar_shards(copy)
    assert [dataset.get_data_info(i)['label'] for i in range(8)] == [0] * 8


def test_a_missing_or_truncated_tar_shard_is_an_error_at_once(copy: Path) -> None:
    shard = copy / 'shard-000001.tar'
    os.truncate(shard, 3000)
    with pytest.raises(DamagedTarShardError, match=r'shard-000001.tar has 3,000 bytes, not'):
        in_tar_shards(copy)
    shard.unlink()
    with pytest.raises(DamagedTarShardError, match=r'shard-000001.tar does not exist') as error:
        in_tar_shards(copy)
    assert 'data_prefix.video' in str(error.value)


def test_a_wrong_tar_shard_ends_the_run_and_is_not_a_corrupt_video(copy: Path) -> None:
    dataset = in_tar_shards(copy)
    first, last = sorted(copy.glob('*.tar'))[::2]
    content = first.read_bytes()
    shutil.copy(last, first)
    with pytest.raises(
        DamagedTarShardError, match=r'shard-000000.tar is damaged or does not belong'
    ) as error:
        dataset[0]
    assert 'it has 00000006.mp4 there' in str(error.value)
    first.write_bytes(b'\xff' * len(content))
    with pytest.raises(DamagedTarShardError, match='it has no member there'):
        dataset[0]
    first.write_bytes(content[:2000])
    with pytest.raises(DamagedTarShardError, match='it ends after'):
        dataset[0]


def test_a_video_damaged_within_a_tar_shard_is_a_corrupt_video(copy: Path) -> None:
    dataset = in_tar_shards(copy)
    member = dataset.get_data_info(0)['member']
    with (copy / member.shard).open('r+b') as shard:
        shard.seek(member.offset)
        shard.write(bytes(member.size))
    name = f'{copy / member.shard}/0.mp4'
    assert dataset[0]['data_samples'].replaces[0]['file'] == name
    with pytest.raises(UnreadableVideo, match=f'the video {name} .* cannot be read'):
        dataset.load(dataset.get_data_info(0))


def test_a_pipeline_that_opens_files_by_itself_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r'DecordInit .* mmtimesformer\.VideoInit'):
        in_tar_shards(folder / 'shards', pipeline=[dict(type='mmaction.DecordInit'), *PIPELINE[1:]])


# -- a store that fails ----------------------------------------------------------------------------


class Faulty(MemoryFileSystem):
    """A store that fails a given number of times."""

    protocol = 'faulty'
    faults: list[Any] = []

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        content = super().cat_file(path.removeprefix('faulty:/'), start, end, **kwargs)
        fault = self.faults.pop() if self.faults else None
        if isinstance(fault, int):
            return content[:fault]
        if fault is not None:
            raise fault
        return content

    def info(self, path: str, **kwargs: Any) -> Any:
        return super().info(path.removeprefix('faulty:/'), **kwargs)


@pytest.fixture
def faulty(store: str) -> Iterator[str]:
    fsspec.register_implementation('faulty', Faulty, clobber=True)
    yield store.replace('memory://', 'faulty://')
    Faulty.faults = []


def test_what_passes_is_waited_for_and_changes_nothing(
    folder: Path, faulty: str, impatient: list[float]
) -> None:
    dataset = in_tar_shards(faulty)
    expected = samples(on_disk(folder), [0, 1])
    Faulty.faults = [
        ConnectionResetError('gone'),
        RuntimeError('503 Slow Down'),
        700,
        TimeoutError(),
    ]
    assert_same(expected, samples(dataset, [0, 1]))
    assert impatient == [1, 2, 4, 8]


def test_what_does_not_pass_ends_the_run_and_is_no_bad_video(
    faulty: str, impatient: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(object_store.time, 'monotonic', lambda: next(clock))
    dataset = in_tar_shards(faulty, patience=100)
    Faulty.faults = [RuntimeError('503 Slow Down\nand so on')] * 100
    with pytest.raises(StorageError, match=r'shard-000000.tar could not be read for 100') as error:
        dataset[0]
    for word in ('RuntimeError: 503 Slow Down;', '--resume', 'patience=100'):
        assert word in str(error.value)
    assert 90 < len(Faulty.faults) < 97, 'it was tried again'


def test_what_waiting_does_not_mend_is_told_at_once(
    faulty: str, impatient: list[float], folder: Path
) -> None:
    with pytest.raises(StorageError, match=r'nowhere/index.tsv cannot be read: it does not exist'):
        in_tar_shards('memory://nowhere')
    with pytest.raises(StorageError, match=r'gopher://x/index.tsv cannot be read: ValueError'):
        in_tar_shards('gopher://x')
    dataset = in_tar_shards(faulty)
    Faulty.faults = [PermissionError()]
    with pytest.raises(StorageError, match='the store does not allow it'):
        dataset[0]
    assert impatient == []


def test_a_store_that_fails_in_training_leaves_the_checkpoints(
    faulty: str, impatient: list[float], tmp_path: Path
) -> None:
    dataset = in_tar_shards(faulty, patience=0)
    fail = At(5, lambda _: setattr(Faulty, 'faults', [OSError('no route to host')] * 9))
    with pytest.raises(RunStopped, match='OSError: no route to host') as end:
        train(dataset, tmp_path / 'work', fail)
    assert end.value.code == STOPPED
    assert (tmp_path / 'work/mid_epoch.pth').is_file()
    Faulty.faults = []
    train(dataset, tmp_path / 'work', resume=True)
    train(dataset, tmp_path / 'whole')
    assert_equal(*(whole_state(tmp_path / name / 'epoch_2.pth') for name in ('work', 'whole')))
    assert not (tmp_path / 'work/bad_videos.jsonl').read_text().count('route')


def test_a_process_that_ends_does_not_wait_for_a_store() -> None:
    """Whose answer may take minutes, and which is asked ahead of time."""
    code = (
        'import os, time; from mmtimesformer.datasets.tar_shards import index, object_store; '
        'index._threads(os.getpid()).apply_async(time.sleep, (100,)); time.sleep(0.1)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
