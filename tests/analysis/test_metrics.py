"""Metrics of a test against numbers computed by hand."""

import re

import numpy as np
import pytest

from mmtimesformer.analysis.metrics import (
    TestResults,
    calibration,
    class_accuracy,
    confusion_matrix,
    top_k,
)


def results(scores: list[list[float]], labels: list[int], **more: object) -> TestResults:
    names = [f'class {i}' for i in range(len(scores[0]))]
    return TestResults(np.array(scores), np.array(labels), names, **more)


def test_top_k_counts_the_k_best_scores() -> None:
    run = results([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], [0, 1, 2])
    assert [top_k(run, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_calibration_error_is_weighted_by_the_videos_of_each_bin() -> None:
    """Three videos at 0.95, of which two are right, and one at 0.55, which is."""
    run = results([[0.95, 0.05]] * 3 + [[0.45, 0.55]], [0, 0, 1, 1])
    confidence, accuracy, counts, error = calibration(run)
    assert confidence == pytest.approx([0.55, 0.95])
    assert accuracy == pytest.approx([1, 2 / 3])
    assert counts.tolist() == [1, 3]
    assert error == pytest.approx((3 * abs(0.95 - 2 / 3) + 1 * abs(0.55 - 1)) / 4)


def test_a_video_that_could_not_be_read_is_wrong_in_its_class() -> None:
    run = results([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9]], [0, 0, 1], failed={1: ('b.mp4', 'empty')})
    assert class_accuracy(run).tolist() == [0.5, 1]


def test_a_class_without_videos_has_no_accuracy() -> None:
    assert np.isnan(class_accuracy(results([[0.9, 0.1]], [0]))[1])


def test_rows_are_labels_and_columns_are_predicted_classes() -> None:
    counts = confusion_matrix(np.array([0, 0, 1, 2, 2]), np.array([0, 2, 1, 2, 2]), 3)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 2]]


def test_a_class_without_videos_keeps_its_row_and_column() -> None:
    assert confusion_matrix(np.array([0]), np.array([0]), 2).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize('labels, predicted', [([0, 3], [0, 0]), ([0], [3]), ([-1], [0])])
def test_a_label_without_a_class_is_refused(labels: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match=re.escape('do not fit 3 classes')):
        confusion_matrix(np.array(labels), np.array(predicted), 3)
