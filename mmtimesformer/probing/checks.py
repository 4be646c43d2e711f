"""Check the arguments of a probe before the work starts, one sentence for each mistake."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmtimesformer.fileio.free_memory import available_memory
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.probing.fitting import (
    BALANCED,
    KINDS,
    ClassWeights,
    Kind,
    ProbeSettings,
)
from mmtimesformer.probing.lists import VideoList


def find_kind(kind: str) -> Kind:
    """Return the kind of that name."""
    if kind not in KINDS:
        raise ValueError(
            f'kind={kind!r} is not known; set kind (--kind) to one of {", ".join(KINDS)}'
        )
    return KINDS[kind]


def check_not_input(out: Path, checkpoint: str | os.PathLike[str]) -> None:
    """Refuse to overwrite the checkpoint that is probed."""
    target, given = out / 'probe.pth', Path(checkpoint)
    if target.exists() and given.exists() and target.samefile(given):
        raise ValueError(
            f'the result would overwrite the checkpoint {checkpoint}; set out_dir (--out) to '
            'another folder'
        )


def check_groups(groups: Sequence[object] | None, train: VideoList) -> None:
    """Refuse another number of groups than of videos."""
    if groups is not None and len(groups) != len(train.names):
        raise ValueError(
            f'groups (--groups) has {len(groups)} entries, and {train.path} has '
            f'{len(train.names)} videos; give one for each video'
        )


def check_counts(targets: np.ndarray, names: list[str], folds: int, source: str) -> None:
    """Refuse a single class, and classes with too few videos for cross-validation."""
    counts = counts_of(targets, len(names))
    used = np.flatnonzero(counts)
    if len(used) < 2 and targets.ndim == 1:
        raise ValueError(
            f'{source} has videos of one class only ({names[used[0]]}), and a classifier needs '
            'two; add videos of another class'
        )
    if not len(used):
        raise ValueError(f'{source}: no video has a label; a classifier needs some')
    rare = [int(i) for i in used if counts[i] < 2]
    if folds and rare:
        raise ValueError(
            f'{source} has one clip of {len(rare)} classes ({names[rare[0]]} is the first), and '
            'cross-validation needs two of each; add clips, or set folds (--folds) to 0'
        )
    if folds < 0 or folds == 1:
        raise ValueError(f'folds={folds} is not 0 or at least 2; correct folds (--folds)')


def check_memory(needed: int, kind: str) -> None:
    """Refuse features that do not fit into the free memory, before they are loaded.

    Args:
        needed: Bytes.
        kind: Of the probe.
    """
    free = available_memory()
    if free is not None and needed > free:
        smaller = 'set kind (--kind) to linear or knn, or ' if kind == 'attentive' else ''
        raise ValueError(
            f'features of kind={kind!r} need {needed / 2**30:.1f} GiB of memory, and '
            f'{free / 2**30:.1f} GiB are free; {smaller}use fewer videos or views'
        )


def counts_of(targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the number of videos of each class."""
    if targets.ndim == 2:
        return np.asarray(targets.sum(axis=0))
    return np.bincount(targets, minlength=num_classes)


def settings_of(
    classifier: VideoClassifier,
    names: list[str],
    multi_label: bool,
    class_weights: ClassWeights,
    seed: int,
) -> ProbeSettings:
    """Return what a fit needs to know of the model, and check the class weights."""
    if isinstance(class_weights, str) and class_weights != BALANCED:
        raise ValueError(
            f"class_weights={class_weights!r} is not known; give 'balanced', or a number for each "
            'class'
        )
    if class_weights is not None and not isinstance(class_weights, str):
        class_weights = [float(weight) for weight in class_weights]
        if len(class_weights) != len(names) or not all(0 < w < np.inf for w in class_weights):
            raise ValueError(
                f'class_weights has {len(class_weights)} numbers for {len(names)} classes; give '
                "one above 0 for each, or 'balanced'"
            )
    backbone = classifier.model.backbone
    return ProbeSettings(
        num_classes=len(names),
        in_channels=int(backbone.cls_token.shape[-1]),
        num_heads=int(getattr(getattr(backbone.blocks[0], 'attn', None), 'num_heads', 1)),
        multi_label=multi_label,
        class_weights=class_weights,
        seed=seed,
        device=classifier.device,
    )
