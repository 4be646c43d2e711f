"""Scores of a probe: fuse the views of each video as a test does, and compute its metrics."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mmtimesformer.analysis.metrics import TestResults, class_accuracy, top_k
from mmtimesformer.compat.data_samples import wrong_scores
from mmtimesformer.heads import TimeSformerHead

VIDEOS_AT_A_TIME = 64
Load = Callable[[Sequence[int]], np.ndarray]


def video_scores(head: TimeSformerHead, load: Load, count: int) -> tuple[Tensor, Tensor]:
    """Return the fused scores and the logits of each view.

    Args:
        head: The probe.
        load: Gives the features of videos, ``videos views …``.
        count: Number of videos.

    Shape:
        - scores: ``videos classes``
        - logits: ``videos views classes``
    """
    device = next(iter([*head.parameters(), *head.buffers()])).device
    fused, logits = [], []
    with torch.inference_mode():
        for places in _portions(count):
            features = torch.from_numpy(load(places)).to(device)
            rows = features.flatten(0, 1)
            one = head((rows, rows) if rows.ndim > 2 else rows)  # tokens go with a class token
            fused.append(head.average_clip(one, features.shape[1]).cpu())
            logits.append(one.unflatten(0, features.shape[:2]).cpu())
    return torch.cat(fused), torch.cat(logits)


def _portions(count: int) -> Iterator[range]:
    for start in range(0, count, VIDEOS_AT_A_TIME):
        yield range(start, min(start + VIDEOS_AT_A_TIME, count))


def metrics(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return top-1 and mean class accuracy, or the mean average precision of several labels."""
    if targets.ndim == 2:
        from mmtimesformer.analysis.multi_label import mean_average_precision

        return {'mean_average_precision': mean_average_precision(targets, scores)}
    results = TestResults(scores, targets, [str(i) for i in range(scores.shape[1])])
    return {
        'top1': top_k(results, 1),
        'mean_class_accuracy': float(np.nanmean(class_accuracy(results))),
    }


def failed_scores(like: Tensor, target: np.ndarray | int) -> Tensor:
    """Return the scores of a video that cannot be read: wrong, as in ``tools/test.py``."""
    label = torch.as_tensor(target)
    return wrong_scores(like, label.float() if label.ndim else label[None])
