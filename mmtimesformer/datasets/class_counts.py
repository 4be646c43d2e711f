"""Count the videos of each class in a data set, and compute class weights from the counts."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from mmengine.dataset import ConcatDataset, RepeatDataset


def classes_of(dataset: Any) -> list[list[int]]:
    """Return the classes of each sample, also through MMEngine's wrappers.

    Args:
        dataset: A data set with ``get_cat_ids(index)``, or a wrapper of such data sets.

    Raises:
        TypeError: The data set has no ``get_cat_ids``, so its classes are unknown.
    """
    if isinstance(dataset, ConcatDataset):
        return list(chain.from_iterable(map(classes_of, dataset.datasets)))
    if isinstance(dataset, RepeatDataset):
        return classes_of(dataset.dataset) * dataset.times
    try:
        return [list(dataset.get_cat_ids(index)) for index in range(len(dataset))]
    except (AttributeError, NotImplementedError):  # MMEngine's BaseDataset has it without content
        raise TypeError(
            f'{type(dataset).__name__} has no get_cat_ids(index), so the classes of its samples '
            "are unknown; set train_dataloader.dataset.type='mmtimesformer.VideoDataset', or add "
            'the method'
        ) from None


def class_counts(classes: Sequence[Sequence[int]], num_classes: int = 0) -> np.ndarray:
    """Count the samples of each class.

    Args:
        classes: The classes of each sample.
        num_classes: Length of the result at least.

    Shape:
        - counts: ``classes``, whole numbers
    """
    labels = np.fromiter(chain.from_iterable(classes), dtype=np.int64)
    return np.bincount(labels, minlength=num_classes)


def balanced_weights(counts: np.ndarray) -> list[float]:
    """Return a weight for each class, inversely proportional to its count.

    The formula is that of scikit-learn's ``class_weight='balanced'``, ``videos / (classes *
    count)``, so the mean weight of a video is 1. A class without videos gets the weight 1 and is
    not among the classes that are counted.

    Shape:
        - counts: ``classes``
    """
    present = counts > 0
    mean = counts.sum() / max(int(present.sum()), 1)
    return [float(f'{mean / count:.6g}') if count else 1.0 for count in counts]
