"""The comparison of runs: differences, changed videos, and runs that cannot be compared."""

import pickle
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest
import torch

from mmtimesformer.analysis.metrics import TestResults
from mmtimesformer.analysis.run_comparison import changes, mcnemar, metrics, run_names
from mmtimesformer.visualization.comparison_page import write_comparison

SCORES = np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
LABELS = np.array([0, 1, 1, 0])
LINES = [f'{name} {label}' for name, label in zip('abcd', LABELS, strict=True)]
A = TestResults(SCORES, LABELS, ['<run>', 'walk'], lines=LINES)
B = replace(A, scores=SCORES[[0, 0, 1, 1]])  # b is broken, c is fixed
NAMES = ['one', 'two']


def page_of(runs: list[TestResults], folder: Path) -> str:
    names = ['one', 'two', 'three'][: len(runs)]
    return write_comparison(runs, names, folder / 'compare.html').read_text()


def test_differences_are_those_from_the_first_run() -> None:
    better = replace(A, scores=SCORES[[0, 1, 1, 1]])
    accuracy = metrics([A, better])[0]
    assert (accuracy.name, accuracy.values) == ('top-1 accuracy', [0.5, 0.75])
    found = changes(A, B)
    assert (found.fixed, found.broken) == ([2], [1])


def test_mcnemar_is_the_two_sided_binomial_test() -> None:
    stats = pytest.importorskip('scipy.stats')
    for pair in ((0, 0), (1, 1), (0, 5), (9, 2), (40, 61)):
        expected = stats.binomtest(pair[0], sum(pair)).pvalue if sum(pair) else 1
        assert mcnemar(*pair) == pytest.approx(expected)


def test_the_page_lists_metrics_classes_and_changed_videos(tmp_path: Path) -> None:
    page = page_of([A, B, A], tmp_path)
    assert '<td class="number">50.00\u00a0%</td><td class="number ">+0.00 points same</td>' in page
    assert '1 video changed from right to wrong and 1 from wrong to right' in page
    broken = page.partition('<h2>Right in one, wrong in two</h2>')[2].partition('</section>')[0]
    assert '<th scope="row">b</th><td>walk</td><td>walk</td><td>&lt;run&gt;</td>' in broken
    assert '>c</th>' not in broken
    assert page.count('<p>There are none.</p>') == 2, 'the third run equals the first'
    assert '<run>' not in page and 'http' not in page.replace('http-equiv', '')


def test_multi_label_and_regression_runs_are_compared(tmp_path: Path) -> None:
    labels = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=bool)
    several = replace(A, labels=labels, about={'fusion': 'mean of sigmoid'})
    page = page_of([several, replace(several, scores=SCORES[::-1])], tmp_path)
    assert 'mean average precision' in page and 'Average precision by class' in page
    numbers = replace(A, labels=np.arange(8.0).reshape(4, 2), is_regression=True)
    page = page_of([numbers, replace(numbers, scores=SCORES + 1)], tmp_path)
    assert 'Mean absolute error by target' in page and 'Smaller errors in two' in page
    assert 'better' in page and 'nan' not in page.lower()
    failed = replace(numbers, scores=SCORES * np.nan, failed=dict.fromkeys((1, 2), ('x', 'y')))
    failed.scores[[0, 3]] = 1
    page = page_of([numbers, failed], tmp_path)
    assert 'In two, 2 videos could not be read' in page and 'nan' not in page.lower()


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (replace(A, classes=['run', 'walk']), "their classes differ, first in number 0 .'<run>'"),
        (replace(A, scores=SCORES[:3], labels=LABELS[:3], lines=LINES[:3]), 'one has 4 videos'),
        (replace(A, lines=LINES[::-1]), "their videos differ, first in number 0 .'a', 'd'"),
        (replace(A, labels=LABELS[::-1]), "video 'a' has other labels|video 'b' has"),
        (replace(A, labels=np.eye(2)[LABELS]), 'a single-label test, the other a multi-label test'),
    ],
)
def test_runs_of_other_videos_or_classes_are_refused(
    other: TestResults, message: str, tmp_path: Path
) -> None:
    if other.labels is not A.labels and other.labels.ndim == 1 and len(other.labels) == 4:
        other = replace(other, labels=1 - LABELS)
    with pytest.raises(ValueError, match=f'one and two cannot be compared: .*({message})'):
        page_of([A, other], tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_are_named_by_what_differs() -> None:
    assert run_names([Path('x/a'), Path('x/b')]) == ['a', 'b']
    assert run_names([Path('x/run'), Path('y/run')]) == ['x/run', 'y/run']
    with pytest.raises(ValueError, match='given twice'):
        run_names([Path('a'), Path('a')])


def test_the_tool_compares_work_dirs(tmp_path: Path, capfd: Any) -> None:
    tool = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'report.py'
    for name, scores in (('a', A.scores), ('b', B.scores)):
        (tmp_path / name).mkdir()
        samples = [
            {'pred_scores': {'item': torch.tensor(row)}, 'gt_labels': {'item': torch.tensor([k])}}
            for row, k in zip(scores, LABELS, strict=True)
        ]
        (tmp_path / name / 'result.pkl').write_bytes(pickle.dumps(samples))
    main = run_path(str(tool))['main']
    folders = [str(tmp_path / 'a'), str(tmp_path / 'b')]
    assert main([*folders, '--out', str(tmp_path / 'c.html')]) == 0
    page = (tmp_path / 'c.html').read_text()
    assert 'Comparison of a, b' in page and 'checked by their labels alone' in page
    with pytest.raises(SystemExit, match='2'):
        main(folders)
    assert '--out compare.html' in capfd.readouterr().err
