"""Metrics beyond MMAction2's ``AccMetric``: accuracy of each class, errors of a regression."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmtimesformer.compat.data_samples import label_of, scores_of, targets_of
from mmtimesformer.compat.regression import regression_errors
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
        return name_of(self.dataset_meta, label)


@METRICS.register_module()
class RegressionMetric(BaseMetric):
    """Mean absolute error and R² of predicted numbers, of each target and on average.

    Values: ``regression/mae`` and ``regression/r2``, means over the targets; of several targets
    also ``regression/mae/NAME`` and ``regression/r2/NAME``, with the names of the data set's
    ``metainfo.classes``. R² is 1 minus the squared error over that of the mean of the true numbers:
    1 is perfect, 0 as good as that mean, and it may be negative. It is left out, with a warning,
    where all true numbers of a target are equal.

    Videos without a finite prediction (unreadable ones) are left out, counted and warned about. To
    keep the best checkpoint set ``save_best='regression/mae', rule='less'``.

    Args:
        collect_device: Where results are gathered: ``'cpu'`` or ``'gpu'``.
        prefix: First word of the values' names.
    """

    default_prefix = 'regression'

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the true and the predicted numbers of each video."""
        for sample in data_samples:
            pair = targets_of(sample), scores_of(sample)
            self.results.append(np.stack([one.double().cpu().numpy() for one in pair]))

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        """Return the values.

        Raises:
            ValueError: No prediction is finite.
        """
        pairs = np.stack(results)
        finite = np.isfinite(pairs).all(axis=(1, 2))
        if not finite.any():
            raise ValueError(
                f'none of the {len(pairs)} videos has a finite prediction; see the messages above '
                'on unreadable videos or NaN scores'
            )
        if not finite.all():
            _warn(f'{(~finite).sum()} of {len(pairs)} videos have no finite prediction and are '
                  'left out of MAE and R2')  # fmt: skip
        kept = torch.from_numpy(pairs[finite])
        mae, r2 = (one.numpy() for one in regression_errors(kept[:, 0], kept[:, 1]))
        names = [name_of(self.dataset_meta, i) for i in range(len(mae))]
        constant = [name for name, value in zip(names, r2, strict=True) if np.isnan(value)]
        if constant:
            _warn(f'R2 of {", ".join(constant)} is left out: all true numbers are equal')
        each = [(f'mae/{n}', v) for n, v in zip(names, mae, strict=True)]
        each += [(f'r2/{n}', v) for n, v in zip(names, r2, strict=True)]
        means = [('mae', mae.mean()), ('r2', r2.mean())]
        values = means + (each if len(mae) > 1 else [])
        return {name: float(value) for name, value in values if not np.isnan(value)}


def name_of(metainfo: Any, label: int) -> str:
    """Return the name of a class or target, or its number."""
    names = (metainfo or {}).get('classes')
    has_name = isinstance(names, list | tuple) and label < len(names)
    return safe_text(str(names[label] if has_name and names else label), LONGEST_NAME)


def _warn(message: str) -> None:
    print_log(f'RegressionMetric: {message}.', logger='current', level=logging.WARNING)
