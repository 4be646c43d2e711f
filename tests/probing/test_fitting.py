"""Heads that are fitted on features give the scores that the fit is meant to give."""

from typing import Any

import numpy as np
import pytest
import torch

from mmtimesformer.probing import fitting
from mmtimesformer.probing.fitting import KINDS, ProbeSettings
from mmtimesformer.probing.folds import make_folds
from mmtimesformer.probing.scoring import metrics, video_scores


class _Numbers:
    """Random numbers that are the same for a test whichever tests ran before it."""

    generator: np.random.Generator


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    _Numbers.generator = np.random.default_rng(0)


def blobs(videos: int, classes: int = 3, views: int = 2, width: int = 6) -> Any:
    """Features with a class in each: far apart, and far from zero, in units of any size."""
    labels = np.arange(videos) % classes
    centres = np.random.default_rng(1).normal(size=(classes, width)) * 5
    x = centres[labels][:, None] + _Numbers.generator.normal(size=(videos, views, width))
    return (7 + 40 * x).astype(np.float32), labels


def several(videos: int) -> Any:
    x, labels = blobs(videos)
    rows = np.eye(3, dtype=bool)[labels]
    rows[:, 1] |= x[:, 0, 0] > np.median(x[:, 0, 0])
    return x, rows


def settings(**changes: Any) -> ProbeSettings:
    return ProbeSettings(num_classes=3, in_channels=6, num_heads=2, **changes)


def tokens_of(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(
        np.broadcast_to(x[:, :, None, None, None], (*x.shape[:2], 2, 1, 3, 6))
    )


@pytest.mark.parametrize('kind', list(KINDS))
@pytest.mark.parametrize('multi_label', [False, True])
def test_each_kind_learns_blobs(kind: str, multi_label: bool) -> None:
    (x, y), (new, truth) = (several(60), several(30)) if multi_label else (blobs(60), blobs(30))
    if kind == 'attentive':
        x, new = tokens_of(x), tokens_of(new)
    probe = KINDS[kind]
    head = probe.build(x, y, settings(multi_label=multi_label), probe.default)
    scores, logits = video_scores(head, lambda places: new[list(places)], len(new))
    assert scores.shape == (30, 3) and logits.shape == (30, 2, 3)
    found = metrics(scores.numpy(), truth)
    assert next(iter(found.values())) > (0.85 if multi_label else 0.9)
    if not multi_label:
        assert scores.sum(1).numpy() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('classes', [2, 3])
@pytest.mark.parametrize('class_weights', [None, 'balanced'])
def test_linear_is_scikit_learns_pipeline(classes: int, class_weights: str | None) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = blobs(31, classes, views=1)
    x[:, 0] += _Numbers.generator.normal(size=(31, 6)) * 200  # so that it is not certain of each
    model = LogisticRegression(C=0.1, class_weight=class_weights, max_iter=1000, tol=1e-6)
    given = x[:, 0].astype(np.float64)
    expected = make_pipeline(StandardScaler(), model).fit(given, y).predict_proba(given)
    with_fourth = ProbeSettings(4, 6, 2, class_weights=class_weights)
    head = KINDS['linear'].build(x, y, with_fourth, 0.1)
    scores, _ = video_scores(head, lambda places: x[list(places)], len(x))
    assert scores[:, :classes].numpy() == pytest.approx(expected, abs=1e-4)
    assert scores[:, classes:].max() == 0  # of classes without a video


def test_linear_of_several_labels_knows_constant_columns() -> None:
    x, y = several(40)
    y = np.column_stack([y[:, 1], np.zeros(40, bool), np.ones(40, bool)])
    head = KINDS['linear'].build(x, y, settings(multi_label=True), 1.0)
    scores, _ = video_scores(head, lambda places: x[list(places)], len(x))
    assert scores[:, 1].max() == 0 and scores[:, 2].min() == 1
    weighted = settings(multi_label=True, class_weights=[9.0, 1.0, 1.0])
    other = KINDS['linear'].build(x, y, weighted, 1.0)
    assert not torch.equal(other.fc_cls.weight[0], head.fc_cls.weight[0])


def test_neighbours_vote_by_cosine_and_votes_come_back_from_the_softmax() -> None:
    x = np.array([[[1, 0]], [[0, 2]], [[3, 3]]], dtype=np.float32)
    two = ProbeSettings(num_classes=2, in_channels=2, num_heads=1)
    head = KINDS['knn'].build(x, np.array([0, 1, 1]), two, 2)
    (scores,), _ = video_scores(head, lambda places: np.array([[[5, 0.1]]], np.float32), 1)
    similar = torch.tensor([1.0, 0.5**0.5]) * (1 - 0.0002)
    similar += torch.tensor([0, 0.02 * 0.5**0.5])
    assert scores.numpy() == pytest.approx((similar / 0.07).softmax(0).numpy(), abs=1e-2)


def test_balanced_weights_change_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, 'LEAST_STEPS', 20)
    x, y = blobs(60)
    x = (x - 7 + _Numbers.generator.normal(size=x.shape) * 300).astype(np.float32)
    keep = np.flatnonzero((y != 2) | (np.arange(60) % 12 == 2))
    for kind, probe in KINDS.items():
        given = tokens_of(x) if kind == 'attentive' else x
        shares = []
        for weights in (None, 'balanced', [1.0, 1.0, 50.0]):
            head = probe.build(given[keep], y[keep], settings(class_weights=weights), probe.default)
            scores, _ = video_scores(head, lambda places, g=given: g[list(places)], 60)
            shares.append(float(scores[:, 2].mean()))
        assert shares[0] < shares[1] < shares[2], kind


def test_seeds_decide_the_attentive_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, 'LEAST_STEPS', 1)
    monkeypatch.setattr(fitting, 'EPOCHS', 1)
    x, y = blobs(12)
    x = tokens_of(x)
    fit = KINDS['attentive'].fit
    one, again, other = (fit(x, y, settings(seed=seed), 0.05) for seed in (0, 0, 1))
    assert torch.equal(one['query'], again['query'])
    assert not torch.equal(one['query'], other['query'])


def test_folds_are_stratified_and_keep_groups_together() -> None:
    y = np.repeat([0, 1, 2], 10)
    for train, test in make_folds(y, None, 5, 0):
        assert np.bincount(y[test]).tolist() == [2, 2, 2] and not set(train) & set(test)
    groups = [f'person {i // 2 % 5}' for i in range(30)]
    for train, test in make_folds(y, groups, 5, 0):
        assert not {groups[i] for i in train} & {groups[i] for i in test}


def test_folds_of_several_labels_divide_each_label() -> None:
    rows = _Numbers.generator.random((60, 4)) < [0.5, 0.3, 0.1, 0.1]
    rows[:5, 3] = True
    splits = make_folds(rows, None, 5, 0)
    assert sorted(i for _, test in splits for i in test) == list(range(60))
    for _, test in splits:
        assert abs(rows[test].sum(0) - rows.sum(0) / 5).max() <= 2.5
        assert rows[test][:, 3].any()
    groups = np.arange(60) // 6
    for train, test in make_folds(rows, list(groups), 5, 0):
        assert not set(groups[train]) & set(groups[test])
