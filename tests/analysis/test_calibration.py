"""Temperatures are found again, coverage is what was wanted, and nothing is overwritten."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmtimesformer.analysis.calibration import (
    calibrate,
    calibrate_checkpoint,
    fit_temperature,
    label_sets,
    probabilities,
    threshold_of,
    view_logits,
)
from mmtimesformer.analysis.metrics import TestResults, softmax
from mmtimesformer.checkpoints import load_torch


def drawn(videos: int, several: bool = False, views: int = 1) -> Any:
    """Logits whose probabilities are exact, and labels drawn by them."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(videos, 1, 5)) * 2
    if several:
        labels = rng.random((videos, 5)) < 1 / (1 + np.exp(-logits[:, 0]))
    else:
        labels = np.array([rng.choice(5, p=row) for row in softmax(logits[:, 0])])
    return np.repeat(logits, views, axis=1), labels


def results(logits: np.ndarray, labels: np.ndarray, **about: Any) -> TestResults:
    fusion = 'mean of sigmoid' if labels.ndim == 2 else 'mean of softmax'
    scores = probabilities(logits, 1.0, fusion, labels.ndim == 2)
    views = {'clips': 1, 'crops': logits.shape[1]}
    kept = logits if logits.shape[1] > 1 else None
    about = {'fusion': fusion, 'views': views, **about}
    return TestResults(scores, labels, list('abcde'), about=about, view_scores=kept)


@pytest.mark.parametrize('several', [False, True])
@pytest.mark.parametrize(('views', 'factor'), [(1, 1.0), (1, 4.0), (2, 0.3)])
def test_the_temperature_is_the_factor_of_the_logits(
    several: bool, views: int, factor: float
) -> None:
    logits, labels = drawn(2000, several, views)
    one = results(factor * logits, labels)
    assert fit_temperature(view_logits(one), labels, one.about['fusion']) == pytest.approx(
        factor, rel=0.1
    )
    found = calibrate(one)
    assert found.after < 0.03
    assert found.before > 0.08 if factor != 1 else found.before < 0.03


@pytest.mark.parametrize('several', [False, True])
def test_label_sets_cover_as_often_as_wanted(several: bool) -> None:
    logits, labels = drawn(2000, several)
    probability = probabilities(logits, 0.2, None, several)
    sets = [label_sets(probability, labels, level) for level in (0.8, 0.9, 0.95)]
    for one in sets:
        assert one.coverage == pytest.approx(one.level, abs=0.02)
    assert sets[0].size < sets[1].size < sets[2].size <= 5


def test_the_threshold_has_the_correction_for_few_videos() -> None:
    nine = np.arange(1, 10) / 10
    assert threshold_of(nine, 0.9) == 0.1
    assert threshold_of(nine, 0.8) == 0.2
    assert threshold_of(nine[:8], 0.9) == 0  # all labels


def test_fusions_are_those_of_the_head() -> None:
    from mmtimesformer.heads import FUSIONS, TimeSformerHead

    logits = np.random.default_rng(0).normal(size=(4, 3, 5))
    for clips in ('prob', 'sigmoid', 'score', 'sum'):
        head = TimeSformerHead(5, 2, average_clips=clips, temperature=2.5)
        expected = head.average_clip(torch.from_numpy(logits).flatten(0, 1), 3)
        if clips in ('score', 'sum'):
            expected = expected.softmax(-1)
        found = probabilities(logits, 2.5, FUSIONS[clips], clips == 'sigmoid')
        assert found == pytest.approx(expected.numpy(), abs=1e-9)


def test_what_cannot_be_calibrated_is_one_sentence() -> None:
    logits, labels = drawn(30, views=3)
    with pytest.raises(ValueError, match='calibrated already'):
        calibrate(results(logits, labels, temperature=2.0))
    fused = results(logits, labels)
    fused.view_scores = None
    with pytest.raises(ValueError, match='no scores of single views'):
        calibrate(fused)
    with pytest.raises(ValueError, match='9 videos are too few'):
        calibrate(results(logits[:9], labels[:9]))
    right = results(logits, logits[:, 0].argmax(1))
    with pytest.raises(ValueError, match='no temperature between'):
        calibrate(right)


def test_a_checkpoint_gets_a_temperature_and_stays_itself(tmp_path: Path) -> None:
    path, out = tmp_path / 'epoch_1.pth', tmp_path / 'new.pth'
    meta = {'cfg': 'x = 1', 'dataset_meta': {'classes': list('abcde')}}
    torch.save({'meta': meta, 'state_dict': {'w': torch.ones(2)}, 'optimizer': {}}, path)
    before = path.read_bytes()
    logits, labels = drawn(400)
    found = calibrate_checkpoint(path, results(3 * logits, labels), out)
    stored = load_torch(out)
    assert stored['meta']['mmtimesformer']['temperature'] == found.temperature
    assert stored['meta']['cfg'] == 'x = 1' and 'optimizer' in stored
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match='nothing is overwritten'):
        calibrate_checkpoint(path, results(logits, labels), out)
    with pytest.raises(ValueError, match='the scores are of the checkpoint other.pth'):
        calibrate_checkpoint(
            path, results(logits, labels, checkpoint='other.pth'), tmp_path / 'x.pth'
        )


def test_without_scores_the_tool_prints_the_two_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'epoch 1.pth'
    path.touch()
    tool = Path(__file__).resolve().parents[2] / 'tools' / 'calibrate.py'
    assert runpy.run_path(str(tool))['main']([str(path)]) == 1
    shown = ' '.join(capsys.readouterr().err.split())
    assert 'set --scores' in shown and 'Traceback' not in shown
    assert f"mmtimesformer test CONFIG '{path}' --dump val/result.pkl" in shown
    assert f"mmtimesformer calibrate '{path}' --scores val/result.pkl" in shown
