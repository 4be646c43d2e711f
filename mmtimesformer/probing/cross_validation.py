"""Choose the regularisation strength of a probe by cross-validation."""

from collections.abc import Sequence

import numpy as np

from mmtimesformer.probing.checks import counts_of
from mmtimesformer.probing.fitting import Kind, ProbeSettings
from mmtimesformer.probing.folds import make_folds
from mmtimesformer.probing.scoring import metrics, video_scores
from mmtimesformer.terminal import echo


def choose_setting(
    probe: Kind,
    x: np.ndarray,
    y: np.ndarray,
    settings: ProbeSettings,
    groups: Sequence[object] | None,
    folds: int,
    notes: list[str],
) -> tuple[float, list[dict[str, float]]]:
    """Choose the setting with the best mean score over folds; of equal ones the first."""
    if not folds:
        notes.append(f'no cross-validation: {probe.setting} is {probe.default:g}')
        return probe.default, []
    number = _possible_folds(y, groups, folds, settings.num_classes)
    if number < folds:
        notes.append(
            f'{number} folds instead of {folds}: the smallest class or the groups have no more'
        )
    splits = make_folds(y, groups, number, settings.seed)
    found = {}
    for choice in probe.choices:
        echo(f'  cross-validation: {probe.setting} {choice:g}', flush=True)
        found[choice] = [
            _score_split(probe, x, y, settings, choice, train, test) for train, test in splits
        ]
    main = next(iter(found[probe.choices[0]][0]))
    best = max(probe.choices, key=lambda choice: round(mean_scores(found[choice])[main], 9))
    return best, found[best]


def _possible_folds(
    y: np.ndarray, groups: Sequence[object] | None, folds: int, num_classes: int
) -> int:
    counts = counts_of(y, num_classes)
    most = int(counts[counts > 0].min())
    if groups is not None:
        most = len(set(map(str, groups)))
        if most < 2:
            raise ValueError(
                'all training videos are of one group, and cross-validation needs two; correct '
                'groups (--groups), or set folds (--folds) to 0'
            )
    return min(folds, most)


def _score_split(
    probe: Kind,
    x: np.ndarray,
    y: np.ndarray,
    settings: ProbeSettings,
    choice: float,
    train: np.ndarray,
    test: np.ndarray,
) -> dict[str, float]:
    head = probe.build(x[train], y[train], settings, choice)
    scores, _ = video_scores(head, lambda places: x[test[list(places)]], len(test))
    return metrics(scores.numpy(), y[test])


def mean_scores(scores: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over folds; nothing without folds."""
    keys = scores[0] if scores else ()
    return {key: float(np.nanmean([one[key] for one in scores])) for key in keys}
