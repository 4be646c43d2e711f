"""Read MMAction2's predictions and labels, whose field names differ between its versions.

In 1.1.0 a sample has ``pred_scores.item`` and ``gt_labels.item``, in 1.2.0 ``pred_score`` and
``gt_label``; a dumped sample is a dict of the same names.

The label of a video is the index of its class (single-label), or a multi-hot row with a 0 or 1 for
each class (multi-label). In a regression, whose samples have ``num_targets``, it is a row of
numbers.
"""

import math
from typing import Any

import torch
from torch import Tensor

from mmtimesformer.non_finite import REASON

SCORES = ('pred_score', 'pred_scores', 'view_scores')  # MMAction2 1.2.0, 1.1.0; view_scores.py
LOWEST_LOGIT = -1e4  # below every logit of a model whose scores are finite in half precision


def scores_of(sample: Any) -> Tensor:
    """Return the score of each class, one row."""
    return _read(sample, 'pred_scores', 'pred_score')


def is_multi_label(sample: Any) -> bool:
    """Whether the label of a sample is a multi-hot row.

    A row of several numbers is one. So is a single float of a model with one class: data sets store
    classes as integers and multi-hot rows as floats.
    """
    if is_regression(sample):
        return False
    label = _label(sample)
    if label.numel() != 1:
        return True
    return label.is_floating_point() and scores_of(sample).shape[-1] == 1


def is_regression(sample: Any) -> bool:
    """Whether a sample has numbers to be predicted, not classes."""
    return sample.get('num_targets') is not None


def targets_of(sample: Any) -> Tensor:
    """Return the true numbers of a sample of a regression.

    Shape:
        - targets: ``targets``, of float32

    Raises:
        ValueError: Its label is a class.
    """
    label = _label(sample)
    if not label.is_floating_point():
        raise ValueError(
            'the label of this video is a class and RegressionHead needs numbers; set '
            'num_targets of the data set'
        )
    return label.float()


def label_of(sample: Any) -> int:
    """Return the true class of a single-label sample.

    Raises:
        ValueError: The sample is multi-label; :func:`labels_of` reads both.
    """
    if is_regression(sample):
        raise ValueError(
            'the label of this video is a row of numbers, not a class; read it with targets_of'
        )
    if is_multi_label(sample):
        raise ValueError(
            f'the label of this video is a multi-hot row of {_label(sample).numel()} numbers, not '
            'one class; read it with labels_of'
        )
    return int(_label(sample)[0])


def labels_of(sample: Any) -> list[int]:
    """Return all labels, in order; a single-label sample has one.

    Raises:
        ValueError: A multi-hot row has another length than the scores.
    """
    if not is_multi_label(sample):
        return [label_of(sample)]
    return multi_hot_of(sample).nonzero().flatten().tolist()


def multi_hot_of(sample: Any) -> Tensor:
    """Return the labels of a multi-label sample: whether it has each class.

    Shape:
        - labels: ``classes``, boolean

    Raises:
        ValueError: The row has another length than the scores, or other values than 0 and 1.
    """
    row, scores = _label(sample), scores_of(sample)
    if len(row) != scores.shape[-1]:
        raise ValueError(
            f'a multi-hot row has {len(row)} numbers and there are {scores.shape[-1]} scores; set '
            'num_classes of the data set to model.cls_head.num_classes'
        )
    if not ((row == 0) | (row == 1)).all():
        raise ValueError(
            f'a multi-hot row holds {row.unique().tolist()[:5]}, and only 0 and 1 are allowed; '
            'write the results again with tools/test.py --dump'
        )
    return row.bool()


def view_scores_of(sample: Any) -> Tensor | None:
    """Return the logits of each view, or ``None`` without ``ViewScoresHook``.

    Shape:
        - scores: ``views classes``
    """
    scores: Tensor | None = _fields(sample).get('view_scores')
    return scores


def mark_as_wrong(sample: Any) -> None:
    """Give a sample, or its dict in a dump, the scores of a wrong prediction, and the reason."""
    is_dict = isinstance(sample, dict)
    label = tensor_of(sample.get('gt_labels', sample.get('gt_label')))
    for name in SCORES:
        if sample.get(name) is None:
            continue
        scores = tensor_of(sample.get(name))
        known = torch.full((1,), -1) if label is None else label.to(scores.device)
        numbers = is_regression(sample)
        wrong = nan_like(scores) if numbers else wrong_scores(scores, known)
        changed = {name: wrong}
        if name != 'view_scores' and not numbers:
            changed[name.replace('score', 'label')] = wrong.argmax(-1, keepdim=True)
        for key, value in changed.items():
            before = sample.get(key)
            if isinstance(before, dict):
                before['item'] = value
            elif is_dict:
                sample[key] = value
            else:
                plain = before is None or isinstance(before, Tensor)
                sample.set_field(value if plain else type(before)(item=value), key)
    if is_dict:
        sample['non_finite'] = REASON
    else:
        sample.set_metainfo({'non_finite': REASON})


def nan_like(values: Tensor) -> Tensor:
    """Return NaN for each number that was predicted for a video that could not be read."""
    return torch.full_like(values, math.nan)


def wrong_scores(scores: Tensor, labels: Tensor) -> Tensor:
    """Return scores of a wrong prediction: lowest for the label, equal for the other classes.

    They are 0 for the label and sum to 1 over the other classes. Where a video has several labels
    and the scores are logits, all are far below every other logit: average precision compares the
    videos of a class, most logits are negative, and a 0 would be one of the highest.

    Shape:
        - scores: ``(views) classes``
        - labels: one class index (-1 if unknown), or a multi-hot row
    """
    true = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
    several = len(labels) > 1 or (labels.is_floating_point() and scores.shape[-1] == 1)
    if several:
        true |= labels.to(scores.device) > 0
    else:
        true[labels[labels >= 0].long()] = True
    wrong = torch.ones_like(scores)
    wrong[..., true] = 0
    if several and not ((scores >= 0) & (scores <= 1)).all():
        return LOWEST_LOGIT * (1 - wrong / 2)
    return wrong / wrong.sum(-1, keepdim=True).clamp(min=1)


def tensor_of(value: Any) -> Any:
    """Return the tensor of a label or score field: itself, or its ``item`` (MMAction2 1.1.0)."""
    if isinstance(value, dict):
        return value['item']
    return value if value is None or isinstance(value, Tensor) else getattr(value, 'item', value)


def _label(sample: Any) -> Tensor:
    row: Tensor = _read(sample, 'gt_labels', 'gt_label').flatten()
    return row


def _read(sample: Any, old: str, new: str) -> Any:
    fields = _fields(sample)
    return fields[new] if new in fields else tensor_of(fields[old])


def _fields(sample: Any) -> dict[str, Any]:
    return sample if isinstance(sample, dict) else dict(sample.all_items())
