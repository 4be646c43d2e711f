"""Metrics beyond MMAction2's ``AccMetric``: accuracy of each class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmtimesformer.compat.data_samples import label_of, scores_of
from mmtimesformer.registry import METRICS
from mmtimesformer.terminal import safe_text

LONGEST_NAME = 40  # characters of a class name in the log


@METRICS.register_module()
class ClassAccuracyMetric(BaseMetric):
    """Accuracy and number of videos of each class, and their mean and minimum.

    For imbalanced data, where top-1 accuracy shows the large classes alone. The table is logged,
    the lowest accuracy first. Values: ``acc/mean1`` (mean over the classes that have videos, as
    MMAction2's ``mean_class_accuracy``) and ``acc/min1`` (of the worst class); with
    ``each_class=True`` also ``acc/of/NAME`` of each class, so that curves show them.

    Args:
        each_class: Whether each class is a value of its own.
        collect_device: Where results are gathered: ``'cpu'`` or ``'gpu'``.
        prefix: First word of the values' names.
    """

    default_prefix = 'acc'

    def __init__(
        self, each_class: bool = False, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device, prefix)
        self.each_class = each_class

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep label and best class of each video."""
        for sample in data_samples:
            scores = scores_of(sample)
            self.results.append((label_of(sample), int(scores.argmax()), len(scores)))

    def compute_metrics(self, results: list[tuple[int, int, int]]) -> dict[str, float]:
        """Return the values, and log the table of classes.

        Raises:
            ValueError: No video has a label.
        """
        labels, predicted, sizes = np.array(results).T
        known = labels >= 0
        if not known.any():
            raise ValueError(
                'ClassAccuracyMetric needs labels, and no video of the list has one; write '
                '"video label" in each line of its ann_file'
            )
        counts = np.bincount(labels[known], minlength=int(sizes[0]))
        right = np.bincount(labels[known & (labels == predicted)], minlength=len(counts))
        present = np.flatnonzero(counts)
        accuracy = right[present] / counts[present]
        names = [self._name_of(int(one)) for one in present]
        order = np.argsort(accuracy, kind='stable')
        rows = [f'{names[i]}: {100 * accuracy[i]:.1f} % of {counts[present[i]]:,}' for i in order]
        print_log('Accuracy by class: ' + '; '.join(rows), logger='current')
        each = zip(names, accuracy, strict=True) if self.each_class else ()
        return {
            'mean1': float(accuracy.mean()),
            'min1': float(accuracy.min()),
            **{f'of/{name}': float(value) for name, value in each},
        }

    def _name_of(self, label: int) -> str:
        names = (self.dataset_meta or {}).get('classes')
        has_name = isinstance(names, list | tuple) and label < len(names)
        return safe_text(str(names[label] if has_name and names else label), LONGEST_NAME)
