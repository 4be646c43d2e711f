"""A probe is an ordinary checkpoint: its own scores are those of every tool."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmtimesformer.analysis.predictions import read_failures, read_predictions
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.probing import run_probe

from .conftest import Made

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings('ignore')  # of MMAction2


def run(made: Made, kind: str = 'linear', **changes: Any) -> Any:
    arguments = {'folds': 3, 'data_root': str(made.root), 'device': 'cpu', **changes}
    return run_probe(
        made.checkpoint, made.train, made.test, out_dir=made.folder / kind, kind=kind, **arguments
    )


@pytest.mark.parametrize('kind', ['linear', 'knn'])
def test_the_checkpoint_alone_predicts_what_the_probe_scored(made: Made, kind: str) -> None:
    result = run(made, kind)
    scores, labels = read_predictions(result.dump)
    classifier = VideoClassifier(checkpoint=result.checkpoint, device='cpu')
    lines = made.test.read_text().splitlines()
    videos = [made.root / line.split()[0] for line in lines]
    found = np.stack([one.all_scores for one in classifier([str(video) for video in videos])])
    assert found == pytest.approx(scores, abs=1e-5)
    assert classifier.classes == (made.folder / 'classes.txt').read_text().splitlines()
    assert result.scores['top1'] == (scores.argmax(1) == labels).mean()
    assert len(result.folds) == 3
    assert json.loads(result.report.read_text())['scores'] == result.scores


def test_features_are_computed_once_and_again_for_a_changed_video(made: Made) -> None:
    cache = made.folder / 'cache'
    first = run(made, cache_dir=cache)
    times = {path: path.stat().st_mtime_ns for path in cache.rglob('*.npy')}
    assert len(times) == 40
    again = run(made, cache_dir=cache)
    assert again.scores == first.scores
    assert {path: path.stat().st_mtime_ns for path in cache.rglob('*.npy')} == times
    os.utime(made.root / made.train.read_text().split()[0], (1, 1))
    run(made, cache_dir=cache)
    assert len(list(cache.rglob('*.npy'))) == 41
    other = torch.load(made.checkpoint)
    other['state_dict']['backbone.cls_token'] += 1
    torch.save(other, made.checkpoint)
    with pytest.raises(ValueError, match='holds features with sha256'):
        run(made, cache_dir=cache)


def test_unreadable_videos_are_skipped_in_training_and_wrong_in_testing(made: Made) -> None:
    (made.folder / 'bad.mp4').write_text('no video')
    for path in (made.train, made.test):
        path.write_text(f'{path.read_text()}{made.folder}/bad.mp4 0\n{made.folder}/none.mp4 1\n')
    result = run(made)
    assert len(result.skipped) == 2
    assert result.skipped[str(made.folder / 'none.mp4')] == 'the file does not exist'
    scores, labels = read_predictions(result.dump)
    assert list(read_failures(result.dump)) == [16, 17] and len(scores) == 18
    assert (scores.argmax(1) == labels)[16:].sum() == 0
    assert result.notes[:2] == [
        '2 of 26 training videos could not be read',
        '2 of 18 test videos could not be read: wrong',
    ]


def lines_of(made: Made, *labels: int) -> str:
    names = [line.split()[0] for line in made.train.read_text().splitlines()]
    return ''.join(f'{name} {label}\n' for name, label in zip(names, labels, strict=False))


@pytest.mark.parametrize(
    ('labels', 'changes', 'message'),
    [
        ((0, 0, 0), {}, 'has videos of one class only'),
        ((0, 0, 1), {}, 'one clip of 1 classes .* cross-validation needs two'),
        ((0, 0, 1, 1), {'groups': ['a'] * 3}, 'has 3 entries, and .* has 4 videos'),
        ((0, 0, 1, 1), {'kind': 'svm'}, "kind='svm' is not known"),
        ((0, 0, 1, 1), {'folds': 1}, 'folds=1 is not 0 or at least 2'),
        ((0, 0, 1, 1), {'class_weights': 'equal'}, "class_weights='equal' is not known"),
        ((0, 0, 1, 1), {'class_weights': [1.0]}, 'has 1 numbers for 8 classes'),
        ((0, 0, 1, 1), {'data_root': '/nowhere'}, 'no video has features: none of 20'),
    ],
)
def test_bad_input_is_one_sentence(
    made: Made, labels: tuple[int, ...], changes: dict[str, Any], message: str
) -> None:
    made.train.write_text(lines_of(made, *labels))
    with pytest.raises(ValueError, match=message):
        run(made, **changes)


def test_features_that_do_not_fit_into_memory_are_refused(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('mmtimesformer.probing.checks.available_memory', lambda: 20_000)
    # 24 videos of 3 crops, 4 frames of 2 x 2 patches, 24 numbers of 4 bytes, twice
    with pytest.raises(ValueError, match=r'attentive. need 0.0 GiB of memory, and 0.0 GiB are'):
        run(made, 'attentive', folds=0)


def test_without_a_test_list_scores_are_those_of_the_folds(made: Made) -> None:
    result = run_probe(
        made.checkpoint, made.train, out_dir=made.folder / 'out', folds=3, draws=2,
        data_root=str(made.root), device='cpu',
    )  # fmt: skip
    assert result.dump is None
    assert result.scores['top1'] == pytest.approx(np.mean([one['top1'] for one in result.folds]))
    assert sorted(result.curve.points) == [1, 2] and len(result.curve.points[2]) == 2
    assert result.curve.skipped[5].startswith('needs 5 clips of each class and one to score')
    assert any('3 folds' in line for line in result.summary())


def test_several_labels_a_video(made: Made) -> None:
    made.train.write_text(lines_of(made, *[i % 2 for i in range(12)]).replace(' 0\n', ' 0 1\n'))
    made.test.write_text(made.test.read_text().replace(' 2\n', '\n').replace(' 3\n', ' 1 0\n'))
    result = run(made, multi_label=True, folds=2, class_names=[str(i) for i in range(8)])
    scores, labels = read_predictions(result.dump)
    assert labels.shape == (16, 8) and 0 <= result.scores['mean_average_precision'] <= 1
    classifier = VideoClassifier(checkpoint=result.checkpoint, device='cpu')
    assert classifier.is_multi_label
    name = made.test.read_text().split()[0]
    assert classifier(made.root / name).all_scores == pytest.approx(scores[0], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['linear', 'knn', 'attentive'])
def test_tools_give_the_scores_of_the_probe(made: Made, kind: str) -> None:
    result = run(made, kind)
    dump = made.folder / 'tested.pkl'
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}

    def tool(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, '-m', 'mmtimesformer', *map(str, words)],
            cwd=made.folder, env=environment, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    tool('test', result.config, result.checkpoint, '--dump', dump, '--work-dir', 'w')
    own, tested = read_predictions(result.dump), read_predictions(dump)
    assert np.array_equal(own[1], tested[1])
    assert tested[0] == pytest.approx(own[0], abs=1e-5)
    assert 'left' in tool('predict', made.root / 'videos_val/00000_left.mp4', result.checkpoint)
    tool('report', result.dump.parent)
    tool('export', result.checkpoint, '--format', 'torch-export', '--out', made.folder / 'm.pt2')
    command = ('test', result.config, result.checkpoint, '--calibrated', '--work-dir', 'w')
    done = subprocess.run(
        [sys.executable, '-m', 'mmtimesformer', *map(str, command)],
        cwd=made.folder, env=environment, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert 'has no temperature' in done.stderr and 'Traceback' not in done.stderr
    out = made.folder / 'calibrated.pth'
    try:
        shown = tool('calibrate', result.checkpoint, '--scores', result.dump, '--out', out)
    except AssertionError as error:  # random weights: scores may have nothing to do with labels
        assert 'no temperature between' in str(error)
        return
    assert 'temperature: ' in shown
    shown = tool('test', result.config, out, '--calibrated', '--work-dir', 'w')
    assert 'calibrated: temperature' in shown
