"""A timeline shows which class is best when."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtimesformer.inference import Moment, Prediction, Timeline
from mmtimesformer.visualization.timeline import _edges, _rows, draw_timeline


def timeline(winners: list[int], classes: int = 30, fusion: str = 'mean of softmax') -> Timeline:
    moments = []
    for i, winner in enumerate(winners):
        scores = np.full(classes, 0.01, np.float32)
        scores[winner] = 0.7
        best = np.argsort(-scores, kind='stable')[:5].tolist()
        prediction = Prediction(
            'v.mp4', [f'class {j}' for j in best], scores[best].tolist(), best, scores, fusion
        )
        moments.append(Moment(float(i), i + 2.0, prediction))
    return Timeline('v.mp4', 2, 1, moments)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))


@pytest.mark.parametrize('fusion', ['mean of softmax', 'sum of logits'])
@pytest.mark.parametrize('winners', [[3], [3] * 9, [1, 1, 2, 0, 0], list(range(20)) * 2])
def test_it_is_drawn_for_any_number_of_windows_and_classes(
    winners: list[int], fusion: str, tmp_path: Path
) -> None:
    draw_timeline(timeline(winners, fusion=fusion), tmp_path / 'out.png')
    assert read(tmp_path / 'out.png').shape[1] > 900


def test_the_band_changes_colour_where_the_class_does(tmp_path: Path) -> None:
    draw_timeline(timeline([0] * 10 + [1] * 10), tmp_path / 'out.png')
    row = read(tmp_path / 'out.png')[70]
    first, second = (51, 102, 170), (224, 130, 20)
    is_first = (row == first).all(axis=1)
    is_second = (row == second).all(axis=1)
    assert is_first.sum() > 200 and is_second.sum() > 200
    assert np.flatnonzero(is_first).max() < np.flatnonzero(is_second).min()


def test_classes_stand_in_the_order_in_which_they_win() -> None:
    drawn = timeline([4, 4, 2, 4, 0])
    scores = [moment.prediction.all_scores for moment in drawn.moments]
    best = [moment.prediction.indices for moment in drawn.moments]
    assert _rows(scores, best) == [4, 2, 0]


def test_columns_meet_half_way_between_windows() -> None:
    assert _edges(timeline([0, 1, 2])) == [0, 1.5, 2.5, 4]


def test_a_timeline_without_moments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='has no moments to draw'):
        draw_timeline(Timeline('v.mp4', 2, 1), tmp_path / 'out.png')
