"""A dump has the scores of each view, and the fused scores do not change."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmaction.structures import ActionDataSample
from torch import Tensor, nn

from mmtimesformer.compat.data_samples import view_scores_of
from mmtimesformer.engine import ViewScoresHook


class Recogniser(nn.Module):
    """The parts that the hook uses: a head that scores views, and samples as output."""

    def __init__(self, views: int) -> None:
        super().__init__()
        self.cls_head = nn.Linear(5, 4)
        self.views = views

    def forward(self, videos: Tensor) -> list[Any]:
        logits = self.cls_head(videos.flatten(0, 1))
        fused = logits.reshape(len(videos), self.views, 4).softmax(2).mean(1)
        return [ActionDataSample().set_pred_score(row) for row in fused]


@pytest.mark.parametrize('videos', [1, 3])
def test_each_sample_gets_the_logits_of_its_own_views(videos: int) -> None:
    model, hook, batch = Recogniser(2), ViewScoresHook(), torch.rand(videos, 2, 5)
    before = model(batch)
    hook.before_test(SimpleNamespace(model=model))
    samples = [*model(batch), *model(batch)]
    for sample, plain, video in zip(samples, [*before, *before], [*batch, *batch], strict=True):
        assert torch.equal(view_scores_of(sample), model.cls_head(video))
        assert torch.equal(view_scores_of(sample.to_dict()), model.cls_head(video))
        assert torch.equal(sample.pred_scores.item, plain.pred_scores.item)
    hook.after_test(SimpleNamespace(model=model))
    assert view_scores_of(model(batch)[0]) is None
    assert not model._forward_hooks and not model.cls_head._forward_hooks


def test_nothing_is_added_for_one_view() -> None:
    model, hook = Recogniser(1), ViewScoresHook()
    hook.before_test(SimpleNamespace(model=model))
    assert view_scores_of(model(torch.rand(3, 1, 5))[0]) is None


def test_a_model_without_such_a_head_is_not_changed() -> None:
    hook = ViewScoresHook()
    hook.before_test(SimpleNamespace(model=nn.Linear(2, 2)))
    hook.after_test(SimpleNamespace())


def test_a_dump_has_the_scores_of_each_view(tmp_path: Path) -> None:
    """Through DumpResults itself, which turns samples into dicts."""
    from mmengine.evaluator import DumpResults

    model, hook = Recogniser(3), ViewScoresHook()
    hook.before_test(SimpleNamespace(model=model))
    metric = DumpResults(str(tmp_path / 'result.pkl'))
    metric.process({}, [sample.to_dict() for sample in model(torch.rand(2, 3, 5))])
    metric.evaluate(2)
    kept = pickle.loads((tmp_path / 'result.pkl').read_bytes())
    assert [tuple(view_scores_of(sample).shape) for sample in kept] == [(3, 4), (3, 4)]
