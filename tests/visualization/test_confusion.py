import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from mmtimesformer.visualization import confusion_matrix, draw_confusion


def width_of(path) -> int:
    with Image.open(path) as picture:
        return picture.size[0]


def test_rows_are_true_classes_and_columns_are_guesses() -> None:
    counts = confusion_matrix(np.array([0, 0, 1, 2, 2]), np.array([0, 2, 1, 2, 2]), 3)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 2]]


def test_a_class_that_never_occurs_keeps_its_row_and_column() -> None:
    assert confusion_matrix(np.array([0]), np.array([0]), 2).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize('labels, guesses', [([0, 3], [0, 0]), ([0], [3]), ([-1], [0])])
def test_a_label_without_a_class_is_refused(labels: list[int], guesses: list[int]) -> None:
    with pytest.raises(ValueError, match=re.escape('do not fit 3 classes')):
        confusion_matrix(np.array(labels), np.array(guesses), 3)


def test_the_picture_is_small_and_replaces_an_older_one(tmp_path) -> None:
    path = tmp_path / 'new folder' / 'confusion.png'
    for _ in range(2):
        draw_confusion(np.diag([3, 0, 5]), ['left', 'right', 'up'], path, 'a title')
    assert path.stat().st_size < 300_000
    assert width_of(path) > 300
    assert [file.name for file in path.parent.iterdir()] == ['confusion.png']


def test_colours_are_fractions_of_the_true_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []
    imshow = Axes.imshow

    def keep(axes: Axes, image: np.ndarray, **how: object) -> object:
        drawn.append(image)
        return imshow(axes, image, **how)

    monkeypatch.setattr(Axes, 'imshow', keep)
    draw_confusion(np.array([[3, 1], [0, 2]]), ['left', 'right'], tmp_path / 'x.png')
    assert drawn[0].tolist() == [[0.75, 0.25], [0, 1]]
