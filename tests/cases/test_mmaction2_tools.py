"""W15: every shipped config runs under MMAction2's own tools, which use MMEngine's Runner."""

import inspect
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmaction
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.runner import loops as mmengine_loops
from torch.utils.data import DataLoader

from mmtimesformer.engine import TensorSharingHook

TOOLS = Path(mmaction.__file__).parent / '.mim' / 'tools'
CONFIGS = sorted((Path(__file__).parents[2] / 'configs/timesformer').glob('*.py'))
DEMO = next(path for path in CONFIGS if path.stem == 'timesformer_divST-tiny_moving-shapes')
# What MMEngine's Runner.build_dataloader takes out before it calls DataLoader.
ONE_OF_A_KIND = (
    'timesformer_divST-tiny_moving-shapes',
    'timesformer_divST_1xb8-8x16x1-20e_your-own-rgb_mix',
    'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb',
    'timesformer_divST_8xb8-u8-15e_sthv2-rgb_official',
    'pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb',
)  # the others run in make test-all
BY_MMENGINE = {'num_batch_per_epoch', 'disable_subprocess_warning', 'worker_init_fn', 'collate_fn'}
LOADER = {*inspect.signature(DataLoader.__init__).parameters, *BY_MMENGINE} - {'self'}


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('LOCAL_RANK', '0')
    scopes = dict(DefaultScope._instance_dict)
    strategy = torch.multiprocessing.get_sharing_strategy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('warnings.filterwarnings', lambda *args, **kwargs: None)
        yield
    torch.multiprocessing.set_sharing_strategy(strategy)
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()


def run(name: str, *words: object) -> None:
    """Run a file of MMAction2's tools as Python does for one that it is given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [name, *map(str, words)])
        runpy.run_path(str(TOOLS / name), run_name='__main__')


@pytest.mark.filterwarnings('ignore')
def test_mmaction2s_own_tools_train_resume_and_test_the_config_of_the_demo(
    tiny_videos: Path, tmp_path: Path
) -> None:
    def options(epochs: int) -> list[str]:
        changes = [
            f'train_cfg.max_epochs={epochs}',
            'train_cfg.val_begin=1',
            'train_cfg.val_interval=1',
            f'experiment_name={tmp_path.name}_{epochs}',
            'train_dataloader.batch_size=2',
        ]
        for loader, names in (('train', 'train'), ('val', 'val'), ('test', 'val')):
            prefix = f'{loader}_dataloader'
            changes += [
                f'{prefix}.num_workers=0',
                f'{prefix}.persistent_workers=False',
                f'{prefix}.dataset.ann_file={tiny_videos / names}.txt',
                f'{prefix}.dataset.data_prefix.video={tiny_videos}',
                f'{prefix}.dataset.metainfo.classes=a',
            ]
        return ['--work-dir', str(tmp_path), '--cfg-options', *changes]

    run('train.py', DEMO, *options(1))
    assert torch.multiprocessing.get_sharing_strategy() == 'file_system'
    run('train.py', DEMO, '--resume', '--auto-scale-lr', *options(2))
    assert (tmp_path / 'epoch_2.pth').is_file()
    dump = tmp_path / 'result.pkl'
    run('test.py', DEMO, tmp_path / 'epoch_2.pth', '--dump', dump, *options(3))
    assert dump.is_file()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'path',
    [
        pytest.param(path, marks=() if path.stem in ONE_OF_A_KIND else pytest.mark.slow)
        for path in CONFIGS
    ],
    ids=lambda path: path.stem,
)
def test_mmengines_runner_accepts_every_shipped_config(path: Path, tmp_path: Path) -> None:
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(
        {
            'model.backbone.embed_dims': 16,
            'model.backbone.num_layers': 1,
            'model.backbone.num_heads': 2,
            'model.backbone.init_cfg': None,
            'model.cls_head.in_channels': 16,
            'experiment_name': tmp_path.name,
            'work_dir': str(tmp_path),
            'launcher': 'none',
        }
    )
    runner = Runner.from_cfg(cfg)
    with torch.device('meta'):
        runner.build_optim_wrapper(cfg.optim_wrapper)


def _arguments(kind: type) -> set[str]:
    return {*inspect.signature(kind.__init__).parameters, 'type'}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_no_shipped_config_has_a_key_that_only_our_runner_reads(path: Path) -> None:
    cfg: Any = Config.fromfile(path)
    for stage in ('train', 'val', 'test'):
        assert set(cfg[f'{stage}_dataloader']) <= LOADER, stage
    loops = {
        'train': mmengine_loops.EpochBasedTrainLoop,
        'val': mmengine_loops.ValLoop,
        'test': mmengine_loops.TestLoop,
    }
    for stage, loop in loops.items():
        assert set(cfg[f'{stage}_cfg']) <= _arguments(loop), stage
        assert cfg[f'{stage}_cfg'].type == loop.__name__
    assert set(cfg.auto_scale_lr) == {'enable', 'base_batch_size'}
    assert set(cfg.env_cfg) <= {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}
    assert set(cfg.env_cfg.mp_cfg) <= {'mp_start_method', 'opencv_num_threads'}


def test_the_demo_still_hands_clips_over_by_name() -> None:
    hook = Config.fromfile(DEMO).default_hooks.tensor_sharing
    assert hook == {'type': 'mmtimesformer.TensorSharingHook', 'strategy': 'file_system'}


def test_a_sharing_strategy_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="strategy='by_name' is not one of .*file_system"):
        TensorSharingHook('by_name')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_limited_views_go_with_one_video_in_a_batch(path: Path) -> None:
    """MMAction2's recognizer asserts it, at the first validation and at the test."""
    cfg: Any = Config.fromfile(path)
    if (cfg.model.get('test_cfg') or {}).get('max_testing_views'):
        assert cfg.val_dataloader.batch_size == cfg.test_dataloader.batch_size == 1


# One of each schedule, protocol, data set and model among the _base_ files.
FAMILIES = (
    'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb',
    'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_official',
    'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_paddle',
    'pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb',
    'timesformer-vit-large-p16_divST_8xb8-8x32x1-15e_kinetics400-rgb',
    'timesformer-vit-huge-p14_divST_8xb8-8x32x1-15e_kinetics400-rgb',
    'timesformer_divST_8xb8-8x32x1-15e_kinetics600-rgb_official',
    'timesformer_divST_8xb8-u8-15e_sthv2-rgb_official',
    'timesformer_divST_8xb8-8x32x1-15e_diving48-rgb_official',
    'timesformer_divST_8xb8-8x32x1-15e_howto100m-rgb_official',
    'timesformer_divST_1xb8-8x16x1-20e_ucf101-split1-rgb',
    'timesformer_divST_1xb8-8x8x1-20e_hmdb51-split1-rgb',
    'timesformer_divST_1xb8-8x16x1-20e_your-own-rgb',
)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', FAMILIES)
def test_mmaction2s_own_tools_train_and_test_one_config_of_each_family(
    name: str, tiny_videos: Path, tmp_path: Path
) -> None:
    """One epoch of a small model on four videos; the pipelines are those of the config."""
    path = DEMO.with_name(f'{name}.py')
    heads = 4 if 'huge' not in name else 2
    changes = [
        f'experiment_name={tmp_path.name}',
        'model.backbone.embed_dims=32',
        'model.backbone.num_layers=1',
        f'model.backbone.num_heads={heads}',
        'model.backbone.init_cfg=None',
        'model.cls_head.in_channels=32',
        'train_cfg.max_epochs=1',
        'train_cfg.val_begin=1',
        'train_cfg.val_interval=1',
        'env_cfg.dist_cfg.backend=gloo',
        'load_from=None',
        'train_dataloader.batch_size=2',
    ]
    for loader, names in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        prefix = f'{loader}_dataloader'
        changes += [
            f'{prefix}.num_workers=0',
            f'{prefix}.persistent_workers=False',
            f'{prefix}.dataset.ann_file={tiny_videos / names}.txt',
            f'{prefix}.dataset.data_prefix.video={tiny_videos}',
            f'{prefix}.dataset.metainfo.classes=a',
        ]
    options = ['--cfg-options', *changes]
    run('train.py', path, '--work-dir', tmp_path, *options)
    dump = tmp_path / 'result.pkl'
    test = ['--dump', dump, '--work-dir', tmp_path / 'test', *options]
    run('test.py', path, tmp_path / 'epoch_1.pth', *test)
    assert dump.is_file()


@pytest.mark.filterwarnings('ignore')
def test_their_grad_cam_has_no_feature_map_here(tiny_videos: Path, tmp_path: Path) -> None:
    """docs/openmmlab.md sends its users to visualize_attention; a repair upstream is noticed."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(Config.fromfile(DEMO).model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'weights.pth')
    options = ['--target-layer-name', 'backbone/blocks/1/norm1', '--device', 'cpu']
    out = ['--out-filename', tmp_path / 'cam.gif']
    video = tiny_videos / '0.mp4'
    with pytest.raises(ValueError, match='not enough values to unpack'):
        run('visualizations/vis_cam.py', DEMO, tmp_path / 'weights.pth', video, *options, *out)
