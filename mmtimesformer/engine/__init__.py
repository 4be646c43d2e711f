"""What training and testing need beyond MMEngine and MMAction2.

Importing it makes MMEngine read checkpoints through our reader, and registers our parts. It needs
MMEngine and torch only. MMEngine's runner needs OpenCV, which comes with MMAction2: without it the
model still works, and ``requirements.require_mmaction`` says what is missing.
"""

try:
    from mmtimesformer.engine.layer_decay import LayerDecay
    from mmtimesformer.engine.loading import register_checkpoint_readers
    from mmtimesformer.engine.precision import Bfloat16OptimWrapper
    from mmtimesformer.engine.prediction_pictures import PredictionPictures
    from mmtimesformer.engine.pretrained import FitCheckpoint, Pretrained
    from mmtimesformer.engine.protocol import NameProtocol
    from mmtimesformer.engine.runner import Runner, latest_checkpoint
    from mmtimesformer.engine.view_scores import KeepViewScores
except ModuleNotFoundError as error:
    if error.name != 'cv2':
        raise
else:
    register_checkpoint_readers()

__all__ = [
    'Bfloat16OptimWrapper',
    'FitCheckpoint',
    'KeepViewScores',
    'LayerDecay',
    'NameProtocol',
    'PredictionPictures',
    'Pretrained',
    'Runner',
    'latest_checkpoint',
    'register_checkpoint_readers',
]
