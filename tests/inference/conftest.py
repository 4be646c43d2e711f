"""A tiny trained-looking model: its config, and checkpoints of it in several forms."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

CONFIG = """
default_scope = 'mmaction'
custom_imports = dict(
    imports=['mmtimesformer', 'mmtimesformer.datasets'], allow_failed_imports=False)
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='mmtimesformer.TimeSformer', num_frames=4, img_size=32, patch_size=16,
        embed_dims=24, num_layers=2, num_heads=2, drop_path_rate=0.1, temporal_init='random'),
    cls_head=dict(type='TimeSformerHead', num_classes=3, in_channels=24, average_clips='prob'),
    data_preprocessor=dict(
        type='ActionDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3, format_shape='NCTHW'))
test_pipeline = [
    dict(type='mmtimesformer.VideoInit', reader='pyav'),
    dict(type='SampleFrames', clip_len=4, frame_interval=2, num_clips=1, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='Resize', scale=(-1, 32)),
    dict(type='ThreeCrop', crop_size=32),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs')]
test_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='VideoDataset', ann_file='{videos}/val.txt', test_mode=True,
                 data_prefix=dict(video='{videos}'), pipeline=test_pipeline))
test_evaluator = dict(type='AccMetric', metric_options=dict(top_k_accuracy=dict(topk=(1,))))
test_cfg = dict(type='TestLoop')
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='ActionVisualizer', vis_backends=vis_backends)
# as MMEngine prints keys that are no words
notes = dict({'a.key': 1})
"""
CLASSES = ['left', 'right', 'a very long name of a class that no narrow picture has room for']


@pytest.fixture(scope='session')
def made(
    tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], str]:
    """Weights, large enough that classes differ, and the config as MMEngine prints it (slowly)."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules
    from mmengine.registry import DefaultScope

    path = tmp_path_factory.mktemp('config') / 'tiny.py'
    path.write_text(CONFIG.replace('{videos}', str(tiny_videos)))
    cfg = Config.fromfile(path)
    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
    torch.nn.init.normal_(model.cls_head.fc_cls.weight)
    return model.state_dict(), cfg.pretty_text


@pytest.fixture
def config(tmp_path: Path, tiny_videos: Path) -> Path:
    """A config file; the data that it names is there."""
    path = tmp_path / 'tiny.py'
    path.write_text(CONFIG.replace('{videos}', str(tiny_videos)))
    return path


@pytest.fixture
def weights(made: tuple[dict[str, torch.Tensor], str]) -> dict[str, torch.Tensor]:
    """Weights of the config's model."""
    return made[0]


@pytest.fixture
def printed(made: tuple[dict[str, torch.Tensor], str]) -> str:
    """The config's text as a checkpoint holds it."""
    return made[1]


@pytest.fixture
def checkpoint(weights: dict[str, torch.Tensor], printed: str, tmp_path: Path) -> Path:
    """A checkpoint as a training writes it: with its config as text, and names of classes."""
    meta = {'cfg': printed, 'dataset_meta': {'classes': CLASSES}}
    return save(tmp_path / 'epoch_1.pth', weights, **meta)


def save(path: Path, weights: dict[str, torch.Tensor], **meta: Any) -> Path:
    torch.save({'meta': meta, 'state_dict': weights}, path)
    return path
