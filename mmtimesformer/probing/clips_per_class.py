"""Score a probe trained on a few clips of each class: how much more would more clips bring?"""

from dataclasses import dataclass, field

import numpy as np

from mmtimesformer.probing.checks import counts_of
from mmtimesformer.probing.fitting import Kind, ProbeSettings
from mmtimesformer.probing.scoring import metrics, video_scores
from mmtimesformer.terminal import track

SIZES = (1, 2, 5, 10, 50)
Data = tuple[np.ndarray, np.ndarray]  # features and labels
Scores = dict[str, float]


@dataclass
class ClipsPerClass:
    """The scores of probes by the number of clips of each class.

    Attributes:
        metric: Their name.
        chance: The score of guessing; NaN where that is not known.
        points: By number of clips, the score of each draw.
        skipped: By number of clips, why there is none.
        scored_on: Which videos they are the scores of.
    """

    metric: str = ''
    chance: float = float('nan')
    points: dict[int, list[float]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    scored_on: str = ''


def clips_per_class(
    probe: Kind,
    train: Data,
    test: Data | None,
    settings: ProbeSettings,
    choice: float,
    draws: int,
) -> ClipsPerClass:
    """Train on random draws of 1, 2, 5, 10 and 50 clips of each class.

    Args:
        probe: The kind.
        train: Features and labels to draw from.
        test: Those to score; without them, the training videos that were not drawn.
        settings: Those of the probe.
        choice: Its regularisation, the same for each number of clips.
        draws: For each number of clips.
    """
    x, y = train
    counts = counts_of(y, settings.num_classes)
    least = int(counts[counts > 0].min())
    found = ClipsPerClass(scored_on='the training videos that were not drawn')
    if test is not None:
        found.scored_on = f'the {len(test[1]):,} videos of the test list'
    kept = 0 if test is not None else 1
    sizes = [size for size in SIZES if size + kept <= least]
    for size in SIZES:
        if size not in sizes:
            rest = ' and one to score' if kept else ''
            found.skipped[size] = (
                f'needs {size} clips of each class{rest}, the smallest has {least}'
            )
    # Where all clips of all classes are taken there is one draw only.
    jobs = [(n, draw) for n in sizes for draw in range(draws if (counts > n).any() else 1)]
    for size, draw in track(jobs, 'clips per class') if jobs else ():
        rng = np.random.default_rng([settings.seed, size, draw])
        chosen = draw_clips(y, size, rng)
        others = np.setdiff1d(np.arange(len(y)), chosen)
        values = _score(
            probe, (x[chosen], y[chosen]), test or (x[others], y[others]), settings, choice
        )
        found.metric = next(iter(values))
        found.points.setdefault(size, []).append(values[found.metric])
    if y.ndim == 1:
        found.chance = 1 / len(np.unique(y))
    return found


def _score(probe: Kind, train: Data, test: Data, settings: ProbeSettings, choice: float) -> Scores:
    head = probe.build(*train, settings, choice)
    scores, _ = video_scores(head, lambda places: test[0][list(places)], len(test[1]))
    return metrics(scores.numpy(), test[1])


def draw_clips(y: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw clips of each class that has any; a clip with several labels counts for each of them."""
    rows = y if y.ndim == 2 else y[:, None] == np.unique(y)
    chosen = np.zeros(len(y), dtype=bool)
    for row in rows[:, rows.any(axis=0)].T[np.argsort(rows[:, rows.any(axis=0)].sum(axis=0))]:
        missing = size - int((row & chosen).sum())
        free = np.flatnonzero(row & ~chosen)
        if missing > 0:
            chosen[rng.choice(free, min(missing, len(free)), replace=False)] = True
    return np.flatnonzero(chosen)
