"""Train a probe on the frozen features of a checkpoint and save it as an ordinary checkpoint."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmtimesformer.fileio.atomic import write_json_atomically
from mmtimesformer.fileio.json_values import to_json
from mmtimesformer.heads import TimeSformerHead
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.probing.checks import (
    check_counts,
    check_groups,
    check_memory,
    check_not_input,
    find_kind,
    settings_of,
)
from mmtimesformer.probing.clips_per_class import ClipsPerClass, clips_per_class
from mmtimesformer.probing.cross_validation import choose_setting, mean_scores
from mmtimesformer.probing.fitting import ClassWeights
from mmtimesformer.probing.frozen_features import FrozenFeatures, compute_features
from mmtimesformer.probing.lists import VideoList, names_of_classes, read_list
from mmtimesformer.probing.saving import dump_sample, make_config, save_dump, save_model
from mmtimesformer.probing.scoring import failed_scores, metrics, video_scores
from mmtimesformer.terminal import echo


@dataclass
class ProbeResult:
    """A trained probe.

    Attributes:
        checkpoint: The saved model: the backbone, and the probe as its head.
        config: The config that goes with it.
        scores: Of the test list (``top1`` and ``mean_class_accuracy``, or
            ``mean_average_precision``); without one, the means over the folds.
        folds: The scores of each fold, at the chosen setting.
        setting: What cross-validation chose, such as ``{'C': 0.1}``.
        classes: Names of the classes.
        report: ``probe.json``, with all of this.
        dump: ``result.pkl``, as ``tools/test.py --dump`` writes it; ``None`` without a test list.
        skipped: By video, why it has no features. Those of the test list count as wrong.
        notes: What a reader of the scores should know, a sentence each.
        seconds: By step: ``features``, ``fit`` and ``curve``.
        curve: Scores by the number of clips per class, empty without ``draws``.
    """

    checkpoint: Path
    config: Path
    scores: dict[str, float]
    folds: list[dict[str, float]]
    setting: dict[str, float]
    classes: list[str]
    report: Path
    dump: Path | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    curve: ClipsPerClass = field(default_factory=ClipsPerClass)

    def summary(self) -> list[str]:
        """Return the scores as lines of text."""
        lines = [f'{_name(key)}: {100 * value:.2f} %' for key, value in self.scores.items()]
        if self.dump is None:
            lines = [f'{line} (mean of the folds)' for line in lines]
        (name, value), *_ = self.setting.items()
        lines.append(f'{name}: {value:g}')
        if self.folds:
            key = next(iter(self.folds[0]))
            rows = 100 * np.array([one[key] for one in self.folds])
            lines.append(
                f'cross-validation, {len(rows)} folds: {_name(key)} {rows.mean():.2f} ± '
                f'{rows.std(ddof=1):.2f} % ({rows.min():.2f} to {rows.max():.2f})'
            )
        lines += [f'note: {note}' for note in self.notes]
        for size, row in sorted(self.curve.points.items()):
            spread = f' ± {100 * np.std(row, ddof=1):.1f}' if len(row) > 1 else ''
            lines.append(f'{size:>3} clips per class: {100 * np.mean(row):.1f}{spread} %')
        lines += [f'{size:>3} clips per class: {why}' for size, why in self.curve.skipped.items()]
        times = ', '.join(f'{name} {value:.1f} s' for name, value in self.seconds.items())
        return [*lines, f'time: {times}', f'saved: {self.checkpoint} and {self.config}']


def _name(metric: str) -> str:
    return {'top1': 'top-1 accuracy'}.get(metric, metric.replace('_', ' '))


@dataclass
class _Readable:
    """The videos of a list that have features."""

    listed: VideoList
    features: FrozenFeatures
    targets: np.ndarray
    kept: np.ndarray

    @property
    def files(self) -> list[Path]:
        files = self.listed.files
        return [files[i] for i in self.kept]

    def load(self, places: Sequence[int]) -> np.ndarray:
        files = self.files
        return self.features.load([files[i] for i in places])


def run_probe(
    checkpoint: str | os.PathLike[str],
    train_list: str | os.PathLike[str],
    test_list: str | os.PathLike[str] | None = None,
    *,
    out_dir: str | os.PathLike[str],
    kind: str = 'linear',
    multi_label: bool = False,
    class_weights: ClassWeights = None,
    class_names: Sequence[str] | None = None,
    groups: Sequence[object] | None = None,
    folds: int = 5,
    seed: int = 0,
    batch_size: int = 8,
    data_root: str = '',
    test_root: str | None = None,
    device: str = 'auto',
    config: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
    draws: int = 0,
) -> ProbeResult:
    """Train a classifier on the frozen features of a checkpoint.

    Features are computed once for each video and kept, so a run that was stopped resumes, and
    another kind of probe on the same feature takes seconds. The regularisation strength (``C``,
    the number of neighbours, or the weight decay) is chosen by stratified cross-validation.

    Args:
        checkpoint: Any that :class:`~mmtimesformer.inference.VideoClassifier` takes.
        train_list: Annotation file: a video and its class index in each line.
        test_list: Likewise; without it the scores are those of cross-validation.
        out_dir: Gets ``probe.pth``, ``probe.py``, ``probe.json``, ``result.pkl`` and features.
        kind: ``'linear'`` (logistic regression), ``'knn'`` (cosine) or ``'attentive'``.
        multi_label: Whether a line has several class indices, or none.
        class_weights: ``'balanced'``, or a weight for each class.
        class_names: Else those of ``classes.txt`` next to the training list, else numbers.
        groups: Of each training video, in the order of the list: videos of one group stay in one
            fold.
        folds: Of the cross-validation; 0 takes the default setting without it.
        seed: Of folds and training.
        batch_size: Videos at a time, for the features.
        data_root: What names in the lists are relative to; ``''`` for the folder of each list.
        test_root: The same for the test list, where it differs.
        device: ``'auto'`` for the first GPU if there is one.
        config: Of the checkpoint, if it does not hold one.
        cache_dir: Folder of the features; by default ``features_…`` in ``out_dir``.
        draws: How many probes are trained on each of 1, 2, 5, 10 and 50 clips per class, to see
            what more clips would bring.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: A list has another format, there are too few classes or videos, no video can be
            read, or an argument is not known.
    """
    began = time.monotonic()
    probe = find_kind(kind)
    out = Path(out_dir).expanduser()
    check_not_input(out, checkpoint)
    train = read_list(train_list, data_root, multi_label, 'train_list')
    root = data_root if test_root is None else test_root
    test = None if test_list is None else read_list(test_list, root, multi_label, 'test_list')
    names = names_of_classes(class_names, [train, *([test] if test else [])])
    check_counts(train.targets(len(names)), names, folds, str(train.path))
    check_groups(groups, train)
    classifier = VideoClassifier(config, checkpoint, None if device == 'auto' else device)
    settings = settings_of(classifier, names, multi_label, class_weights, seed)
    cache = Path(cache_dir or out / f'features_{probe.feature}')
    echo(f'features of {len(train.names) + (len(test.names) if test else 0):,} videos …')
    files = list(dict.fromkeys([*train.files, *(test.files if test else [])]))
    features = compute_features(classifier, files, cache, probe.feature, batch_size)
    ready = time.monotonic()

    data = _readable(train, features, len(names))
    tested = None if test is None else _readable(test, features, len(names))
    _check_memory(data, tested if draws else None, kind)
    x, y = data.load(range(len(data.kept))), data.targets[data.kept]
    notes = _notes(train, test, features)
    check_counts(y, names, folds, f'{train.path} without unreadable videos')
    kept_groups = None if groups is None else [groups[i] for i in data.kept]
    choice, fold_scores = choose_setting(probe, x, y, settings, kept_groups, folds, notes)
    head = probe.build(x, y, settings, choice)
    model_config = make_config(
        classifier, probe.head_config(settings, choice, len(x)), probe.feature, names, test, out,
        batch_size,
    )  # fmt: skip
    about = {
        'kind': kind,
        probe.setting: choice,
        'seed': seed,
        'base': str(checkpoint),
        'videos': len(x),
    }
    saved, saved_config = save_model(classifier, head, model_config, names, about, out)
    scores = mean_scores(fold_scores)
    dump = None
    if tested is not None:
        samples, scores = _test(head, tested, len(names))
        dump = save_dump(classifier, model_config, samples, scores, out)
    fitted = time.monotonic()
    curve = ClipsPerClass()
    if draws:
        scored = None
        if tested is not None:
            scored = tested.load(range(len(tested.kept))), tested.targets[tested.kept]
        curve = clips_per_class(probe, (x, y), scored, settings, choice, draws)
    result = ProbeResult(
        saved,
        saved_config,
        scores,
        fold_scores,
        {probe.setting: choice},
        names,
        out / 'probe.json',
        dump,
        {str(file): reason for file, reason in features.failed.items()},
        notes,
        {'features': ready - began, 'fit': fitted - ready, 'curve': time.monotonic() - fitted},
        curve,
    )
    write_json_atomically(result.report, to_json(asdict(result)))
    return result


def _readable(listed: VideoList, features: FrozenFeatures, num_classes: int) -> _Readable:
    kept = [i for i, file in enumerate(listed.files) if file not in features.failed]
    return _Readable(listed, features, listed.targets(num_classes), np.array(kept, dtype=int))


def _check_memory(train: _Readable, test: _Readable | None, kind: str) -> None:
    """Count the features twice, because a fold or a draw is a copy, and those of a test once."""
    needed = 2 * train.features.nbytes(train.files)
    if test is not None:
        needed += test.features.nbytes(test.files)
    check_memory(needed, kind)


def _notes(train: VideoList, test: VideoList | None, features: FrozenFeatures) -> list[str]:
    notes = []
    skipped = sum(file in features.failed for file in train.files)
    if skipped:
        notes.append(f'{skipped} of {len(train.names)} training videos could not be read')
    if test is not None:
        failed = sum(file in features.failed for file in test.files)
        if failed:
            notes.append(f'{failed} of {len(test.names)} test videos could not be read: wrong')
        both = set(train.files) & set(test.files)
        if both:
            notes.append(
                f'{len(both)} videos are in the training list and in the test list, so the score '
                'is too high'
            )
    return notes


def _test(
    head: TimeSformerHead, data: _Readable, num_classes: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Score the test list; videos without features count as wrong."""
    if not len(data.kept):
        raise ValueError(f'no video of {data.listed.path} could be read; correct test_list')
    fused, logits = video_scores(head, data.load, len(data.kept))
    place = {int(i): n for n, i in enumerate(data.kept)}
    samples = []
    all_scores: list[Tensor] = []
    for i, file in enumerate(data.listed.files):
        target = data.targets[i]
        if i in place:
            one, views, failed = fused[place[i]], logits[place[i]], None
        else:
            one, views = failed_scores(fused[0], target), failed_scores(logits[0], target)
            failed = (str(file), data.features.failed[file])
        samples.append(dump_sample(one, views, target, failed))
        all_scores.append(one)
    return samples, metrics(np.stack([one.numpy() for one in all_scores]), data.targets)
