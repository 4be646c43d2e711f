"""Predictions are read whatever MMAction2 calls them, and drawn in the order of time."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange
from mmaction.structures import ActionDataSample

from mmtimesformer.engine.prediction_pictures import FRAMES_SHOWN, contact_sheet, outcome
from mmtimesformer.engine.results import label_of, scores_of


def samples() -> list[Any]:
    """One prediction as 1.1.0 and as 1.2.0 give and dump it."""
    scores, label = torch.tensor([0.1, 0.7, 0.2]), torch.tensor([2])
    old = ActionDataSample().set_pred_score(scores).set_gt_labels(label)
    new = SimpleNamespace(all_items=lambda: {'pred_score': scores, 'gt_label': label}.items())
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
