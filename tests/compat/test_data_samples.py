"""Predictions are read whatever MMAction2 calls them, and drawn in the order of time."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange
from mmaction.structures import ActionDataSample

from mmtimesformer.compat.data_samples import (
    is_multi_label,
    label_of,
    labels_of,
    multi_hot_of,
    scores_of,
)
from mmtimesformer.engine.hooks.prediction_images import FRAMES_SHOWN, contact_sheet, outcome


def of_1_2_0(fields: dict[str, Any]) -> Any:
    return SimpleNamespace(all_items=fields.items, get=fields.get)


def samples() -> list[Any]:
    """One prediction as 1.1.0 and as 1.2.0 give and dump it."""
    scores, label = torch.tensor([0.1, 0.7, 0.2]), torch.tensor([2])
    old = ActionDataSample().set_pred_score(scores).set_gt_labels(label)
    new = of_1_2_0({'pred_score': scores, 'gt_label': label})
    return [
        old,
        {'pred_scores': {'item': scores}, 'gt_labels': {'item': label}},
        new,
        {'pred_score': scores, 'gt_label': label},
    ]


@pytest.mark.parametrize('sample', samples(), ids=['1.1.0', '1.1.0_dump', '1.2.0', '1.2.0_dump'])
def test_both_versions_are_read(sample: Any) -> None:
    assert scores_of(sample).tolist() == pytest.approx([0.1, 0.7, 0.2])
    assert label_of(sample) == 2


def with_truth(truth: torch.Tensor, scores: torch.Tensor | None = None) -> list[Any]:
    """Return a sample as 1.1.0 and 1.2.0 give and dump it."""
    scores = torch.tensor([0.1, 0.7, 0.6]) if scores is None else scores
    old = ActionDataSample().set_pred_score(scores).set_gt_labels(truth)
    fields = {'pred_score': scores, 'gt_label': truth}
    dumped = {'pred_scores': {'item': scores}, 'gt_labels': {'item': truth}}
    return [old, dumped, of_1_2_0(fields), fields]


@pytest.mark.parametrize('row', [[0.0, 1.0, 1.0], [0, 1, 1], [False, True, True]])
def test_a_multi_hot_row_has_no_one_label(row: list[Any]) -> None:
    for sample in with_truth(torch.tensor(row)):
        assert is_multi_label(sample)
        assert labels_of(sample) == [1, 2]
        assert multi_hot_of(sample).tolist() == [False, True, True]
        with pytest.raises(ValueError, match='a multi-hot row of 3 numbers'):
            label_of(sample)


def test_a_row_of_one_number_is_a_label_unless_the_model_has_one_class() -> None:
    one_class = torch.tensor([0.3])
    for sample in with_truth(torch.tensor([2])):
        assert (is_multi_label(sample), labels_of(sample)) == (False, [2])
    for sample in with_truth(torch.tensor([0]), one_class):  # the label of the one class
        assert (is_multi_label(sample), labels_of(sample)) == (False, [0])
    for sample in with_truth(torch.tensor([1.0]), one_class):  # a row, which is of floats
        assert (is_multi_label(sample), labels_of(sample)) == (True, [0])
    for sample in with_truth(torch.tensor([0.0]), one_class):
        assert (is_multi_label(sample), labels_of(sample)) == (True, [])


@pytest.mark.parametrize(
    ('row', 'words'), [([0.0, 1.0], 'has 2 numbers and there are 3'), ([0.0, 0.5, 1.0], '0 and 1')]
)
def test_a_row_that_does_not_fit_is_refused(row: list[float], words: str) -> None:
    for sample in with_truth(torch.tensor(row)):
        with pytest.raises(ValueError, match=words):
            labels_of(sample)


def test_a_picture_names_all_labels() -> None:
    sample = with_truth(torch.tensor([1.0, 1.0, 0.0]))[0]
    assert outcome(sample, {}) == 'said_1_0.70+2_0.60_truth_0+1'
    assert outcome(sample, {'classes': ['a', 'b', 'c']}, 0.65) == 'said_b_0.70_truth_a+b'
    assert outcome(sample, {}, 0.9) == 'said_none_truth_0+1'
    many = with_truth(torch.ones(300), torch.ones(300))[0]
    name = outcome(many, {'classes': ['a long name of a class'] * 300})
    assert len(name) < 160 and name.endswith('-more')


def test_a_picture_is_named_after_the_outcome() -> None:
    sample = samples()[0]
    assert outcome(sample, {}) == 'said_1_0.70_truth_2'
    classes = ['left', 'up / down', 'right']
    assert outcome(sample, {'classes': classes}) == 'said_up-down_0.70_truth_right'


@pytest.mark.parametrize('views', [None, 3])
def test_time_goes_from_left_to_right_and_views_downwards(views: int | None) -> None:
    shape = (views or 1, 3, 5, 2, 7)
    video = torch.arange(210 * (views or 1), dtype=torch.uint8).reshape(shape)
    sheet = contact_sheet(video if views else video[0])
    tiles = rearrange(sheet, '(views H) (t W) c -> views c t H W', H=2, W=7)
    assert torch.equal(torch.from_numpy(tiles.copy()), video)


def test_a_long_clip_is_thinned() -> None:
    video = torch.arange(96, dtype=torch.uint8).expand(3, 1, 1, 96).movedim(-1, 1)
    row = contact_sheet(video)[0, :, 0].tolist()
    assert len(row) == FRAMES_SHOWN
    assert row[0] == 0 and row[-1] == 95
    assert row == sorted(row)
