"""The best classes of a row of scores: order, ties, and the labels above a threshold."""

import numpy as np

from mmtimesformer.inference.prediction import SIGMOID, best_of

NAMES = ['a', 'b', 'c', 'd']


def test_the_best_come_first_and_of_equal_scores_the_first_class() -> None:
    found = best_of('x.mp4', np.array([0.1, 0.4, 0.1, 0.4]), NAMES, 3, 'mean of softmax')
    assert (found.labels, found.indices) == (['b', 'd', 'a'], [1, 3, 0])
    assert found.scores == [0.4, 0.4, 0.1]
    assert found.above_threshold is None


def test_a_probability_at_the_threshold_is_a_label_also_beyond_the_best() -> None:
    scores = np.array([0.5, 0.25, 0.75, 0.0])
    found = best_of('x.mp4', scores, NAMES, 1, SIGMOID, threshold=0.5)
    assert (found.labels, found.above_threshold) == (['c'], ['c', 'a'])
