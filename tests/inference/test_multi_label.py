"""A multi-label model gives each class a probability of its own: labels, timelines, files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmtimesformer.config.label_checks import scores_are_sigmoids, to_build
from mmtimesformer.export.graph import ClipScores
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.inference.prediction import Predictions, best_of
from mmtimesformer.inference.sliding_window import Moment, Timeline
from mmtimesformer.visualization.timeline import draw_timeline

CLASSES = ['run', 'jump', 'left']


def prediction(*scores: float, threshold: float = 0.5) -> Any:
    return best_of('a.mp4', np.array(scores), CLASSES, 2, 'mean of sigmoid', threshold)


@pytest.mark.parametrize(
    ('head', 'several'),
    [
        ({'loss_cls': {'type': 'BCELossWithLogits'}}, True),
        ({'loss_cls': {'type': 'mmaction.BCELossWithLogits'}}, True),
        ({'loss_cls': {'type': torch.nn.BCEWithLogitsLoss}}, True),
        ({'loss_cls': {'type': 'HVULoss'}}, True),
        ({'loss_cls': {'type': 'mmpretrain.CrossEntropyLoss', 'use_sigmoid': True}}, True),
        ({'loss_cls': {'type': 'MyOwnLoss'}, 'multi_class': True}, True),
        ({'loss_cls': {'type': 'MyOwnLoss'}}, False),
        ({'loss_cls': {'type': 'CBFocalLoss'}}, False),
        ({}, False),
        (None, False),
        ({'loss_cls': 'text'}, False),
        ({'loss_cls': {'type': 'os.system'}}, False),
    ],
)
def test_what_was_trained_as_sigmoids_is_known_by_the_config(head: Any, several: bool) -> None:
    assert scores_are_sigmoids(head) is several


def test_the_data_set_decides_for_an_unknown_loss() -> None:
    assert scores_are_sigmoids({'loss_cls': {'type': 'MyOwnLoss'}}, multi_label_data=True)
    assert not scores_are_sigmoids({'loss_cls': {'type': 'CrossEntropyLoss'}}, True)


def test_a_users_loss_that_is_built_on_binary_cross_entropy_is_known() -> None:
    from mmaction.models.losses import BCELossWithLogits
    from mmaction.registry import MODELS

    class Weighted(BCELossWithLogits):
        pass

    MODELS.register_module(name='WeightedOfATest', module=Weighted)
    assert scores_are_sigmoids({'loss_cls': {'type': 'WeightedOfATest'}})


@pytest.mark.parametrize('fusion', ['score', 'sum'])
def test_fusions_of_logits_stay(fusion: str) -> None:
    head = {'type': 'mmtimesformer.TimeSformerHead', 'average_clips': fusion}
    assert to_build(head, True) == head
    assert to_build({'type': 'I3DHead', 'average_clips': 'prob'}, True)['type'] == 'I3DHead'


@pytest.mark.parametrize('fusion', ['sum', 'sigmoid'])
def test_a_fusion_that_mmaction2_lacks_is_given_by_our_head(fusion: str) -> None:
    built = to_build({'type': 'TimeSformerHead', 'average_clips': fusion}, False)
    assert built == {'type': 'mmtimesformer.TimeSformerHead', 'average_clips': fusion}
    plain = {'type': 'TimeSformerHead', 'average_clips': 'prob'}
    assert to_build(plain, False) == plain


@pytest.fixture
def several(config: Path, checkpoint: Path) -> VideoClassifier:
    cfg = Config.fromfile(config)
    cfg.model.cls_head.update(loss_cls={'type': 'BCELossWithLogits'}, multi_class=True)
    return VideoClassifier(cfg, checkpoint, 'cpu', classes=CLASSES)


def test_scores_are_the_mean_of_sigmoids_over_views(
    several: VideoClassifier, tiny_videos: Path
) -> None:
    clips = several.clips(tiny_videos / '0.mp4')
    with torch.inference_mode():
        logits = several.model.cls_head(several.model.backbone(clips))
    found = several(tiny_videos / '0.mp4')
    assert len(logits) == 3
    assert found.all_scores == pytest.approx(logits.sigmoid().mean(0).numpy(), abs=1e-6)
    assert several.fusion == 'mean of sigmoid' and several.is_multi_label


def test_several_labels_are_above_a_threshold_however_few_are_shown() -> None:
    found = prediction(0.9, 0.2, 0.6)
    assert found.labels == ['run', 'left'] and found.above_threshold == ['run', 'left']
    assert prediction(0.9, 0.8, 0.7).above_threshold == ['run', 'jump', 'left']
    assert prediction(0.1, 0.2, 0.3).above_threshold == []
    assert str(prediction(0.1, 0.2, 0.3)).endswith('at least 50 %: no label')
    one = best_of('a.mp4', np.array([0.9, 0.1, 0]), CLASSES, 2, 'mean of softmax')
    assert one.above_threshold is None and 'at least' not in str(one)
    assert 'above_threshold' not in one.as_dict()
    assert Predictions([one]).as_csv().splitlines()[0] == 'video,rank,label,class,score,skipped'


def test_a_timeline_joins_moments_with_the_same_labels(tmp_path: Path) -> None:
    rows = [(0.9, 0.1, 0.6), (0.6, 0.1, 0.9), (0.1, 0.1, 0.2), (0.1, 0.8, 0.2)]
    moments = [Moment(i, i + 1.0, prediction(*row)) for i, row in enumerate(rows)]
    timeline = Timeline('a.mp4', 1.0, 1.0, moments)
    assert [one.label for one in timeline.segments()] == ['left + run', 'no label', 'jump']
    assert [one.label for one in timeline.best_segments()] == ['run', 'left', 'jump']
    table = timeline.as_rows()
    assert [row[-1] for row in table] == ['above_threshold', 'run; left', 'left; run', '', 'jump']
    assert timeline.as_dict()['moments'][1]['above_threshold'] == ['left', 'run']
    draw_timeline(timeline, tmp_path / 'timeline.png')
    assert (tmp_path / 'timeline.png').stat().st_size > 1000


@pytest.mark.parametrize('output', ['probabilities', 'fused'])
def test_an_exported_file_computes_sigmoids(
    several: VideoClassifier, tiny_videos: Path, output: str
) -> None:
    clips = several.clips(tiny_videos / '0.mp4')
    graph = ClipScores(several, tuple(clips.shape), output)  # type: ignore[arg-type]
    scores = graph(clips[None] if output == 'fused' else clips).mean(0)
    expected = several(tiny_videos / '0.mp4').all_scores
    assert scores.numpy() == pytest.approx(expected, abs=1e-6)
