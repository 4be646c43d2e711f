"""What training and testing need beyond MMEngine and MMAction2.

Importing it makes MMEngine read checkpoints through our reader, and registers our parts. It needs
MMEngine and torch only.
"""

from mmtimesformer.engine.loading import register_checkpoint_readers
from mmtimesformer.engine.precision import Bfloat16OptimWrapper
from mmtimesformer.engine.prediction_pictures import PredictionPictures
from mmtimesformer.engine.runner import Runner, latest_checkpoint

register_checkpoint_readers()

__all__ = [
    'Bfloat16OptimWrapper',
    'PredictionPictures',
    'Runner',
    'latest_checkpoint',
    'register_checkpoint_readers',
]
