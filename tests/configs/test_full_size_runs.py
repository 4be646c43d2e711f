"""The Kinetics-400 configs as shipped, at full size, on mp4 files: two steps and a test."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '2'},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['divST', 'jointST', 'spaceOnly'])
def test_two_steps_of_training_and_a_three_crop_test(
    scheme: str, tiny_videos: Path, tmp_path: Path
) -> None:
    name = f'timesformer_{scheme}_8xb8-8x32x1-15e_kinetics400-rgb'
    options = ['--work-dir', tmp_path, '--cfg-options', 'model.backbone.init_cfg=None']
    for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        options += [
            f'{loader}_dataloader.batch_size={2 if loader == "train" else 1}',
            f'{loader}_dataloader.num_workers=0',
            f'{loader}_dataloader.persistent_workers=False',
            f'{loader}_dataloader.dataset.ann_file={tiny_videos / split}.txt',
            f'{loader}_dataloader.dataset.data_prefix.video={tiny_videos}',
        ]
    options_of_training = [
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.save_best=None',
    ]
    output = run('tools/train.py', name, '--no-validate', *options, *options_of_training)
    losses = [float(loss) for loss in re.findall(r'loss: ([\d.]+)', output)]
    assert len(losses) == 2
    assert 5 < losses[0] < 7, (
        f'{losses[0]}: a newly initialized model of 400 classes starts at about ln 400'
    )

    dumped = tmp_path / 'result.pkl'
    output = run('tools/test.py', name, tmp_path / 'epoch_1.pth', '--dump', dumped, *options)
    assert re.search(r'acc/top1: [\d.]+', output)
    assert dumped.stat().st_size > 0
