"""Class weights and statistics of targets from the training list; a warning about imbalance.

``model.cls_head.loss_cls.class_weight='balanced'``, and ``target_mean`` and ``target_std`` of
``'auto'`` of a ``RegressionHead``, are replaced by numbers before the model is built, so the
numbers are in the config that a run saves.
"""

import copy
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset
from mmengine.registry import DATASETS, DefaultScope
from torch import nn
from torch.utils.data import DataLoader

from mmtimesformer.config.label_checks import AUTO, TARGETS, without_list_statistics

IMBALANCED = 10  # largest class / smallest class, from which on there is a warning


def set_list_statistics(cfg: Config, for_training: bool) -> str | None:
    """Replace what is to be computed from the training list by numbers; remove it for a test.

    Args:
        cfg: The config; ``model.cls_head`` may be changed.
        for_training: Whether there will be a loss.

    Returns:
        What to log; ``None`` if nothing was asked for.

    Raises:
        ValueError: No video of the list has a label, or a target is the same in all videos.
    """
    head = cfg.model.get('cls_head')
    if not isinstance(head, dict) or without_list_statistics(head) == head:
        return None
    if not for_training:
        cfg.model.cls_head = without_list_statistics(head)
        return None
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        dataset = DATASETS.build(_without_pipeline(cfg.train_dataloader.dataset))
    if AUTO in (head.get(name) for name in TARGETS):
        return _set_targets(head, dataset)
    return _set_class_weights(head, dataset)


def _set_targets(head: Any, dataset: Any) -> str:
    """Set mean and standard deviation of the targets of a ``RegressionHead``."""
    numbers = np.array([dataset.get_data_info(i)['label'] for i in range(len(dataset))])
    means, deviations = numbers.mean(axis=0), numbers.std(axis=0)
    for i in np.flatnonzero(deviations == 0):
        raise ValueError(
            f'target {i} is {means[i]:g} in all {len(numbers)} training videos, so there is '
            'nothing to learn; correct the list, or remove the target'
        )
    for name, values in zip(TARGETS, (means, deviations), strict=True):
        if head.get(name) == AUTO:
            head[name] = [float(f'{value:.6g}') for value in values]
    shown = (f'{m:g} +- {s:g}' for m, s in zip(means, deviations, strict=True))
    return f'Targets of the training list (mean +- standard deviation): {", ".join(shown)}.'


def _set_class_weights(head: Any, dataset: Any) -> str:
    from mmtimesformer.datasets.class_counts import balanced_weights, class_counts, classes_of

    loss = head['loss_cls']
    counts = class_counts(classes_of(dataset), head.get('num_classes') or 0)
    if not counts.any():
        raise ValueError(
            "model.cls_head.loss_cls.class_weight='balanced': no video of the training list has a "
            'label; correct train_dataloader.dataset.ann_file, or remove class_weight'
        )
    loss['class_weight'] = weights = balanced_weights(counts)
    names = class_names(dataset)
    shown = ', '.join(
        f'{_named(i, names)} {weight:g} ({count:,} videos)'
        for i, (weight, count) in enumerate(zip(weights, counts, strict=True))
    )
    return f"class_weight='balanced' of the loss: {shown}."


def _without_pipeline(dataset: Any) -> Any:
    """Return the config of a data set, and of those in wrappers, that reads its list alone."""
    dataset = copy.deepcopy(dataset)
    inner = [dataset.get('dataset'), *(dataset.get('datasets') or ())]
    for one in [dataset, *filter(None, inner)]:
        one.pop('lazy_init', None)
        if 'pipeline' in one:
            one['pipeline'] = []
    return dataset


def class_names(dataset: Any) -> list[str]:
    """Return the class names of a data set, or none."""
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return list(names) if isinstance(names, list | tuple) else []


def note_on_imbalance(loader: DataLoader, model: nn.Module) -> str | None:
    """Return a warning if the largest class has 10 times the videos of the smallest, or ``None``.

    There is none where the config corrects for it: by ``ClassBalancedSampler``, MMEngine's
    ``ClassBalancedDataset`` or class weights. Two corrections at once are warned about.
    """
    if not _may_have_classes(loader.dataset):
        return None
    from mmtimesformer.datasets.class_counts import class_counts, classes_of
    from mmtimesformer.datasets.samplers import ClassBalancedSampler

    loss = getattr(getattr(model, 'cls_head', None), 'loss_cls', None)
    corrections = [
        name
        for name, is_used in {
            'ClassBalancedSampler': isinstance(loader.sampler, ClassBalancedSampler),
            'ClassBalancedDataset': isinstance(loader.dataset, ClassBalancedDataset),
            'class_weight of the loss': getattr(loss, 'class_weight', None) is not None,
        }.items()
        if is_used
    ]
    if corrections:
        return _note_on_two(corrections)
    try:
        counts = class_counts(classes_of(loader.dataset))
    except TypeError:
        return None  # of a data set without classes
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return None
    names = class_names(loader.dataset)
    most, least = present[counts[present].argmax()], present[counts[present].argmin()]
    if counts[most] < IMBALANCED * counts[least]:
        return None
    return (
        f'The classes are imbalanced: {_named(most, names)} has {counts[most]:,} training videos '
        f'and {_named(least, names)} has {counts[least]:,}. Rare classes are learned late or not '
        "at all. Set train_dataloader.sampler.type='mmtimesformer.ClassBalancedSampler', or "
        "model.cls_head.loss_cls.class_weight='balanced'."
    )


def _may_have_classes(dataset: Any) -> bool:
    """Whether classes can be counted; to do so imports MMAction2."""
    inner = [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())]
    return hasattr(dataset, 'get_cat_ids') or any(map(_may_have_classes, filter(None, inner)))


def _note_on_two(corrections: list[str]) -> str | None:
    if len(corrections) < 2:
        return None
    return (
        f'{" and ".join(corrections)} both correct for imbalanced classes, so rare classes count '
        'twice; remove one of them.'
    )


def _named(label: int, names: list[str]) -> str:
    return repr(names[label]) if label < len(names) else f'class {label}'
