"""Protocols differ where the systems differ, and nowhere else; docs/protocols.md lists how."""

import copy
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
BASES = sorted((CONFIGS / '_base_' / 'protocols').glob('*.py'))
PAGE = ROOT / 'docs' / 'protocols.md'
DIVIDED = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb'
FINAL = [path.stem for path in sorted(CONFIGS.glob('timesformer/*-rgb*.py'))]


@cache
def final(name: str) -> Config:
    return Config.fromfile(CONFIGS / 'timesformer' / f'{name}.py')


def base(name: str) -> Config:
    return Config.fromfile(CONFIGS / '_base_' / 'protocols' / f'{name}.py')


@pytest.fixture
def mmaction_scope() -> Any:
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        yield


# The values of MMAction2's published config.
OPEN = [dict(type='mmtimesformer.VideoInit')]
SAMPLE = dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=32, num_clips=1)
DECODE = [dict(type='mmtimesformer.VideoDecode')]
# In the place of FormatShape(input_format='NCTHW'), of which it gives the array.
PACK = [dict(type='mmtimesformer.FormatClips'), dict(type='mmaction.PackActionInputs')]
MMACTION2 = {
    'train': [
        *OPEN, SAMPLE, *DECODE,
        dict(type='mmaction.RandomRescale', scale_range=(256, 320)),
        dict(type='mmaction.RandomCrop', size=224),
        dict(type='mmaction.Flip', flip_ratio=0.5),
        *PACK,
    ],
    'val': [
        *OPEN, {**SAMPLE, 'test_mode': True}, *DECODE,
        dict(type='mmaction.Resize', scale=(-1, 256)),
        dict(type='mmaction.CenterCrop', crop_size=224),
        *PACK,
    ],
    'test': [
        *OPEN, {**SAMPLE, 'test_mode': True}, *DECODE,
        dict(type='mmaction.Resize', scale=(-1, 224)),
        dict(type='mmaction.ThreeCrop', crop_size=224),
        *PACK,
    ],
}  # fmt: skip


@pytest.mark.parametrize('scheme', ['divST', 'jointST', 'spaceOnly'])
def test_the_mmaction2_configs_hold_what_that_system_publishes(scheme: str) -> None:
    cfg = final(DIVIDED.replace('divST', scheme)).to_dict()
    assert cfg['protocol'] == 'mmaction2'
    for stage, batch_size in (('train', 8), ('val', 8), ('test', 1)):
        loader = cfg[f'{stage}_dataloader']
        loader['dataset'].pop('metainfo', None)  # names of classes are no part of a protocol
        assert cfg[f'{stage}_pipeline'] == MMACTION2[stage]
        assert loader == {
            'batch_size': batch_size,
            'num_workers': 8,
            'persistent_workers': True,
            'sampler': dict(type='DefaultSampler', shuffle=stage == 'train'),
            'dataset': {
                'type': 'mmtimesformer.VideoDataset',
                'ann_file': 'data/kinetics400/kinetics400_'
                f'{"train" if stage == "train" else "val"}_list_videos.txt',
                'data_prefix': dict(
                    video=f'data/kinetics400/videos_{"train" if stage == "train" else "val"}'
                ),
                'pipeline': MMACTION2[stage],
                **({} if stage == 'train' else {'test_mode': True}),
            },
        }
    assert cfg['model']['cls_head'] == dict(
        type='mmaction.TimeSformerHead', num_classes=400, in_channels=768, average_clips='prob'
    )
    assert cfg['model']['data_preprocessor'] == dict(
        type='mmaction.ActionDataPreprocessor',
        mean=[127.5] * 3,
        std=[127.5] * 3,
        to_rgb=False,
        format_shape='NCTHW',
    )
    assert cfg['optim_wrapper'] == dict(
        optimizer=dict(type='SGD', lr=0.005, momentum=0.9, weight_decay=1e-4, nesterov=True),
        clip_grad=dict(max_norm=40, norm_type=2),
    )
    assert cfg['param_scheduler'][0]['milestones'] == [5, 10]
    assert cfg['custom_imports']['imports'] == ['mmtimesformer']


def test_the_official_config_differs_in_protocol_and_schedule_alone() -> None:
    ours, official = final(DIVIDED), final(f'{DIVIDED}_official')
    assert official.param_scheduler[0].milestones == [11, 14]
    assert official.param_scheduler[0].gamma == 0.1
    assert 'clip_grad' not in official.optim_wrapper
    assert official.optim_wrapper.optimizer == ours.optim_wrapper.optimizer
    assert official.model.backbone == ours.model.backbone
    assert official.default_hooks.checkpoint.save_best is None
    same = {key for key in ours.keys() & official.keys() if ours[key] == official[key]}
    assert ours.keys() ^ official.keys() == set()
    assert ours.keys() - same == {
        'protocol', 'data_preprocessor', 'fusion', 'model', 'optim_wrapper', 'param_scheduler',
        'custom_imports', 'default_hooks', *(f'{s}_pipeline' for s in ('train', 'val', 'test')),
        *(f'{s}_dataloader' for s in ('train', 'val', 'test')),
    }  # fmt: skip


@pytest.mark.parametrize('path', BASES, ids=lambda path: path.stem)
def test_a_base_sets_everything_of_a_protocol(path: Path) -> None:
    cfg = Config.fromfile(path)
    assert set(cfg) == {
        'protocol', 'data_preprocessor', 'fusion',
        'train_pipeline', 'val_pipeline', 'test_pipeline',
    }  # fmt: skip
    assert cfg.fusion.average_clips in ('prob', 'score', 'sum')
    assert 'to_rgb' in cfg.data_preprocessor, 'the order of colors is set, not left to a default'
    names = [Config.fromfile(other).protocol for other in BASES]
    assert names.count(cfg.protocol) == 1


def test_paddle_differs_from_official_in_crops_and_fusion_alone() -> None:
    official, paddle = base('kinetics_official'), base('kinetics_paddle')
    assert {key for key in official if official[key] != paddle[key]} == {
        'protocol', 'fusion', 'test_pipeline',
    }  # fmt: skip
    pairs = zip(official.test_pipeline, paddle.test_pipeline, strict=True)
    assert [(a.type, b.type) for a, b in pairs if a != b] == [
        ('mmtimesformer.UniformCrops', 'mmaction.ThreeCrop')
    ]


@pytest.mark.parametrize('name', FINAL)
def test_a_config_puts_its_protocol_to_work(name: str) -> None:
    """Nothing of a base may be left lying at the top while the run does something else."""
    cfg = final(name)
    for stage in ('train', 'val', 'test'):
        assert cfg[f'{stage}_dataloader'].dataset.pipeline == cfg[f'{stage}_pipeline'], stage
    for key, value in cfg.data_preprocessor.items():
        assert cfg.model.data_preprocessor[key] == value, key
    for key, value in cfg.fusion.items():
        assert cfg.model.cls_head[key] == value, key
    if cfg.model.cls_head.type.startswith('mmtimesformer.'):
        assert 'mmtimesformer.heads' in cfg.custom_imports.imports


@pytest.mark.parametrize('path', BASES, ids=lambda path: path.stem)
def test_steps_1_3_and_4_sample_resize_and_crop(path: Path) -> None:
    """Configs with other clips change these three by their numbers."""
    cfg = Config.fromfile(path)
    for stage in ('train', 'val', 'test'):
        sample, resize, crop = (cfg[f'{stage}_pipeline'][i].type for i in (1, 3, 4))
        assert sample.endswith('SampleFrames')
        assert re.search('Resize|Rescale|ShortSide', resize)
        assert re.search('Crops?$', crop)


def documented(title: str, tmp_path: Path) -> Config:
    """Read a config printed on the page, as if it lay in configs/timesformer."""
    text = PAGE.read_text().partition(f'# {title}')[2].partition('```')[0]
    text = text.replace("_base_ = '", f"_base_ = '{CONFIGS}/timesformer/")
    path = tmp_path / 'printed.py'
    path.write_text(text)
    return Config.fromfile(path)


def test_the_printed_config_takes_other_clips(tmp_path: Path) -> None:
    cfg = documented('16 frames, 16 apart, of 448 x 448 pixels', tmp_path)
    assert (cfg.model.backbone.num_frames, cfg.model.backbone.img_size) == (16, 448)
    for stage, resize, crop in (
        ('train', dict(scale_range=(448, 512)), dict(size=448)),
        ('test', dict(size=448), dict(crop_size=448, num_crops=3)),
    ):
        steps = cfg[f'{stage}_dataloader'].dataset.pipeline
        assert steps == cfg[f'{stage}_pipeline']
        assert (steps[1].clip_len, steps[1].frame_interval) == (16, 16)
        assert {k: v for k, v in steps[3].items() if k != 'type'} == resize
        assert {k: v for k, v in steps[4].items() if k != 'type'} == crop
    assert cfg.val_dataloader.dataset.pipeline == cfg.train_pipeline
    official = final(f'{DIVIDED}_official')
    assert [step.type for step in cfg.test_pipeline] == [s.type for s in official.test_pipeline]


@pytest.mark.parametrize('path', BASES, ids=lambda path: path.stem)
def test_three_crops_of_a_video_reach_the_model(
    path: Path, tiny_videos: Path, mmaction_scope: None
) -> None:
    from mmengine.dataset import Compose

    cfg = Config.fromfile(path)
    video = {
        'filename': str(tiny_videos / '0.mp4'),
        'label': 0,
        'start_index': 0,
        'modality': 'RGB',
    }
    for stage, views in (('train', 1), ('val', 1), ('test', 3)):
        seen = Compose(cfg[f'{stage}_pipeline'])(dict(video))['inputs']
        assert seen.shape == (views, 3, 8, 224, 224), stage
        whole = 'mmaction2' in path.stem
        assert (seen.dtype == torch.uint8) == whole, 'only MMAction2 rounds to whole colours'


@pytest.mark.parametrize('path', BASES, ids=lambda path: path.stem)
def test_the_order_of_colors_is_the_configured_one(path: Path, mmaction_scope: None) -> None:
    from mmaction.registry import MODELS

    red = torch.zeros(1, 3, 2, 4, 4)
    red[:, 0] = 255
    preprocess = MODELS.build(Config.fromfile(path).data_preprocessor)
    seen = preprocess({'inputs': [red], 'data_samples': None})['inputs'].flatten(3)
    brightest = seen.mean(-1).argmax().item()
    assert brightest == (2 if path.stem == 'ssv2_official' else 0)
    ranges = {'kinetics_mmaction2': (-1, 1), 'kinetics_pp-paddle': (0, 1)}
    low, high = ranges.get(path.stem, (-2, 0.55 / 0.225))
    assert (seen.min().item(), seen.max().item()) == pytest.approx((low, high))


def index_table() -> str:
    """The frames that each protocol takes in a test, by its own sampler."""
    from mmaction.registry import TRANSFORMS

    rows = ['| frames of the video | protocol | frames of the clip |', '|---|---|---|']
    for length, fps in ((300, 30), (250, 25), (600, 60), (100, 30), (1, 30)):
        for path in BASES:
            cfg = Config.fromfile(path)
            sample = TRANSFORMS.build(cfg.test_pipeline[1])
            taken = sample(dict(total_frames=length, avg_fps=fps, start_index=0))['frame_inds']
            frames = ' '.join(map(str, np.asarray(taken).tolist()))
            rows.append(f'| {length}, {fps} a second | {cfg.protocol} | {frames} |')
    return '\n'.join(rows)


def test_the_page_prints_the_frames_that_our_code_takes(mmaction_scope: None) -> None:
    table = index_table()
    assert table in PAGE.read_text(), f'docs/protocols.md should have\n\n{table}\n'


def test_the_page_describes_every_protocol() -> None:
    text = PAGE.read_text()
    for path in BASES:
        assert f'`{path.name}`' in text
        assert f'`{Config.fromfile(path).protocol}`' in text


def test_a_test_by_the_tool_names_and_stores_the_protocol(
    tiny_videos: Path, tmp_path: Path, mmaction_scope: None
) -> None:
    from mmaction.registry import MODELS

    cfg = copy.deepcopy(final(f'{DIVIDED}_official'))
    cfg.model.backbone.update(
        num_frames=2, img_size=32, embed_dims=24, num_layers=1, num_heads=2, init_cfg=None
    )
    cfg.model.cls_head.update(in_channels=24)
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, tmp_path / 'weights.pth')
    options = [
        'model.backbone.num_frames=2', 'model.backbone.img_size=32', 'model.backbone.embed_dims=24',
        'model.backbone.num_layers=1', 'model.backbone.num_heads=2', 'model.backbone.init_cfg=None',
        'model.cls_head.in_channels=24', 'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        f'test_dataloader.dataset.ann_file={tiny_videos}/val.txt',
        f'test_dataloader.dataset.data_prefix.video={tiny_videos}',
        'test_dataloader.dataset.pipeline.1.clip_len=2',
        'test_dataloader.dataset.pipeline.1.num_clips=2',
        'test_dataloader.dataset.pipeline.3.size=32',
        'test_dataloader.dataset.pipeline.4.crop_size=32',
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'test.py', f'{DIVIDED}_official', 'weights.pth', '--dump',
         'result.pkl', '--work-dir', 'work', '--cfg-options', *options],
        cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    protocol = 'Protocol: official; 2 clips x 3 crops, sum of logits'
    assert re.search(rf'acc/top1: .*\n.*{protocol}', printed)
    metadata = json.loads((tmp_path / 'result.meta.json').read_text())
    assert metadata['protocol'] == 'official'
    assert metadata['views'] == {'clips': 2, 'crops': 3}
    assert metadata['videos'] == 3
    assert metadata['checkpoint'] == 'weights.pth'
    assert 0 <= metadata['scores']['acc/top1'] <= 1
