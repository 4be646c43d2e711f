"""The list of videos in a report: lines of the annotation file, scores, limits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtimesformer.analysis.metrics import TestResults
from mmtimesformer.visualization import report_videos
from mmtimesformer.visualization.report_videos import changed_labels, errors_of, video_data

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1]])
RUN = TestResults(SCORES, np.array([0, 2, 1]), list('abc'), lines=['x 30 0', 'y 8 2', 'z 9 1'])


def data_of(run: TestResults, frames: int = 0) -> dict[str, Any]:
    predicted = np.eye(3, dtype=bool)[run.predicted]
    return video_data(run, run.probabilities, predicted, errors_of(run), frames)


def test_further_columns_of_a_line_are_kept() -> None:
    videos = data_of(RUN)['videos']
    assert [(v['name'], v['columns'], v['labels']) for v in videos] == [
        ('x', ['30'], [0]), ('y', ['8'], [2]), ('z', ['9'], [1]),
    ]  # fmt: skip
    assert videos[1]['scores'] == [(1, 0.6), (2, 0.3), (0, 0.1)]
    assert [v['error'] for v in videos] == pytest.approx([0.3, 0.7, 0.6])


@pytest.mark.parametrize(
    ('lines', 'changed'),
    [
        (['x 30 0', 'y 8 2', 'z 9 1'], 0),
        (['x 30 0', 'y 8 1', 'z 9 2'], 2),
        (['x 30 0', 'y 2', 'z 1'], 1),
        (['x', 'y', 'z'], 3),
    ],
)
def test_a_list_with_other_labels_has_changed(lines: list[str], changed: int) -> None:
    run = replace(RUN, lines=lines)
    assert changed_labels(run) == changed
    assert data_of(run)['canDownload'] is (changed == 0)


def test_a_label_that_was_added_to_a_video_without_one_is_a_change() -> None:
    labels = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1]], dtype=bool)
    run = replace(RUN, labels=labels, lines=['x 0', 'y', 'z 1 2'])
    assert changed_labels(run) == 0
    assert changed_labels(replace(run, lines=['x 0', 'y 1', 'z 1 2'])) == 1


def test_views_of_the_videos_with_the_largest_errors_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = replace(RUN, view_scores=np.log(np.stack([SCORES, SCORES], axis=1)))
    assert all('views' in v for v in data_of(run)['videos'])
    monkeypatch.setattr(report_videos, 'MOST_VIEW_ROWS', 4)
    data = data_of(run)
    assert ['views' in v for v in data['videos']] == [False, True, True] and data['missingViews']
    assert data['videos'][1]['views'][0] == [(1, 0.6), (2, 0.3), (0, 0.1)]


def test_frames_of_the_videos_with_the_largest_errors_are_shown(tiny_videos: Path) -> None:
    run = replace(RUN, videos=[tiny_videos / f'{i}.mp4' for i in range(3)])
    assert ['frames' in v for v in data_of(run, frames=1)['videos']] == [False, True, False]
    assert not any('frames' in v for v in data_of(run)['videos'])
