"""How far the views of a video agree, against numbers computed by hand."""

import numpy as np
import pytest

from mmtimesformer.analysis.view_agreement import view_agreement


def test_overlap_is_the_mean_over_views_of_what_each_has_in_common_with_their_mean() -> None:
    probabilities = np.array([[[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]]])  # their mean: 0.7, 0.3
    agreement = view_agreement(np.log(probabilities), np.array([0]), np.array([0]))
    assert agreement.overlap == pytest.approx([(0.8 + 0.8 + 0.6) / 3])
    assert agreement.predicted.tolist() == [[0, 0, 1]]


def test_views_of_one_mind_overlap_wholly_and_those_sure_of_others_by_one_view() -> None:
    logits = np.array([[[9.0, 0, 0]] * 3, 99.0 * np.eye(3)])
    agreement = view_agreement(logits, np.array([0, 0]), np.array([0, 0]))
    assert agreement.overlap == pytest.approx([1, 1 / 3])
    assert agreement.agrees.tolist() == [True, False]
    assert agreement.least(5) == [1]
