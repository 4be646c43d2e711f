"""Inference: labels, timelines and features of videos by a trained model.

Read in this order: ``classifier`` (the class that users call), ``loading`` and ``inference_config``
(model and test pipeline, from a config or a checkpoint), ``inputs``, ``views`` and ``batches``,
``prediction`` and ``sliding_window`` (the results), ``features`` and ``feature_store``.

Needs MMAction2 and a video reader.
"""

from mmtimesformer.cli import require_mmaction

require_mmaction()

from mmtimesformer.inference.classifier import VideoClassifier  # noqa: E402
from mmtimesformer.inference.prediction import Prediction, Predictions, Skipped  # noqa: E402
from mmtimesformer.inference.sliding_window import Moment, Segment, Timeline  # noqa: E402

__all__ = [
    'Moment',
    'Prediction',
    'Predictions',
    'Segment',
    'Skipped',
    'Timeline',
    'VideoClassifier',
]
