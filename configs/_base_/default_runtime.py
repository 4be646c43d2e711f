# Settings of every run: logging, checkpoints, processes, visualization.
default_scope = 'mmaction'

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, ignore_last=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    sync_buffers=dict(type='SyncBuffersHook'),
    # Stop a training when more than this fraction of its videos cannot be read
    unreadable_videos=dict(type='mmtimesformer.UnreadableVideosHook', max_fraction=0.01),
)

env_cfg = dict(
    cudnn_benchmark=False,
    # OpenCV's own threads would compete with DataLoader workers for the cores
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # tools/train.py uses gloo on CPUs
)

log_processor = dict(type='LogProcessor', window_size=20, by_epoch=True)
log_level = 'INFO'

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='mmaction.ActionVisualizer', vis_backends=vis_backends)

load_from = None
resume = False
