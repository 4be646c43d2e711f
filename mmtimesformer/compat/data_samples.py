"""Read MMAction2's predictions and labels, whose field names differ between its versions.

In 1.1.0 a sample has ``pred_scores.item`` and ``gt_labels.item``, in 1.2.0 ``pred_score`` and
``gt_label``; a dumped sample is a dict of the same names.

The label of a video is the index of its class (single-label), or a multi-hot row with a 0 or 1 for
each class (multi-label).
"""

from typing import Any

from torch import Tensor


def scores_of(sample: Any) -> Tensor:
    """Return the score of each class, one row."""
    return _read(sample, 'pred_scores', 'pred_score')


def is_multi_label(sample: Any) -> bool:
    """Whether the label of a sample is a multi-hot row.

    A row of several numbers is one. So is a single float of a model with one class: data sets store
    classes as integers and multi-hot rows as floats.
    """
    label = _label(sample)
    if label.numel() != 1:
        return True
    return label.is_floating_point() and scores_of(sample).shape[-1] == 1


def label_of(sample: Any) -> int:
    """Return the true class of a single-label sample.

    Raises:
        ValueError: The sample is multi-label; :func:`labels_of` reads both.
    """
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
    fields = sample if isinstance(sample, dict) else dict(sample.all_items())
    scores: Tensor | None = fields.get('view_scores')
    return scores


def _label(sample: Any) -> Tensor:
    row: Tensor = _read(sample, 'gt_labels', 'gt_label').flatten()
    return row


def _read(sample: Any, old: str, new: str) -> Any:
    fields = sample if isinstance(sample, dict) else dict(sample.all_items())
    if new in fields:
        return fields[new]
    return fields[old]['item'] if isinstance(fields[old], dict) else fields[old].item
