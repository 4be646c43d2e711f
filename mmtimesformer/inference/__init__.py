"""Videos in, answers out: labels, timelines and features of a trained model.

Read in this order: ``classifier`` (the one object that users meet), ``recipe`` (what a config or a
checkpoint tells of how a model is run), ``videos`` and ``views`` (what may be given, and what the
model sees of it), ``prediction`` and ``timeline`` (what comes back), ``features`` and
``feature_files``.

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
