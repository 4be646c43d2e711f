"""Whole runs over videos of which some cannot be read."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.logging import MMLogger

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from mmtimesformer.compat.data_samples import label_of, scores_of
from mmtimesformer.engine.launch import train_and_test as commands

ROOT = str(Path(__file__).resolve().parents[2])
READERS = {'DecordInit': 'mmtimesformer.VideoInit', 'DecordDecode': 'mmtimesformer.VideoDecode'}


@pytest.fixture
def config(tiny_config: Path, tiny_videos: Path, tmp_path: Path) -> Path:
    """The tiny config, over ten videos: 2 and 7 of those are empty, in training and in testing."""
    folder = tmp_path / 'videos'
    folder.mkdir()
    for i in range(10):
        shutil.copy(tiny_videos / f'{i % 6}.mp4', folder / f'{i}.mp4')
    for i in (2, 7):
        (folder / f'{i}.mp4').write_bytes(b'')
    lines = ''.join(f'{i}.mp4 {i % 2}\n' for i in range(10))
    (folder / 'train.txt').write_text(lines)
    (folder / 'val.txt').write_text(lines)
    text = tiny_config.read_text().replace(str(tiny_videos), str(folder))
    for theirs, ours in {**READERS, 'VideoDataset': 'mmtimesformer.VideoDataset'}.items():
        text = text.replace(f"type='{theirs}'", f"type='{ours}'")
    tiny_config.write_text(text)
    return tiny_config


def train(config: Path, work_dir: Path, resume: str | None = None, **options: Any) -> None:
    options = {'train_dataloader.num_workers': 2, **options}
    commands.train(
        Namespace(
            config=str(config), work_dir=str(work_dir), cfg_options=options, launcher='none',
            no_validate=True, amp=None, auto_scale_lr=False, accumulate=False, resume=resume,
            seed=3, diff_rank_seed=False, deterministic=True,
        )
    )  # fmt: skip


def listed(work_dir: Path) -> list[dict[str, Any]]:
    text = (work_dir / 'bad_videos.jsonl').read_text()
    return [json.loads(line) for line in text.splitlines()]


def log(work_dir: Path) -> str:
    (path,) = work_dir.glob('*/*.log')
    return path.read_text()


def test_a_training_continues_and_lists_unreadable_videos(config: Path, tmp_path: Path) -> None:
    train(config, tmp_path / 'work', **{'train_cfg.max_epochs': 2})
    met = {Path(video['file']).name: video for video in listed(tmp_path / 'work')}
    assert sorted(met) == ['2.mp4', '7.mp4']
    assert {video['epoch'] for video in met.values()} == {1}
    assert {video['worker'] for video in met.values()} <= {0, 1}
    assert all(1 <= video['iter'] <= 5 for video in met.values())
    text = log(tmp_path / 'work')
    assert len(re.findall(r'7\.mp4 cannot be read: it is empty; another video', text)) == 1
    assert load_torch(tmp_path / 'work/epoch_2.pth')['meta']['iter'] == 10, 'no step is missing'


def test_a_resumed_training_takes_the_same_replacements(config: Path, tmp_path: Path) -> None:
    """Bit for bit, with other workers in each run."""
    three = {'train_cfg.max_epochs': 3, 'default_hooks.checkpoint.max_keep_ckpts': 3}
    train(config, tmp_path / 'whole', **three)
    first = str(tmp_path / 'whole/epoch_1.pth')
    train(config, tmp_path / 'parts', first, **three, **{'train_dataloader.num_workers': 0})
    whole, parts = (
        load_torch(tmp_path / name / 'epoch_3.pth')['state_dict'] for name in ('whole', 'parts')
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    met = [{v['file'] for v in listed(tmp_path / name)} for name in ('whole', 'parts')]
    assert met[0] == met[1]
    assert len(met[0]) == 2


def test_too_many_unreadable_videos_end_a_training(config: Path, tmp_path: Path) -> None:
    limits = {
        'default_hooks.unreadable_videos': {
            'type': 'mmtimesformer.UnreadableVideosHook',
            'max_few': 1,
        }
    }
    with pytest.raises(ValueError, match=r'2 of 10 training videos cannot be read, and 1 may'):
        train(config, tmp_path / 'work', **limits)


@pytest.fixture
def one_answer(config: Path, tmp_path: Path) -> Path:
    """The checkpoint of a model that predicts class 0 for every video."""
    train(config, tmp_path / 'work')
    MMLogger._instance_dict.clear()  # a test in the same second would log into the same file
    checkpoint = load_torch(tmp_path / 'work/epoch_1.pth')
    checkpoint['state_dict']['cls_head.fc_cls.weight'].zero_()
    checkpoint['state_dict']['cls_head.fc_cls.bias'] = torch.tensor([1.0, 0.0])
    weights = {'state_dict': checkpoint['state_dict']}
    torch.save(weights, tmp_path / 'one_answer.pth')
    return tmp_path / 'one_answer.pth'


def check_test(folder: Path) -> None:
    """Check the results of a test of :func:`one_answer`."""
    text = log(folder)
    # 0, 4, 6 and 8 are of class 0 and are there; 2 is empty.
    assert 'acc/top1: 0.4000' in text
    assert len(re.findall('2 of 10 videos could not be read, and count as wrong', text)) == 1
    results = pickle.loads((folder / 'result.pkl').read_bytes())
    assert [label_of(result) for result in results] == [0, 1] * 5
    failed = [result for result in results if result.get('failed')]
    assert [Path(result['filename']).name for result in failed] == ['2.mp4', '7.mp4']
    assert [result['failed'] for result in failed] == ['it is empty'] * 2
    assert [scores_of(result).tolist() for result in failed] == [[0.0, 1.0], [1.0, 0.0]]
    assert sorted(Path(video['file']).name for video in listed(folder)) == ['2.mp4', '7.mp4']
    assert {video['stage'] for video in listed(folder)} == {'test'}


def test_a_test_counts_what_cannot_be_read_as_wrong(
    config: Path, one_answer: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'test'
    commands.test(
        Namespace(
            config=str(config), checkpoint=str(one_answer), work_dir=str(folder), launcher='none',
            cfg_options={'test_dataloader.batch_size': 4, 'test_dataloader.num_workers': 2},
            amp=None, dump=str(folder / 'result.pkl'), show=False, show_dir=None, calibrated=False,
            preprocessing=None,
        )
    )  # fmt: skip
    check_test(folder)


@pytest.mark.slow
@pytest.mark.parametrize(('processes', 'batch_size'), [(2, 3), (4, 1)])
def test_several_processes_count_every_video_once(
    config: Path, one_answer: Path, tmp_path: Path, tools: Path, processes: int, batch_size: int
) -> None:
    """Ten videos do not come out even: some are tested twice, to fill up, and counted once."""
    folder = tmp_path / 'test'
    done = subprocess.run(
        [
            'bash', tools / 'dist_test.sh', config, one_answer, str(processes),
            '--work-dir', folder, '--dump', folder / 'result.pkl',
            '--cfg-options', f'test_dataloader.batch_size={batch_size}',
        ],
        env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    check_test(folder)
