"""The config of a tiny model that is tested with three crops, and a function that builds it."""

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

# Without expressions, so that it is also a config in a checkpoint
CONFIG = """
default_scope = 'mmaction'
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='mmtimesformer.TimeSformer', num_frames=4, img_size=32, patch_size=16,
        embed_dims=24, num_layers=2, num_heads=2, drop_path_rate=0.1, temporal_init='random'),
    cls_head=dict(type='TimeSformerHead', num_classes=3, in_channels=24, average_clips='prob'),
    data_preprocessor=dict(
        type='ActionDataPreprocessor', mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0],
        format_shape='NCTHW'))
test_pipeline = [
    dict(type='mmtimesformer.VideoInit', reader='pyav'),
    dict(type='SampleFrames', clip_len=4, frame_interval=2, num_clips=1, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='Resize', scale=(-1, 32)),
    dict(type='ThreeCrop', crop_size=32),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs')]
"""


def build_model(cfg: Config) -> torch.nn.Module:
    """Return the model of a config with random weights, always the same."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        return MODELS.build(cfg.model)
