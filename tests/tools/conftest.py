"""A config so small that training takes longer to start than to run."""

from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'

TEXT = """
default_scope = 'mmaction'
custom_imports = dict(imports=['mmtimesformer'], allow_failed_imports=False)
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='mmtimesformer.TimeSformer', num_frames=4, img_size=32, patch_size=16,
        embed_dims=24, num_layers=1, num_heads=2, drop_path_rate=0.0),
    cls_head=dict(type='TimeSformerHead', num_classes=2, in_channels=24, average_clips='prob'),
    data_preprocessor=dict(
        type='ActionDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, format_shape='NCTHW'))
train_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=2, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(32, 32), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs')]
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=2, num_clips=1, test_mode=True),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 32)),
    dict(type='ThreeCrop', crop_size=32),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='VideoDataset', ann_file='{videos}/train.txt',
                 data_prefix=dict(video='{videos}'), pipeline=train_pipeline))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='VideoDataset', ann_file='{videos}/val.txt', test_mode=True,
                 data_prefix=dict(video='{videos}'), pipeline=test_pipeline))
val_dataloader = test_dataloader
test_evaluator = dict(type='AccMetric', metric_options=dict(top_k_accuracy=dict(topk=(1,))))
val_evaluator = test_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9),
    clip_grad=dict(max_norm=40))
param_scheduler = [dict(type='MultiStepLR', milestones=[1], gamma=0.1)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=1, save_best='auto', max_keep_ckpts=2))
auto_scale_lr = dict(enable=False, base_batch_size=8)
log_level = 'INFO'
"""


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_videos: Path) -> Path:
    """A config file that trains a tiny TimeSformer for one epoch of two steps and tests it."""
    path = tmp_path / 'tiny.py'
    text = TEXT.replace('{videos}', str(tiny_videos))
    # MMEngine names loggers by this and the second; two tests may run in one second.
    path.write_text(f'{text}experiment_name = {tmp_path.name!r}\n')
    return path


@pytest.fixture
def tools() -> Path:
    """The folder ``tools/`` of this checkout."""
    return TOOLS
