"""Training and testing beyond MMEngine: Runner, hooks, loops, checkpoints, FSDP, launchers.

Importing it registers our components, and MMEngine then reads checkpoints by our reader. MMEngine's
Runner needs OpenCV, which comes with MMAction2: without it the model still works, and
``cli.require_mmaction`` raises an error that names what is missing.
"""

try:
    from mmtimesformer.engine.checkpointing.atomic_backend import register_atomic_backend
    from mmtimesformer.engine.checkpointing.checkpoint_hook import AtomicCheckpointHook
    from mmtimesformer.engine.checkpointing.pretrained import Pretrained
    from mmtimesformer.engine.checkpointing.resume import latest_checkpoint
    from mmtimesformer.engine.checkpointing.safe_loading import register_checkpoint_readers
    from mmtimesformer.engine.distributed.fsdp import FSDPModelWrapper
    from mmtimesformer.engine.hooks.adapt_checkpoint import AdaptCheckpointHook
    from mmtimesformer.engine.hooks.early_stopping import EarlyStoppingHook
    from mmtimesformer.engine.hooks.eval_protocol import EvalProtocolHook
    from mmtimesformer.engine.hooks.loop_state import LoopStateHook
    from mmtimesformer.engine.hooks.non_finite_scores import NonFiniteScoresHook
    from mmtimesformer.engine.hooks.non_finite_steps import NonFiniteStepHook
    from mmtimesformer.engine.hooks.prediction_images import PredictionImagesHook
    from mmtimesformer.engine.hooks.restart_workers import RestartWorkersHook
    from mmtimesformer.engine.hooks.stop_on_signal import StopOnSignalHook
    from mmtimesformer.engine.hooks.tensor_sharing import TensorSharingHook
    from mmtimesformer.engine.hooks.unreadable_videos import UnreadableVideosHook
    from mmtimesformer.engine.hooks.view_scores import ViewScoresHook
    from mmtimesformer.engine.inferencers import register_model_names
    from mmtimesformer.engine.loops.resumable_loop import ResumableEpochLoop
    from mmtimesformer.engine.metrics import ClassAccuracyMetric, RegressionMetric
    from mmtimesformer.engine.optim.amp import Bfloat16OptimWrapper
    from mmtimesformer.engine.optim.layer_decay import LayerDecay
    from mmtimesformer.engine.optim.warmup_cosine import WarmupCosineLR
    from mmtimesformer.engine.runner import Runner
except ModuleNotFoundError as error:
    if error.name != 'cv2':
        raise
else:
    register_checkpoint_readers()
    register_atomic_backend()
    register_model_names()

__all__ = [
    'UnreadableVideosHook',
    'Bfloat16OptimWrapper',
    'ClassAccuracyMetric',
    'EarlyStoppingHook',
    'RegressionMetric',
    'ResumableEpochLoop',
    'AdaptCheckpointHook',
    'ViewScoresHook',
    'LoopStateHook',
    'LayerDecay',
    'EvalProtocolHook',
    'NonFiniteScoresHook',
    'PredictionImagesHook',
    'Pretrained',
    'RestartWorkersHook',
    'Runner',
    'AtomicCheckpointHook',
    'FSDPModelWrapper',
    'NonFiniteStepHook',
    'StopOnSignalHook',
    'TensorSharingHook',
    'WarmupCosineLR',
    'latest_checkpoint',
    'register_checkpoint_readers',
]
