"""Reading MMAction2's predictions, whose names changed between its versions.

In 1.1.0 a sample has ``pred_scores.item`` and ``gt_labels.item``, in 1.2.0 ``pred_score`` and
``gt_label``; a dumped sample is a dict of the same names.
"""

from typing import Any

from torch import Tensor


def scores_of(sample: Any) -> Tensor:
    """Return the score of each class, one row."""
    return _read(sample, 'pred_scores', 'pred_score')


def label_of(sample: Any) -> int:
    """Return the true class."""
    return int(_read(sample, 'gt_labels', 'gt_label').flatten()[0])


def view_scores_of(sample: Any) -> Tensor | None:
    """Return the logits of each view, or ``None`` where they were not kept.

    :class:`~mmtimesformer.engine.view_scores.KeepViewScores` keeps them.

    Shape:
        - scores: ``views classes``
    """
    fields = sample if isinstance(sample, dict) else dict(sample.all_items())
    scores: Tensor | None = fields.get('view_scores')
    return scores


def _read(sample: Any, old: str, new: str) -> Any:
    fields = sample if isinstance(sample, dict) else dict(sample.all_items())
    if new in fields:
        return fields[new]
    return fields[old]['item'] if isinstance(fields[old], dict) else fields[old].item
