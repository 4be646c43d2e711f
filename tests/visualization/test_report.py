"""The report: metrics, sections, and safety against hostile pickles and class names."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmtimesformer.analysis.metrics import (
    TestResults,
    calibration,
    class_accuracy,
    softmax,
    top_k,
)
from mmtimesformer.analysis.predictions import read_predictions
from mmtimesformer.analysis.test_results import read_test_results
from mmtimesformer.analysis.view_agreement import view_agreement
from mmtimesformer.visualization.report import write_report

SCORES = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.05, 0.05, 0.9]], dtype=np.float32
)
LABELS = np.array([0, 1, 1, 0])


def run_of(**changes: Any) -> TestResults:
    return TestResults(**{'scores': SCORES, 'labels': LABELS, 'classes': 'abc', **changes})


def dump(
    path: Path,
    scores: np.ndarray = SCORES,
    labels: np.ndarray = LABELS,
    views: np.ndarray | None = None,
) -> Path:
    """Write results as MMEngine's DumpResults does."""
    samples: list[dict[str, Any]] = [
        {'pred_scores': {'item': torch.tensor(row)}, 'gt_labels': {'item': torch.tensor([label])}}
        for row, label in zip(scores, labels, strict=True)
    ]
    for sample, one in zip(samples, [] if views is None else views, strict=False):
        sample['view_scores'] = torch.tensor(one)
    path.write_bytes(pickle.dumps(samples))
    return path


def test_accuracies_are_those_of_the_definition() -> None:
    run = run_of()
    assert top_k(run, 1) == 0.5  # the first two
    assert top_k(run, 2) == 1.0  # the last one by the order of its two equal scores
    assert class_accuracy(run)[:2].tolist() == [0.5, 0.5]
    assert np.isnan(class_accuracy(run)[2])


def test_calibration_is_the_mean_gap_between_confidence_and_accuracy() -> None:
    confidence, accuracy, counts, error = calibration(run_of())
    assert confidence == pytest.approx([0.5, 0.6, 0.7, 0.9])
    assert accuracy.tolist() == [0, 1, 1, 0]
    assert counts.tolist() == [1, 1, 1, 1]
    assert error == pytest.approx((0.5 + 0.4 + 0.3 + 0.9) / 4)


def test_sums_of_logits_become_probabilities() -> None:
    run = run_of(scores=np.log(SCORES) * 1.0 + 7)
    assert run.confidence == pytest.approx([0.7, 0.6, 0.5, 0.9], abs=1e-5)


def test_unreadable_videos_count_as_wrong_and_are_not_among_the_mistakes(
    tmp_path: Path,
) -> None:
    path = dump(tmp_path / 'result.pkl')
    samples = pickle.loads(path.read_bytes())
    samples[3].update(failed='it is <empty>', filename='data/d.mp4')
    path.write_bytes(pickle.dumps(samples))
    run = read_test_results(tmp_path, path)
    assert run.failed == {3: ('data/d.mp4', 'it is <empty>')}
    assert top_k(run, 1) == 0.5
    page = write_report(run, tmp_path / 'report.html').read_text()
    assert '<dt>could not be read</dt><dd><b>1</b></dd>' in page
    assert 'Videos that could not be read' in page
    assert 'it is &lt;empty&gt;' in page
    assert 'with 90\u00a0%' not in page, 'an unreadable video is among the mistakes'
    assert 'with 50\u00a0%' in page
    assert calibration(run.without_failed())[2].sum() == 3
    page = write_report(run_of(), tmp_path / 'report.html').read_text()
    assert '<dt>could not be read' not in page


def test_the_page_holds_all_that_it_shows(tmp_path: Path, tiny_videos: Path) -> None:
    videos = [tiny_videos / f'{i}.mp4' for i in range(4)]
    page = write_report(run_of(videos=videos), tmp_path / 'new' / 'report.html').read_text()
    assert '50.00\u00a0%' in page
    assert page.count('<img alt="5 frames') == 2, 'a strip of frames for each mistake'
    assert page.count('"frames":"data:image/jpeg;base64,') == 4, 'and for each video of the list'
    assert re.search(r'<b>c</b> with 90\u00a0%, label <b>a</b> <span>3\.mp4', page)
    assert page.index('with 90\u00a0%') < page.index('with 50\u00a0%'), (
        'the most confident comes first'
    )
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert list((tmp_path / 'new').iterdir()) == [tmp_path / 'new' / 'report.html']


# views


def test_views_are_compared_by_best_class_and_overlap_of_probability() -> None:
    sure = np.log(np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]) + 1e-9)
    logits = np.stack([sure[[0, 0]], sure[[0, 1]], sure[[1, 1]], sure[[0, 2]]]) + 5
    found = view_agreement(logits, labels=np.array([0, 1, 0, 2]), fused=np.array([0, 0, 1, 0]))
    assert found.agrees.tolist() == [True, False, True, True]
    assert found.overlap == pytest.approx([1, 0.5, 1, 0.75], abs=1e-6)
    assert found.accuracy.tolist() == [0.25, 0.5]
    assert found.fused_accuracy == 0.25
    assert found.correct_in_any == 0.5
    assert found.least(5) == [1], 'one that agrees is not shown, however unsure it is'
    assert found.votes(1) == [(0, 1), (1, 1)]


def test_the_page_shows_the_agreement_of_views(tmp_path: Path) -> None:
    views = np.log(np.stack([SCORES, SCORES], axis=1))
    views[3, 1] = [9, 0, 0]
    views[1, 0] = [0, 0, 9]
    result = dump(tmp_path / 'result.pkl', views=views)
    page = write_report(read_test_results(tmp_path, result), tmp_path / 'report.html').read_text()
    assert 'All 2 views predict the same class in <b>50.0\u00a0%</b>' in page
    assert 'view 1 alone' in page
    assert '2 ×\u20091, 0 ×\u20091; fused <b>2</b>, label <b>0</b>' in page
    assert page.rindex('<span>video 3<') < page.rindex('<span>video 1<'), 'the least comes first'


@pytest.mark.parametrize(
    ('about', 'message'),
    [
        ({}, 'Test again with tools/test.py --dump'),
        ({'views': {'clips': 10, 'crops': 3}}, 'no scores of the single views'),
        ({'views': {'clips': 1, 'crops': 1}}, 'one view of each video'),
    ],
)
def test_a_result_without_view_scores_has_a_note(
    tmp_path: Path, about: dict[str, Any], message: str
) -> None:
    assert message in write_report(run_of(about=about), tmp_path / 'report.html').read_text()


def test_settings_are_rounded_and_an_empty_list_has_no_row(tmp_path: Path) -> None:
    about = {'scores': {'top1': 0.71, 'mean1': 0.7100000000000001}, 'non_finite': []}
    text = write_report(run_of(about=about), tmp_path / 'report.html').read_text()
    assert 'top1 0.71, mean1 0.71<' in text and 'non_finite' not in text


def test_many_views_are_summarized_by_the_worst_and_the_best(tmp_path: Path) -> None:
    run = run_of(view_scores=np.repeat(np.log(SCORES)[:, None], 30, axis=1))
    page = write_report(run, tmp_path / 'report.html').read_text()
    assert 'All 30 views' in page and 'worst view' in page
    assert 'view 1 alone' not in page and 'Lowest agreement' not in page


def test_views_of_unequal_number_are_left_out(tmp_path: Path) -> None:
    path = dump(tmp_path / 'result.pkl')
    samples = pickle.loads(path.read_bytes())
    for i, sample in enumerate(samples):
        sample['view_scores'] = torch.zeros(2 + i % 2, 3)
    path.write_bytes(pickle.dumps(samples))
    assert read_test_results(tmp_path, path).view_scores is None


def test_names_of_classes_are_text_and_not_markup(tmp_path: Path) -> None:
    run = run_of(classes=['<script>alert(1)</script>', 'b', 'c'])
    assert '<script>alert' not in write_report(run, tmp_path / 'report.html').read_text()


def test_a_missing_video_has_a_note(tmp_path: Path) -> None:
    run = run_of(videos=[tmp_path / 'gone.mp4'] * 4)
    assert 'cannot be read any more' in write_report(run, tmp_path / 'report.html').read_text()


def test_many_classes_get_a_picture_of_the_matrix_and_a_list(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = TestResults(
        rng.random((300, 90)), rng.integers(0, 90, 300), [f'class {i}' for i in range(90)]
    )
    page = write_report(run, tmp_path / 'report.html').read_text()
    assert 'alt="Confusion matrix"' in page and '<table class="matrix">' not in page
    assert '<h3>Best</h3>' in page and 'Most frequent confusions' in page


def test_a_perfect_test_has_no_mistakes(tmp_path: Path) -> None:
    page = write_report(run_of(labels=SCORES.argmax(1)), tmp_path / 'report.html').read_text()
    assert 'Most frequent confusions' not in page and 'Confusion matrix' in page
    assert '<p>There are none.</p>' in page


def test_results_are_read_without_running_them(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / 'executed'),)

    path = tmp_path / 'result.pkl'
    path.write_bytes(pickle.dumps([Hostile()]))
    with pytest.raises(ValueError, match=r'asks for \w+\.mkdir'):
        read_predictions(path)
    assert not (tmp_path / 'executed').exists()
    path.write_bytes(b'\x80\x04]')
    with pytest.raises(ValueError, match='damaged'):
        read_predictions(path)


def test_class_names_and_videos_come_from_the_folder_of_the_annotation_file(
    tmp_path: Path, tiny_videos: Path
) -> None:
    data = tmp_path / 'data'
    shutil.copytree(tiny_videos, data)
    (data / 'classes.txt').write_text('run\nwalk\nstand\n')
    lines = (data / 'train.txt').read_text()
    work = tmp_path / 'work'
    work.mkdir()
    (work / 'cfg.py').write_text(
        f"test_dataloader = dict(dataset=dict(ann_file='{data}/train.txt', "
        f"data_prefix=dict(video='{data}')))\n"
    )
    run = read_test_results(work, dump(work.parent / 'result.pkl'))
    assert list(run.classes) == ['run', 'walk', 'stand']
    assert [path.name for path in run.videos] == [line.split()[0] for line in lines.splitlines()]
    (data / 'train.txt').write_text(lines + '5.mp4 1\n')
    assert read_test_results(work, tmp_path / 'result.pkl').videos == [], 'other videos than tested'


def test_the_config_in_the_work_dir_is_parsed_and_not_run(tmp_path: Path) -> None:
    """Whoever makes a report of another's folder does not want its programs."""
    (tmp_path / 'cfg.py').write_text(f"import pathlib\npathlib.Path('{tmp_path}/ran').touch()\n")
    path = dump(tmp_path / 'result.pkl')
    read_test_results(tmp_path, path)
    (tmp_path / 'cfg.py').rename(tmp_path / 'elsewhere.txt')
    about = {'config': f'{tmp_path}/elsewhere.txt'}
    path.with_suffix('.meta.json').write_text(json.dumps(about))
    read_test_results(tmp_path, path)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('content', [b'', b'{"classes": [', b'\xff\x00', b'[1, 2]', b'[' * 10**6])
def test_damaged_metadata_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = dump(tmp_path / 'result.pkl')
    path.with_suffix('.meta.json').write_bytes(content)
    with pytest.raises(ValueError, match=r'result\.meta\.json is damaged; remove it'):
        read_test_results(tmp_path, path)


def test_too_few_names_and_no_predictions_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'holds no \.pkl .* --dump'):
        read_test_results(tmp_path)
    (tmp_path / 'names.txt').write_text('run\n')
    with pytest.raises(ValueError, match='1 class names are too few for 3 classes; set --classes'):
        read_test_results(tmp_path, dump(tmp_path / 'result.pkl'), tmp_path / 'names.txt')


def test_the_tool_writes_the_page_into_the_work_dir(tmp_path: Path, capfd: Any) -> None:
    from runpy import run_path

    tool = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'report.py'
    dump(tmp_path / 'result.pkl')
    assert run_path(str(tool))['main']([str(tmp_path)]) == 0
    assert (tmp_path / 'report.html').is_file()
    assert run_path(str(tool))['main']([str(tmp_path / 'nowhere')]) == 1
    assert 'holds no .pkl' in capfd.readouterr().err


def test_the_page_shows_calibration_before_and_after_and_label_sets(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(300, 3))
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits)])
    about = {'fusion': 'mean of softmax', 'views': {'clips': 1, 'crops': 1}}
    page = tmp_path / 'report.html'
    write_report(TestResults(softmax(4 * logits), labels, list('abc'), about=about), page)
    text = page.read_text()
    assert 'with a temperature fitted on one half' in text
    assert all(f'<th scope="row">{level}\u00a0%</th>' in text for level in (80, 90, 95))
    calibrated = TestResults(
        softmax(logits), labels, list('abc'), about={**about, 'temperature': 2}
    )
    write_report(calibrated, page)
    assert 'Not available: these scores are calibrated already (temperature 2)' in page.read_text()
