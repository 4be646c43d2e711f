"""The picture of a confusion matrix."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from mmtimesformer.visualization import draw_confusion


def test_the_picture_is_small_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / 'new folder' / 'confusion.png'
    for _ in range(2):
        draw_confusion(np.diag([3, 0, 5]), ['left', 'right', 'up'], path, 'a title')
    assert path.stat().st_size < 300_000
    with Image.open(path) as picture:
        assert picture.width > 300
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


def test_no_text_is_cut_off_at_the_edge(tmp_path: Path) -> None:
    names = ['up', 'counter-clockwise', 'a class whose name is a long sentence']
    for classes in (names, names[:2], [*names[:1], *'abcdefgh']):
        draw_confusion(np.eye(len(classes), dtype=int), classes, tmp_path / 'x.png', 'a title')
        with Image.open(tmp_path / 'x.png') as picture:
            pixels = np.asarray(picture.convert('L'))
        edges = (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:])
        assert all((edge == 255).all() for edge in edges), classes
