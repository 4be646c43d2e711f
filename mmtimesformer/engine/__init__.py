"""What training and testing need beyond MMEngine and MMAction2.

Importing it makes MMEngine read checkpoints through our reader, and registers our parts. It needs
MMEngine and torch only. MMEngine's runner needs OpenCV, which comes with MMAction2: without it the
model still works, and ``requirements.require_mmaction`` says what is missing.
"""

try:
    from mmtimesformer.engine.bad_videos import BadVideos
    from mmtimesformer.engine.checkpoint_hook import SafeCheckpointHook
    from mmtimesformer.engine.exact_loop import ExactEpochLoop, KeepPosition
    from mmtimesformer.engine.finite_steps import SkipNonFiniteSteps
    from mmtimesformer.engine.layer_decay import LayerDecay
    from mmtimesformer.engine.loading import register_checkpoint_readers
    from mmtimesformer.engine.non_finite_scores import NonFiniteScoresHook
    from mmtimesformer.engine.precision import Bfloat16OptimWrapper
    from mmtimesformer.engine.prediction_pictures import PredictionPictures
    from mmtimesformer.engine.pretrained import FitCheckpoint, Pretrained
    from mmtimesformer.engine.protocol import NameProtocol
    from mmtimesformer.engine.resuming import latest_checkpoint
    from mmtimesformer.engine.runner import Runner
    from mmtimesformer.engine.sharding import ShardedModel
    from mmtimesformer.engine.stop_signals import StopOnSignal
    from mmtimesformer.engine.storage import register_atomic_backend
    from mmtimesformer.engine.tensor_sharing import TensorSharingHook
    from mmtimesformer.engine.view_scores import KeepViewScores
    from mmtimesformer.engine.warmup_cosine import WarmupCosineLR
    from mmtimesformer.engine.worker_losses import ReplaceLostWorkers
except ModuleNotFoundError as error:
    if error.name != 'cv2':
        raise
else:
    register_checkpoint_readers()
    register_atomic_backend()

__all__ = [
    'BadVideos',
    'Bfloat16OptimWrapper',
    'ExactEpochLoop',
    'FitCheckpoint',
    'KeepViewScores',
    'KeepPosition',
    'LayerDecay',
    'NameProtocol',
    'NonFiniteScoresHook',
    'PredictionPictures',
    'Pretrained',
    'ReplaceLostWorkers',
    'Runner',
    'SafeCheckpointHook',
    'ShardedModel',
    'SkipNonFiniteSteps',
    'StopOnSignal',
    'TensorSharingHook',
    'WarmupCosineLR',
    'latest_checkpoint',
    'register_checkpoint_readers',
]
