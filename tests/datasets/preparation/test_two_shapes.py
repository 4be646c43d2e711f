from pathlib import Path

import numpy as np
import pytest

from mmtimesformer.datasets.preparation.moving_shapes import AXES, CLASSES, MOTIONS
from mmtimesformer.datasets.preparation.two_shapes import draw_two_shapes, make_two_shapes
from mmtimesformer.finetuning.video_list import read_video_list


def test_a_video_shows_two_different_motions_and_depends_on_seed_and_number_alone() -> None:
    frames, motions = draw_two_shapes(0, 3)
    assert frames.shape == (21, 64, 80, 3) and frames.dtype == np.uint8
    assert len(set(motions)) == 2 and set(motions) <= set(CLASSES)
    again, _ = draw_two_shapes(0, 3)
    assert np.array_equal(frames, again)
    assert not np.array_equal(frames, draw_two_shapes(1, 3)[0])
    moving = (frames != frames[0]).any(axis=(0, 3))
    assert 0.02 < moving.mean() < 0.95  # shapes move, the background does not


@pytest.mark.parametrize('directions', [False, True])
def test_the_csv_is_a_multi_label_list(tmp_path: Path, directions: bool) -> None:
    videos = read_video_list(make_two_shapes(tmp_path / 'two', 12, directions=directions))
    assert videos.multi_label and len(videos.items) == 12
    names = set(CLASSES if directions else AXES)
    for number, item in enumerate(videos.items):
        _, motions = draw_two_shapes(0, number)
        axes = sorted({MOTIONS[motion][0] for motion in motions})
        assert list(item.labels) == (motions if directions else axes)
        assert set(item.labels) <= names
    with pytest.raises(FileExistsError, match='is not empty; name another folder'):
        make_two_shapes(tmp_path / 'two')
