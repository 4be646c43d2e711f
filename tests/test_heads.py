"""The scores of several views become one as each system does it."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmaction.models import TimeSformerHead as MMAction2Head
from mmengine.registry import DefaultScope

from mmtimesformer.heads import TimeSformerHead
from mmtimesformer.registry import MODELS

# Two videos of three views each, over two classes. The first view of the first video is so sure
# that it outvotes the others in logits, and not in probabilities.
LOGITS = torch.tensor([[9.0, 0.0], [0.0, 2.0], [0.0, 3.0], [1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])


@pytest.fixture(autouse=True)
def _mmaction_scope() -> Iterator[None]:
    """As in a run: bare names are MMAction2's, whatever other tests left behind."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        yield


def fused(fusion: str | None, cls: type = TimeSformerHead) -> torch.Tensor:
    return cls(num_classes=2, in_channels=5, average_clips=fusion).average_clip(LOGITS, num_segs=3)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(x) for x in row]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize('fusion', ['sum', 'score', 'prob', 'sigmoid'])
def test_each_fusion_is_what_it_is_called(fusion: str) -> None:
    rows = LOGITS.tolist()
    videos = [rows[:3], rows[3:]]
    if fusion == 'prob':
        videos = [[softmax(view) for view in views] for views in videos]
    if fusion == 'sigmoid':
        videos = [[[1 / (1 + math.exp(-x)) for x in view] for view in views] for views in videos]
    parts = 1 if fusion == 'sum' else 3
    expected = [[sum(column) / parts for column in zip(*views, strict=True)] for views in videos]
    assert fused(fusion).tolist() == [pytest.approx(row) for row in expected]


def test_logits_and_probabilities_may_name_another_class() -> None:
    best = {fusion: fused(fusion)[0].argmax().item() for fusion in ('sum', 'score', 'prob')}
    assert best == {'sum': 0, 'score': 0, 'prob': 1}


@pytest.mark.parametrize('fusion', ['score', 'prob', None])
def test_what_mmaction2_knows_is_left_to_it(fusion: str | None) -> None:
    assert torch.equal(fused(fusion), fused(fusion, MMAction2Head))


def test_an_unknown_fusion_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="average_clips='mean' is not known; set model.cls_head"):
        TimeSformerHead(num_classes=2, in_channels=5, average_clips='mean')


@pytest.mark.parametrize(
    'settings',
    [{'multi_class': True}, {'loss_cls': dict(type='mmaction.BCELossWithLogits')}],
)
def test_a_softmax_of_classes_that_are_trained_apart_is_refused(settings: dict[str, Any]) -> None:
    sizes = dict(num_classes=2, in_channels=5)
    with pytest.raises(ValueError, match="set model.cls_head.average_clips='sigmoid'"):
        TimeSformerHead(**sizes, average_clips='prob', **settings)
    assert TimeSformerHead(**sizes, average_clips='sigmoid', **settings).multi_class in (
        True,
        False,
    )


def test_a_wrong_key_is_refused() -> None:
    with pytest.raises(TypeError, match='average_clip'):
        TimeSformerHead(num_classes=2, in_channels=5, average_clip='sum')


def test_parameters_keep_their_names() -> None:
    head = TimeSformerHead(num_classes=2, in_channels=5)
    assert list(head.state_dict()) == ['fc_cls.weight', 'fc_cls.bias']


def test_a_config_finds_it_by_name(default_scope: str | None) -> None:
    cfg: dict[str, Any] = dict(num_classes=2, in_channels=5, average_clips='sum')
    if default_scope is None:  # outside MMAction2 the loss needs its prefix
        cfg['loss_cls'] = dict(type='mmaction.CrossEntropyLoss')
    head = MODELS.build(dict(type='mmtimesformer.TimeSformerHead', **cfg))
    assert type(head) is TimeSformerHead
