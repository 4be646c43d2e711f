"""W14: what MMEngine and MMAction2 accept is not refused before the run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook, LoggerHook
from mmengine.logging import MMLogger
from mmengine.optim import CosineAnnealingLR, OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import EpochBasedTrainLoop
from torch.optim import AdamW

from mmtimesformer.config.components import check_components
from mmtimesformer.config.find import shipped_configs
from mmtimesformer.config.validate import check_config
from mmtimesformer.engine.checkpointing.checkpoint_hook import AtomicCheckpointHook
from mmtimesformer.engine.loops.resumable_loop import ResumableEpochLoop
from mmtimesformer.engine.runner import Runner
from tests.tools.conftest import tiny_config  # noqa: F401


@pytest.fixture
def demo() -> Any:
    return Config.fromfile(shipped_configs()['timesformer_divST-tiny_moving-shapes'])


def own_attention(**more: Any) -> dict[str, Any]:
    return {'type': 'mmtimesformer.SelfAttention', **more}


LEGAL: dict[str, dict[str, Any]] = {
    'a second checkpoint hook': {
        'default_hooks.checkpoint_best': {'type': 'CheckpointHook', 'save_best': 'acc/top1'}
    },
    'hooks of near names': {
        'default_hooks.checkpoint2': {'type': 'CheckpointHook'},
        'default_hooks.loggers': {'type': 'LoggerHook', 'interval': 5},
        'default_hooks.timers': {'type': 'IterTimerHook'},
        'default_hooks.param_schedulers': {'type': 'ParamSchedulerHook'},
    },
    'a hook that is left out': {'default_hooks.timer': None},
    'hooks as classes and objects': {
        'custom_hooks': [{'type': EMAHook, 'momentum': 0.01}, LoggerHook(), {'type': LoggerHook}]
    },
    'a priority as text or number': {
        'custom_hooks': [
            {'type': 'EMAHook', 'priority': 'NORMAL'},
            {'type': 'EarlyStoppingHook', 'monitor': 'acc/top1', 'priority': 75},
        ]
    },
    'arguments of an averaged model': {
        'custom_hooks': [{'type': 'EMAHook', 'ema_type': 'MomentumAnnealingEMA', 'gamma': 100}]
    },
    'classes in place of names': {
        'optim_wrapper': {'type': OptimWrapper, 'optimizer': {'type': AdamW, 'lr': 1e-3}},
        'train_cfg': {'type': EpochBasedTrainLoop, 'max_epochs': 2},
        'param_scheduler': [{'type': CosineAnnealingLR, 'T_max': 2}],
        'default_hooks.checkpoint': {'type': CheckpointHook, 'interval': 1},
    },
    'a scheduler that ends within an epoch': {
        'param_scheduler': [
            {'type': 'LinearLR', 'end': 0.5, 'by_epoch': True, 'convert_to_iter_based': True}
        ]
    },
    'a scheduler alone': {'param_scheduler': {'type': 'ConstantLR', 'factor': 0.5}},
    'schedulers of several optimisers': {
        'param_scheduler': {'one': [{'type': 'ConstantLR'}], 'other': {'type': 'LinearLR'}}
    },
    'a sampler without an end': {'train_dataloader.sampler': {'type': 'InfiniteSampler'}},
    'a loop by iterations': {
        'train_cfg': {'by_epoch': False, 'max_iters': 5, 'val_interval': 2},
    },
    'what our block completes': {
        'model.backbone.attn_cfg': own_attention(drop_rate=0.1),
        'model.backbone.ffn_cfg': {'type': 'mmtimesformer.FFN', 'drop_rate': 0.1},
    },
    'components of a model that a parent completes': {
        'model.backbone': {
            'type': 'ResNet3dSlowOnly',
            'depth': 50,
            'pretrained': None,
            'norm_cfg': {'type': 'BN3d', 'requires_grad': True},
            'conv_cfg': {'type': 'Conv3d'},
        }
    },
    'numbers where a default is text': {
        'default_hooks.checkpoint.save_best': ['acc/top1', 'acc/mean1'],
        'default_hooks.checkpoint.rule': 'greater',
    },
}


@pytest.mark.parametrize('name', LEGAL)
def test_a_legal_config_is_not_refused(name: str, demo: Any) -> None:
    cfg = Config(demo.to_dict())
    for key, value in LEGAL[name].items():
        parent, _, leaf = key.rpartition('.')
        place = cfg
        for word in filter(None, parent.split('.')):
            place = place[word]
        place[leaf] = value
    check_components(cfg, 'train')


@pytest.mark.parametrize(
    'step',
    [
        {'type': 'SampleFrames', 'clip_len': 8, 'frame_interval': 2, 'keep_tail_frames': True},
        {'type': 'RandomChoice', 'transforms': [[{'type': 'Flip'}], [{'type': 'ColorJitter'}]]},
        {'type': 'RandomApply', 'transforms': {'type': 'Flip'}, 'prob': 0.3},
        {'type': 'RandomApply', 'transforms': [{'type': 'Flip', 'flip_ratio': 1}], 'prob': 0.3},
        {'type': 'MMUniformSampleFrames', 'clip_len': {'RGB': 8, 'Pose': 32}, 'num_clips': 10},
        {'type': 'Resize', 'scale': (-1, 256)},
        {'type': 'Resize', 'scale': 0.5},
        {'type': 'RawFrameDecode', 'io_backend': 'disk', 'decoding_backend': 'cv2'},
        {'type': 'RandomResizedCrop', 'area_range': (0.4, 1.0), 'lazy': True},
        {'type': 'Flip', 'flip_ratio': 0.5, 'direction': 'horizontal', 'flip_label_map': {1: 2}},
    ],
    ids=lambda step: step['type'],
)
def test_a_legal_transform_is_not_refused(step: dict[str, Any], demo: Any) -> None:
    demo.train_dataloader.dataset.pipeline.append(step)
    check_components(demo, 'train')


def test_a_config_in_pure_python_is_not_refused_and_gets_our_loop_and_hook(
    tiny_config: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    text = tiny_config.read_text()
    for old, new in (
        ("type='EpochBasedTrainLoop'", 'type=EpochBasedTrainLoop'),
        ("type='CheckpointHook'", 'type=CheckpointHook'),
        ("type='OptimWrapper'", 'type=OptimWrapper'),
        ("type='SGD'", 'type=SGD'),
        ("type='VideoDataset'", 'type=VideoDataset'),
        ("type='SampleFrames'", 'type=SampleFrames'),
        ("type='AccMetric'", 'type=AccMetric'),
        ("type='Recognizer3D'", 'type=Recognizer3D'),
        ("type='mmtimesformer.TimeSformer'", 'type=TimeSformer'),
    ):
        assert old in text
        text = text.replace(old, new)
    imports = (
        'from mmengine.hooks import CheckpointHook\n'
        'from mmengine.optim import OptimWrapper\n'
        'from mmengine.runner import EpochBasedTrainLoop\n'
        'from torch.optim import SGD\n'
        'from mmaction.datasets import SampleFrames, VideoDataset\n'
        'from mmaction.evaluation import AccMetric\n'
        'from mmaction.models import Recognizer3D\n'
        'from mmtimesformer import TimeSformer\n'
    )
    path = tmp_path / 'pure.py'
    path.write_text(imports + text)
    cfg = Config.fromfile(path)
    assert check_config(cfg, 'train') == []
    cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'none'
    runner = Runner.from_cfg(cfg)
    assert sum(isinstance(hook, AtomicCheckpointHook) for hook in runner.hooks) == 1
    runner.train()
    assert isinstance(runner.train_loop, ResumableEpochLoop)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    scopes = dict(DefaultScope._instance_dict)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('warnings.filterwarnings', lambda *args, **kwargs: None)
        yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()


def test_two_checkpoint_hooks_keep_the_last_and_the_best(
    tiny_config: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    cfg = Config.fromfile(tiny_config)
    cfg.train_cfg.max_epochs = 2
    cfg.default_hooks.checkpoint = {'type': 'CheckpointHook', 'interval': 1, 'max_keep_ckpts': 1}
    cfg.default_hooks.checkpoint_best = {
        'type': 'CheckpointHook',
        'interval': -1,
        'save_best': 'acc/top1',
    }
    (note,) = check_config(cfg, 'train')
    assert 'default_hooks.checkpoint_best is added' in note
    cfg.work_dir, cfg.launcher = str(tmp_path / 'work'), 'none'
    Runner.from_cfg(cfg).train()
    names = sorted(path.name for path in (tmp_path / 'work').glob('*.pth'))
    assert 'epoch_2.pth' in names and 'epoch_1.pth' not in names
    assert [name for name in names if name.startswith('best_acc_top1')]
    last = (tmp_path / 'work' / 'last_checkpoint').read_text()
    assert last.endswith('epoch_2.pth')
