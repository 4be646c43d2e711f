"""Pictures of training curves, scheme comparison and clips."""

import json

import numpy as np
import pytest
from PIL import Image

from mmtimesformer.visualization import (
    SchemeResult,
    draw_clips,
    draw_scheme_comparison,
    draw_training,
    read_training,
)


def width_of(path) -> int:
    with Image.open(path) as picture:
        return picture.size[0]


def write_scalars(work_dir, run: str, *lines: dict) -> None:
    folder = work_dir / run / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_the_curve_of_a_resumed_training_is_one_and_the_later_run_counts(tmp_path) -> None:
    write_scalars(tmp_path, '20261121_100000', {'loss': 2.0, 'step': 10}, {'loss': 9.0, 'step': 20})
    write_scalars(
        tmp_path, '20261121_100100', {'loss': 1.0, 'step': 20}, {'acc/top1': 0.5, 'step': 1}
    )
    curves = read_training(tmp_path)
    assert curves == {'loss': [(10, 2.0), (20, 1.0)], 'acc/top1': [(1, 0.5)]}
    draw_training(curves, tmp_path / 'training.png')
    assert width_of(tmp_path / 'training.png') > 300


def test_a_work_dir_without_a_training_has_no_curve(tmp_path) -> None:
    with pytest.raises(ValueError, match='no loss to draw'):
        draw_training(read_training(tmp_path), tmp_path / 'training.png')
    assert not (tmp_path / 'training.png').exists()


def test_schemes_and_clips_are_drawn(tmp_path) -> None:
    draw_scheme_comparison(
        [SchemeResult('divided', 1000, 0.97, 0.99, 60.0)], tmp_path / 'schemes.png'
    )
    frames = np.zeros((9, 6, 8, 3), np.uint8)
    draw_clips({'left': frames, 'right': frames}, tmp_path / 'clips.png', columns=3)
    for name in ('schemes.png', 'clips.png'):
        assert width_of(tmp_path / name) > 300
