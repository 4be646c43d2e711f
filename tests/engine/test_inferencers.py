"""MMAction2's inferencers find our models by name, with either scope."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmaction.apis import MMAction2Inferencer
from mmaction.apis.inferencers import ActionRecogInferencer
from mmengine.hub import get_model
from mmengine.registry import DefaultScope

from mmtimesformer import VideoClassifier
from mmtimesformer.engine import inferencers

DEMO = 'timesformer_divST-tiny_moving-shapes'
THEIRS = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb'

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(autouse=True)
def _scope_as_before() -> Iterator[None]:
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of the demo's model, as if they were published."""
    model = get_model(f'mmtimesformer::timesformer/{DEMO}.py')
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'weights.pth')
    monkeypatch.setattr(inferencers, 'weights_of', lambda name: str(tmp_path / 'weights.pth'))
    return tmp_path / 'weights.pth'


def test_both_inferencers_give_our_scores_by_name(weights: Path, tiny_videos: Path) -> None:
    video = str(tiny_videos / '0.mp4')
    ours = VideoClassifier(DEMO, weights)(video).all_scores
    for given in ({}, {'scope': 'mmaction'}, {'scope': 'mmtimesformer'}):
        both = MMAction2Inferencer(rec=DEMO, device='cpu', **given)
        (scores,) = both(video)['predictions'][0]['rec_scores']
        assert np.abs(np.array(scores) - ours).max() < 1e-6
    for scope in ('mmaction', 'mmtimesformer'):
        (answer,) = ActionRecogInferencer(DEMO, device='cpu', scope=scope)(video)['predictions']
        assert np.abs(np.array(answer['pred_scores']) - ours).max() < 1e-6


def test_the_unified_inferencer_takes_our_model_of_a_name_that_mmaction2_has_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(
        'mmaction.apis.inferencers.mmaction2_inferencer.ActionRecogInferencer',
        lambda *given: asked.append(given),
    )
    MMAction2Inferencer(THEIRS, 'mine.pth', 'cpu', scope='mmtimesformer')
    cfg, weights, device = asked[0][:3]
    assert cfg.model.backbone.type == 'mmtimesformer.TimeSformer'
    assert (weights, device) == ('mine.pth', 'cpu')
    MMAction2Inferencer(THEIRS, scope='mmaction')
    assert asked[1][:2] == (THEIRS, None)


def test_another_scope_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="scope='mmdet' is not .*scope='mmaction'"):
        MMAction2Inferencer(rec=DEMO, scope='mmdet')
    with pytest.raises(ValueError, match="tsn_r50 is no model of .*scope='mmaction'"):
        MMAction2Inferencer(rec='tsn_r50', scope='mmtimesformer')


def test_a_name_that_mmaction2_has_too_is_its_own_in_its_scope(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for scope, kind in (
        ('mmaction', 'TimeSformer'),
        ('mmtimesformer', 'mmtimesformer.TimeSformer'),
    ):
        asked = type('Asked', (), {'scope': scope})()
        cfg, weights = inferencers.load_by_name(asked, THEIRS.upper())
        assert cfg.model.backbone.type == kind
        assert weights.endswith('_20220815-a4d0d01f.pth')


def test_a_name_without_weights_is_one_sentence_with_the_path_of_the_config() -> None:
    with pytest.raises(ValueError, match=rf'nobody publishes weights for {DEMO}.*/{DEMO}.py$'):
        MMAction2Inferencer(rec=DEMO)


def test_a_name_of_mmaction2_in_our_scope_is_sent_to_its_scope() -> None:
    with pytest.raises(ValueError, match=f"did you mean '{DEMO}'"):
        ActionRecogInferencer(DEMO[:-1], scope='mmtimesformer')
    with pytest.raises(ValueError, match="tsn_r50 is no model of .*scope='mmaction'"):
        ActionRecogInferencer('tsn_r50', scope='mmtimesformer')


def test_an_unknown_name_in_mmaction2s_scope_stays_its_error() -> None:
    with pytest.raises(ValueError, match='Cannot find model: no_such in mmaction'):
        ActionRecogInferencer('no_such')
