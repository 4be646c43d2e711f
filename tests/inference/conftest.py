"""A tiny trained-looking model: its config, and checkpoints of it in several forms."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from tests import tiny_model

CONFIG = (
    tiny_model.CONFIG
    + """
custom_imports = dict(
    imports=['mmtimesformer', 'mmtimesformer.datasets'], allow_failed_imports=False)
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
)
CLASSES = ['left', 'right', 'a very long name of a class that no narrow picture has room for']


@pytest.fixture(scope='session')
def made(
    tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], str]:
    """Weights, large enough that classes differ, and the config as MMEngine prints it (slowly)."""
    path = tmp_path_factory.mktemp('config') / 'tiny.py'
    path.write_text(CONFIG.replace('{videos}', str(tiny_videos)))
    cfg = Config.fromfile(path)
    model = tiny_model.build_model(cfg)
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
