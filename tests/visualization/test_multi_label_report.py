"""The report of a multi-label test: metrics by their definitions, and no NaN on the page."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmaction.evaluation import mean_average_precision as of_mmaction2

from mmtimesformer.analysis.metrics import TestResults
from mmtimesformer.analysis.multi_label import (
    average_precision,
    calibration,
    class_scores,
    confused_pairs,
    f1_scores,
    label_agreement,
    mean_average_precision,
    probabilities_of,
)
from mmtimesformer.analysis.predictions import read_predictions, read_views, top1
from mmtimesformer.analysis.test_results import read_test_results
from mmtimesformer.visualization.report import write_report
from mmtimesformer.visualization.training import draw_training, read_training

# Four videos, four classes; the last class has no video.
LABELS = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
SCORES = np.array(
    [[0.9, 0.8, 0.1, 0.2], [0.6, 0.3, 0.2, 0.1], [0.7, 0.2, 0.4, 0.6], [0.1, 0.1, 0.5, 0.3]]
)
LOGITS = np.log(SCORES / (1 - SCORES))


def run_of(**changes: Any) -> TestResults:
    about = {'fusion': 'mean of sigmoid', 'views': {'clips': 1, 'crops': 2}}
    return TestResults(SCORES, LABELS, ['a', '<b>', 'c', 'd'], about=about, **changes)


def page_of(run: TestResults, folder: Path) -> str:
    return write_report(run, folder / 'report.html').read_text()


def dump(path: Path, labels: Any = LABELS, **more: Any) -> Path:
    samples = [
        {'pred_scores': {'item': torch.tensor(row)}, 'gt_labels': {'item': torch.tensor(label)}}
        for row, label in zip(SCORES, labels, strict=True)
    ]
    for sample in samples:
        sample.update(more)
    path.write_bytes(pickle.dumps(samples))
    return path


def test_average_precision_is_that_of_mmaction2_and_has_no_value_without_positives() -> None:
    found = average_precision(LABELS, SCORES)
    assert found[:3] == pytest.approx([1, 1, 0.5])
    assert np.isnan(found[3])
    known = LABELS[:, :3].astype(float)
    assert mean_average_precision(LABELS, SCORES) == of_mmaction2(list(SCORES[:, :3]), list(known))
    assert np.isnan(mean_average_precision(np.zeros_like(LABELS), SCORES))


def test_f1_is_that_of_the_definition() -> None:
    predicted = SCORES >= 0.5
    # given: a b | a | a d | c; of these a b and a are true, 2 labels are missed
    micro, macro = f1_scores(LABELS, predicted)
    assert micro == pytest.approx(2 * 3 / (2 * 3 + 3 + 2))
    each = class_scores(LABELS, predicted)
    assert each.f1[:3] == pytest.approx([0.8, 2 / 3, 0])
    assert np.isnan(each.f1[3]) and np.isnan(each.recall[3]) and each.precision[3] == 0
    assert macro == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert confused_pairs(LABELS, predicted) == [(1, 0, 1), (2, 3, 1)]


def test_calibration_is_about_every_decision() -> None:
    *_, counts, error = calibration(LABELS, SCORES)
    assert counts.sum() == 16
    assert calibration(LABELS, LABELS.astype(float))[3] == 0
    assert 0 < error < 1


@pytest.mark.parametrize(
    ('scores', 'fusion', 'views'),
    [
        (SCORES, 'mean of sigmoid', 3),
        (LOGITS, 'mean of logits', 3),
        (3 * LOGITS, 'sum of logits', 3),
        (SCORES, None, 1),
        (LOGITS, None, 1),
    ],
)
def test_probabilities_come_back_from_any_fusion(
    scores: np.ndarray, fusion: str | None, views: int
) -> None:
    assert probabilities_of(scores, fusion, views) == pytest.approx(SCORES)
    assert np.isfinite(probabilities_of(np.array([[1e4, -1e4]]), 'mean of logits')).all()


def test_views_are_compared_by_their_labels() -> None:
    views = np.stack([SCORES, 1 - SCORES], axis=1)
    found = label_agreement(LABELS, views, SCORES, 0.5)
    assert found.agrees.tolist() == [False] * 4
    assert found.precision[0] == found.fused == mean_average_precision(LABELS, SCORES)
    same = label_agreement(LABELS, np.stack([SCORES, SCORES], axis=1), SCORES, 0.5)
    assert same.agrees.all() and same.least(3) == []


def test_the_page_shows_the_scores_and_what_is_wrong(tmp_path: Path) -> None:
    page = page_of(run_of(view_scores=np.stack([LOGITS, -LOGITS], axis=1)), tmp_path)
    text = re.sub(r'<[^>]+>', ' ', page)
    assert re.search('mean average precision *83.33\u00a0%', text)
    assert 'n/a' in text and not re.search(r'\bnan\b', page, re.IGNORECASE)
    assert 'top-1' not in page
    assert '<b>d</b> with 60\u00a0%, labels <b>a</b>, <b>c</b>' in page
    assert '<b>&lt;b&gt;</b> with 30\u00a0%, predicted <b>a</b>' in page
    assert 'predict the same labels' in page


@pytest.mark.parametrize(
    'labels', [np.zeros((4, 4), bool), np.ones((4, 4), bool), LABELS[:, ::-1], ~LABELS]
)
@pytest.mark.parametrize('scores', [SCORES, np.zeros((4, 4)), np.ones((4, 4))])
def test_no_labels_and_no_scores_put_a_nan_on_the_page(
    labels: np.ndarray, scores: np.ndarray, tmp_path: Path
) -> None:
    run = TestResults(scores, labels, list('abcd'), about={'fusion': 'mean of sigmoid'})
    assert not re.search(r'\bnan\b', page_of(run, tmp_path), re.IGNORECASE)


def test_many_classes_are_shown_by_the_worst_and_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.random((30, 300)) < 0.05, rng.random((30, 300))
    names = [f'class {i}' for i in range(300)]
    run = TestResults(scores, labels, names, about={'fusion': 'mean of sigmoid'})
    page = page_of(run, tmp_path)
    assert '<h3>Worst</h3>' in page and 'The worst 60 of 300 classes' in page
    assert len(page) < 300_000


def test_videos_that_could_not_be_read_are_listed(tmp_path: Path) -> None:
    page = page_of(run_of(failed={1: ('b.mp4', 'it is empty')}), tmp_path)
    assert 'could not be read' in page and 'b.mp4' in page


@pytest.mark.parametrize('kind', [bool, float, np.float32, int])
def test_a_dump_of_rows_is_read(tmp_path: Path, kind: type) -> None:
    path = dump(tmp_path / 'result.pkl', LABELS.astype(kind))
    scores, labels = read_predictions(path)
    assert scores.shape == labels.shape and (labels == LABELS).all()
    with pytest.raises(ValueError, match='top-1 accuracy needs one label'):
        top1(scores, labels)
    path.with_suffix('.meta.json').write_text(json.dumps({'fusion': 'mean of sigmoid'}))
    assert read_test_results(tmp_path).is_multi_label


def test_rows_and_labels_in_one_dump_are_refused(tmp_path: Path) -> None:
    labels = [*LABELS[:3].astype(float), np.array([2])]
    with pytest.raises(ValueError, match='3 videos with a multi-hot row of labels and 1 with one'):
        read_views(dump(tmp_path / 'result.pkl', labels))
    with pytest.raises(ValueError, match='has 3 numbers and there are 4 scores'):
        read_views(dump(tmp_path / 'result.pkl', LABELS[:, :3]))


def test_the_curve_of_a_training_is_that_of_its_metric(tmp_path: Path) -> None:
    folder = tmp_path / 'work' / '1' / 'vis_data'
    folder.mkdir(parents=True)
    lines = [
        {'loss': 0.7, 'lr': 0.1, 'step': 1},
        {'loss': 0.6, 'lr': 0.1, 'step': 2},
        {'acc/mean_average_precision': 0.4, 'step': 1},
    ]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    curves = read_training(tmp_path / 'work')
    assert curves['acc/mean_average_precision'] == [(1, 0.4)]
    draw_training(curves, tmp_path / 'curve.png')
