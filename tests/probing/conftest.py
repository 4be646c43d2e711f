"""A small model with random weights, its checkpoint, and lists of small videos."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer.datasets.preparation.moving_shapes import Settings, make_moving_shapes

TEXT = """
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


@dataclass
class Made:
    """What a probe starts from."""

    folder: Path
    checkpoint: Path
    train: Path
    test: Path
    root: Path


@pytest.fixture(autouse=True)
def _scopes_as_before() -> Iterator[None]:
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(scope='session')
def _videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('moving_shapes') / 'data'
    make_moving_shapes(folder, Settings(num_train=24, num_val=16), num_workers=1)
    return folder


@pytest.fixture
def made(_videos: Path, tmp_path: Path) -> Made:
    """A checkpoint with its config, 24 training and 16 test videos of 8 classes."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    cfg = Config.fromstring(TEXT, '.py')
    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
    path = tmp_path / 'base.pth'
    torch.save({'meta': {'cfg': TEXT}, 'state_dict': model.state_dict()}, path)
    lists = []
    for split in ('train', 'val'):
        lines = (_videos / f'{split}.txt').read_text().splitlines()
        lists.append(tmp_path / f'{split}.txt')
        lists[-1].write_text(''.join(f'videos_{split}/{line}\n' for line in lines))
    (tmp_path / 'classes.txt').write_text((_videos / 'classes.txt').read_text())
    return Made(tmp_path, path, lists[0], lists[1], _videos)
