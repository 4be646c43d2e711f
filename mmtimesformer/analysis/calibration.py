"""Calibrate scores: temperature scaling, and split-conformal sets of labels.

A temperature ``T`` divides the logits of each view before views are fused (Guo et al.,
arXiv 1706.04599). It changes probabilities; with one view the order of the classes stays.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmtimesformer.analysis.metrics import TestResults, reliability
from mmtimesformer.checkpoints.metadata import find_metadata
from mmtimesformer.checkpoints.readers import read_file, write_torch

LEVELS = (0.8, 0.9, 0.95)  # of conformal sets
SPLITS = 20  # of the videos into halves, over which coverage is averaged
LEAST = 1e-7  # probability, so that its logarithm is finite
RANGE = (0.01, 100.0)  # of temperatures


def view_logits(results: TestResults) -> np.ndarray:
    """Return the logits of each view, ``videos views classes``.

    Of a test with one view they follow from its probabilities, but for a constant in each row.

    Raises:
        ValueError: A dump of several views holds fused scores alone, or calibrated ones.
    """
    if results.about.get('temperature'):
        raise ValueError(
            f'these scores are calibrated already (temperature {results.about["temperature"]:g}); '
            'test again without --calibrated and dump that'
        )
    if results.view_scores is not None:
        return np.asarray(results.view_scores, dtype=np.float64)
    views = results.about.get('views') or {'clips': 1, 'crops': 1}
    if views['clips'] * views['crops'] > 1:
        raise ValueError(
            'the dump has no scores of single views, which a temperature is applied to; write it '
            'with tools/test.py --dump'
        )
    scores = results.scores.astype(np.float64)
    if ((scores < 0) | (scores > 1)).any():
        return scores[:, None]
    kept = scores.clip(LEAST, 1 - LEAST)
    odds = kept / (1 - kept) if results.is_multi_label else kept
    return np.asarray(np.log(odds)[:, None])


def probabilities(
    logits: np.ndarray, temperature: float, fusion: str | None, multi_label: bool
) -> np.ndarray:
    """Return the probabilities of videos, of the views' logits divided by a temperature.

    Args:
        logits: See :func:`view_logits`.
        temperature: 1 changes nothing.
        fusion: One of the values of :data:`mmtimesformer.heads.FUSIONS`.
        multi_label: Whether each class has a probability of its own.

    Shape:
        - probabilities: ``videos classes``
    """
    z, t = torch.from_numpy(logits), torch.tensor(temperature)
    return np.asarray(_log_probabilities(z, t, fusion, multi_label).exp())


def _log_probabilities(
    logits: Tensor, temperature: Tensor, fusion: str | None, multi_label: bool, sign: int = 1
) -> Tensor:
    """Return their logarithms; with ``sign=-1``, of the opposites of several labels."""
    logits = sign * logits / temperature
    views = logits.shape[1]
    if fusion in ('mean of logits', 'sum of logits'):
        fused = logits.sum(1) if fusion == 'sum of logits' else logits.mean(1)
        return F.logsigmoid(fused) if multi_label else fused.log_softmax(-1)
    each = F.logsigmoid(logits) if multi_label else logits.log_softmax(-1)
    return each.logsumexp(1) - math.log(views)


def fit_temperature(logits: np.ndarray, labels: np.ndarray, fusion: str | None = None) -> float:
    """Return the temperature with the lowest negative log-likelihood of the labels.

    Args:
        logits: See :func:`view_logits`.
        labels: ``videos``, or ``videos classes`` for several labels.
        fusion: See :func:`probabilities`.

    Raises:
        ValueError: There is no best temperature, because all videos are correct or none is.
    """
    best = _best_temperature(logits, labels, fusion)
    if not RANGE[0] * 1.01 < best < RANGE[1] / 1.01:
        raise ValueError(
            f'no temperature between {RANGE[0]:g} and {RANGE[1]:g} fits these {len(labels)} videos '
            'best: all are correct, or scores have nothing to do with labels; calibrate on more '
            'videos'
        )
    return best


def _best_temperature(logits: np.ndarray, labels: np.ndarray, fusion: str | None) -> float:
    z, y = torch.from_numpy(logits), torch.from_numpy(np.asarray(labels))
    multi_label = y.ndim == 2

    def loss(log_temperature: float) -> float:
        t = torch.tensor(log_temperature).exp()
        positive = _log_probabilities(z, t, fusion, multi_label)
        if not multi_label:
            return float(F.nll_loss(positive, y.long()))
        negative = _log_probabilities(z, t, fusion, multi_label, sign=-1)
        return -float(torch.where(y > 0, positive, negative).mean())

    return float(np.exp(_golden_section(loss, *np.log(RANGE))))


def _golden_section(
    loss: Callable[[float], float], low: float, high: float, steps: int = 40
) -> float:
    """Return the place of the minimum of a function with one; a grid finds its surroundings."""
    grid = np.linspace(low, high, 41)
    best = int(np.argmin([loss(place) for place in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    ratio = (5**0.5 - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float((low + high) / 2)


def calibration_error(probability: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error: of the best class, or of all decisions."""
    if labels.ndim == 2:
        return reliability(probability.ravel(), labels.ravel())[3]
    return reliability(probability.max(axis=1), probability.argmax(axis=1) == labels)[3]


@dataclass(frozen=True)
class LabelSets:
    """Split-conformal label sets at one level, averaged over random halves of the videos.

    Attributes:
        level: The wanted coverage.
        coverage: Fraction of videos (of several labels: of labels) that the sets contain.
        size: Mean number of labels in a set.
    """

    level: float
    coverage: float
    size: float


@dataclass(frozen=True)
class Calibration:
    """Calibration before and after temperature scaling, each on videos that it was not fitted on.

    Attributes:
        temperature: Fitted on all videos.
        before: Expected calibration error without a temperature.
        after: With one: fitted on one half of the videos, measured on the other, and the reverse.
        sets: Label sets at :data:`LEVELS`.
    """

    temperature: float
    before: float
    after: float
    sets: list[LabelSets]


def calibrate(results: TestResults, seed: int = 0) -> Calibration:
    """Fit a temperature, and measure what it brings.

    Raises:
        ValueError: See :func:`view_logits` and :func:`fit_temperature`; or there are fewer than 10
            videos.
    """
    results = results.without_failed()
    if len(results.labels) < 10:
        raise ValueError(
            f'{len(results.labels)} videos are too few to calibrate on; test 10 or more'
        )
    logits, fusion = view_logits(results), results.about.get('fusion')
    labels, several = results.labels, results.is_multi_label
    temperature = fit_temperature(logits, labels, fusion)
    plain = probabilities(logits, 1.0, fusion, several)
    scaled = np.empty_like(plain)
    first, second = next(_halves(len(labels), seed))
    for fitted, measured in ((first, second), (second, first)):
        one = _best_temperature(logits[fitted], labels[fitted], fusion)
        scaled[measured] = probabilities(logits[measured], one, fusion, several)
    return Calibration(
        temperature,
        calibration_error(plain, labels),
        calibration_error(scaled, labels),
        [label_sets(plain, labels, level, seed) for level in LEVELS],
    )


def label_sets(
    probability: np.ndarray, labels: np.ndarray, level: float, seed: int = 0
) -> LabelSets:
    """Measure split-conformal label sets: calibrated on half of the videos, measured on the other.

    A set has all classes whose probability is at least a threshold: the one that the labels of
    the first half exceed with the wanted frequency (Sadinle et al., arXiv 1609.00451). With
    several labels a video, each label counts as one.

    Shape:
        - probability: ``videos classes``
        - labels: ``videos``, or ``videos classes``
    """
    truth = labels > 0 if labels.ndim == 2 else np.arange(probability.shape[1]) == labels[:, None]
    coverages, sizes = [], []
    for fitted, measured in _halves(len(labels), seed, SPLITS):
        chosen = probability[measured] >= threshold_of(probability[fitted][truth[fitted]], level)
        coverages.append(chosen[truth[measured]].mean() if truth[measured].any() else np.nan)
        sizes.append(chosen.sum(axis=1).mean())
    return LabelSets(level, float(np.nanmean(coverages)), float(np.mean(sizes)))


def threshold_of(true_probabilities: np.ndarray, level: float) -> float:
    """Return the threshold that sets of this coverage have; 0 with too few videos.

    Of ``n`` probabilities of true labels it is the ``floor((n + 1) (1 - level))``-th smallest.
    """
    place = int(np.floor((len(true_probabilities) + 1) * (1 - level) + 1e-9))
    return float(np.sort(true_probabilities)[place - 1]) if place else 0.0


def _halves(count: int, seed: int, splits: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for _ in range(splits):
        order = rng.permutation(count)
        yield order[: count // 2], order[count // 2 :]


def calibrate_checkpoint(
    checkpoint: str | Path, results: TestResults, out: str | Path
) -> Calibration:
    """Write a copy of a checkpoint that has a temperature in its metadata.

    Nothing uses it unless it is asked for: ``--calibrated`` of ``tools/test.py`` and
    ``tools/predict.py``, ``VideoClassifier(calibrated=True)``.

    Args:
        checkpoint: A torch file.
        results: Of a test of this checkpoint on validation videos.
        out: The new file.

    Raises:
        ValueError: See :func:`calibrate`; or the scores are of another checkpoint, ``out`` exists,
            or the file is not a torch checkpoint.
    """
    if Path(out).exists():
        raise ValueError(f'{out} exists, and nothing is overwritten; set --out to a new file')
    tested = results.about.get('checkpoint')
    if tested and Path(tested).name != Path(checkpoint).name:
        raise ValueError(
            f'the scores are of the checkpoint {tested}, not of {checkpoint}; test this one with '
            '--dump'
        )
    contents = read_file(checkpoint)
    if not isinstance(contents.checkpoint, dict) or 'state_dict' not in contents.checkpoint:
        raise ValueError(
            f'{checkpoint} is not a checkpoint of mmtimesformer, which has a place for a '
            'temperature; convert it with tools/convert_checkpoint.py to a .pth file'
        )
    found = calibrate(results)
    stored = dict(contents.checkpoint)
    meta = dict(stored.get('meta') or {})
    metadata = find_metadata(contents.extras, contents.tensors)
    metadata.temperature = found.temperature
    meta['mmtimesformer'] = metadata.to_dict()
    write_torch({**stored, 'meta': meta}, Path(out))
    return found
