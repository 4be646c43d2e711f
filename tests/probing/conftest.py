"""A small model with random weights, its checkpoint, and lists of small videos."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer.datasets.preparation.moving_shapes import Settings, make_moving_shapes
from tests.tiny_model import CONFIG, build_model


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
    model = build_model(Config.fromstring(CONFIG, '.py'))
    path = tmp_path / 'base.pth'
    torch.save({'meta': {'cfg': CONFIG}, 'state_dict': model.state_dict()}, path)
    lists = []
    for split in ('train', 'val'):
        lines = (_videos / f'{split}.txt').read_text().splitlines()
        lists.append(tmp_path / f'{split}.txt')
        lists[-1].write_text(''.join(f'videos_{split}/{line}\n' for line in lines))
    (tmp_path / 'classes.txt').write_text((_videos / 'classes.txt').read_text())
    return Made(tmp_path, path, lists[0], lists[1], _videos)
