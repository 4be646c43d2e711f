"""The figure of docs/probing.md: few clips of motions that the model never saw are enough."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmtimesformer.datasets.preparation.moving_shapes import Settings, make_moving_shapes

ROOT = Path(__file__).resolve().parents[2]
SEEN = ('left', 'right', 'clockwise', 'counter-clockwise')
UNSEEN = ('up', 'down', 'growing', 'shrinking')
CONFIG = 'timesformer_divST-tiny_moving-shapes'
SETTINGS = Settings(num_train=1280, num_val=400)


def write_list(data: Path, split: str, motions: Sequence[str], most: int | None = None) -> Path:
    """List the videos of some motions, at most so many of each."""
    path = data / f'{split}_{motions[0]}.txt'
    videos = sorted(video.name for video in (data / f'videos_{split}').iterdir())
    of = {motion: [v for v in videos if v[6:-4] == motion][:most] for motion in motions}
    lines = [f'{video} {motions.index(motion)}' for motion in motions for video in of[motion]]
    path.write_text('\n'.join(sorted(lines)) + '\n')  # twins, by number, are next to each other
    return path


def run(folder: Path, *words: object) -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'mmtimesformer', *map(str, words)],
        cwd=folder,
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'OMP_NUM_THREADS': '1',
            'MALLOC_MMAP_THRESHOLD_': '2000000000',
            'MALLOC_TRIM_THRESHOLD_': '2000000000',
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def train(data: Path, folder: Path, epochs: int) -> Path:
    """Train the model of the demo on the motions that it may see."""
    options = [
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={epochs}',
        f'model.cls_head.num_classes={len(SEEN)}',
    ]
    (data / 'seen.txt').write_text('\n'.join(SEEN) + '\n')
    for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = f'{loader}_dataloader.dataset'
        options += [
            f'{dataset}.ann_file={write_list(data, split, SEEN)}',
            f'{dataset}.data_prefix.video={data}/videos_{split}',
            f'{dataset}.metainfo.classes={data}/seen.txt',
        ]
    run(folder, 'train', CONFIG, '--work-dir', folder / 'base', '--seed', 0, '--cfg-options',
        *options)  # fmt: skip
    return folder / 'base' / f'epoch_{epochs}.pth'


@pytest.mark.slow
def test_ten_clips_of_each_unseen_motion_are_20_points_above_chance(tmp_path: Path) -> None:
    from mmtimesformer.probing import run_probe

    data = tmp_path / 'data'
    make_moving_shapes(data, SETTINGS)
    checkpoint = train(data, tmp_path, epochs=28)  # as the schedule
    trained, tested = tmp_path / 'probe.txt', write_list(data, 'val', UNSEEN)
    lines = write_list(data, 'train', UNSEEN, most=10).read_text().splitlines()
    trained.write_text(''.join(f'videos_train/{line}\n' for line in lines))
    result = run_probe(
        checkpoint, trained, tested, out_dir=tmp_path / 'probe', data_root=str(data),
        test_root=str(data / 'videos_val'), class_names=UNSEEN, device='cpu',
    )  # fmt: skip
    assert len(lines) == 40 and len(tested.read_text().splitlines()) == 200
    assert result.scores['top1'] >= 0.25 + 0.20  # 0.71 in one run
