"""Stratified folds for cross-validation; videos of one group stay in one fold."""

import warnings
from collections.abc import Sequence

import numpy as np

Split = tuple[np.ndarray, np.ndarray]


def make_folds(
    targets: np.ndarray, groups: Sequence[object] | None, folds: int, seed: int
) -> list[Split]:
    """Split videos into folds with about the same number of each class.

    Args:
        targets: ``videos``, class indices; multi-label ``videos classes``, booleans.
        groups: Of each video; ``None`` if each is by itself.
        folds: How many.
        seed: Another seed is another split.

    Returns:
        Of each fold, the videos to train on and those to score.
    """
    names = np.arange(len(targets)) if groups is None else _numbers(groups)
    if targets.ndim == 2:
        fold_of = _multi_label_folds(targets, names, folds, seed)
        found = [(np.flatnonzero(fold_of != i), np.flatnonzero(fold_of == i)) for i in range(folds)]
        return [split for split in found if len(split[0]) and len(split[1])]
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():  # a class with fewer videos or groups than folds
        warnings.simplefilter('ignore', UserWarning)
        found = splitter(folds, shuffle=True, random_state=seed).split(targets, targets, names)
        return [(train, test) for train, test in found if len(train) and len(test)]


def _numbers(groups: Sequence[object]) -> np.ndarray:
    return np.unique([str(one) for one in groups], return_inverse=True)[1]


def _multi_label_folds(
    targets: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> np.ndarray:
    """Return the fold of each video: groups with rare labels first, each where it is wanted most.

    (Iterative stratification: Sechidis et al., ECML PKDD 2011.)
    """
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    counts = np.stack([targets[groups == group].sum(axis=0) for group in order])
    sizes = np.array([(groups == group).sum() for group in order])
    total = targets.sum(axis=0)
    rarest = [total[row > 0].min(initial=len(targets) + 1) for row in counts]
    wanted = np.tile(total / folds, (folds, 1))
    room = np.full(folds, len(targets) / folds)
    fold_of = np.zeros(len(targets), dtype=int)
    for i in np.argsort(rarest, kind='stable'):
        need = wanted @ (counts[i] / np.maximum(total, 1))
        best = max(range(folds), key=lambda fold: (round(need[fold], 9), room[fold]))
        wanted[best] -= counts[i]
        room[best] -= sizes[i]
        fold_of[groups == order[i]] = best
    return fold_of
