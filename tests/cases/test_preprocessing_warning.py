"""W10: weights that a config feeds with other clips or pixels than they know give a warning.

For every protocol, and for none of its own weights in its own config.
"""

import copy
import json
import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints import convert_state_dict, read_checkpoint, read_model_checkpoint
from mmtimesformer.checkpoints.metadata import (
    CROPS,
    RESIZES,
    SAMPLERS,
    ModelMetadata,
    Preprocessing,
    differences,
    metadata_of_config,
    metadata_of_pipeline,
    read_literals,
)

CONFIGS = sorted((Path(__file__).parents[2] / 'configs' / 'timesformer').glob('*.py'))
OFFICIAL = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_official'
STAGES = ('train', 'val', 'test')
# Transforms of shipped configs that change neither which frames there are nor their size
NEITHER = {
    'AppendChannels', 'Flip', 'FormatClips', 'FormatShape', 'PackActionInputs', 'ToGrey',
    'VideoDecode', 'VideoInit',
}  # fmt: skip
every_config = pytest.mark.parametrize('name', [path.stem for path in CONFIGS])


@cache
def read(name: str) -> Config:
    return Config.fromfile(CONFIGS[0].with_name(f'{name}.py'), format_python_code=False)


@pytest.fixture(autouse=True)
def _mmaction_scope() -> Iterator[None]:
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        yield


# -- a pipeline does what its preprocessing states ------------------------------------------------


def shipped_pipelines() -> dict[str, list[dict[str, Any]]]:
    """Every pipeline of every shipped config, each once."""
    found = {}
    for path in CONFIGS:
        for stage in STAGES:
            pipeline = read(path.stem)[f'{stage}_dataloader'].dataset.pipeline
            found.setdefault(json.dumps(pipeline), (f'{path.stem} {stage}', pipeline))
    return dict(found.values())


SHIPPED = shipped_pipelines()
OTHERS = {
    'dense': [
        dict(type='DenseSampleFrames', clip_len=4, frame_interval=3, num_clips=2),
        dict(type='Resize', scale=(-1, 64)),
        dict(type='TenCrop', crop_size=48),
    ],
    'untrimmed': [
        dict(type='UntrimmedSampleFrames', clip_len=4, frame_interval=3),
        dict(type='CenterCrop', crop_size=(48, 32)),
    ],
    'defaults': [
        dict(type='SampleFrames', clip_len=4),
        dict(type='RandomResizedCrop'),
        dict(type='Resize', scale=(48, 32), keep_ratio=False),
    ],
    'uniform': [
        dict(type='UniformSample', clip_len=4),
        dict(type='MultiScaleCrop', input_size=48),
        dict(type='Resize', scale=(48, 48), keep_ratio=False),
    ],
    'uniform, as for poses': [
        dict(type='mmaction.UniformSampleFrames', clip_len=4),
        dict(type='Resize', scale=(-1, 120)),
        dict(type='ThreeCrop', crop_size=120),
        dict(type='Resize', scale=(-1, 60)),
    ],
    'a crop resized by a factor': [
        dict(type='mmtimesformer.SegmentSampleFrames', clip_len=4),
        dict(type='CenterCrop', crop_size=48),
        dict(type='Resize', scale=0.5),
        dict(type='mmtimesformer.ShortSideResize', size=32),
    ],
    'no crop': [
        dict(type='mmtimesformer.WindowSampleFrames', clip_len=4, frame_interval=3),
        dict(type='Resize', scale=(-1, 64)),
    ],
}


@pytest.mark.parametrize('name', [*SHIPPED, *OTHERS])
def test_what_a_pipeline_says_is_what_it_does(name: str) -> None:
    from mmaction.registry import TRANSFORMS

    pipeline = {**SHIPPED, **OTHERS}[name]
    clip_metadata = metadata_of_pipeline(pipeline)
    kinds = [step['type'].rpartition('.')[2] for step in pipeline]
    (sampler,) = (step for kind, step in zip(kinds, pipeline, strict=True) if kind in SAMPLERS)
    video: dict[str, Any] = {'total_frames': 2000, 'avg_fps': 30.0, 'start_index': 0}
    sampled = TRANSFORMS.build(copy.deepcopy(sampler))({**video, 'frame_dir': '', 'filename': ''})
    if sampled.get('clip_len') is not None:
        assert clip_metadata.num_frames == sampled['clip_len']
    if clip_metadata.sampling == 'segments':
        assert clip_metadata.frame_interval is None
        assert np.ptp(sampled['frame_inds']) > 2000 * (1 - 2 / sampler['clip_len']) - 1
    else:
        assert clip_metadata.frame_interval == sampled['frame_interval']

    frames = [np.zeros((360, 640, 3), np.uint8)] * 2
    clip = {'imgs': frames, 'img_shape': (360, 640), 'modality': 'RGB', 'num_clips': 1}
    for kind, step in zip(kinds, pipeline, strict=True):
        if kind in CROPS or kind in RESIZES:
            clip = TRANSFORMS.build(copy.deepcopy(step))(clip)
    height, width = clip['imgs'][0].shape[:2]
    if 'no crop' in name:
        assert clip_metadata.size is None
    else:
        assert clip_metadata.size == (height if height == width else (height, width))


@every_config
def test_every_transform_of_a_shipped_config_is_known(name: str) -> None:
    """A new one belongs into a table of ``metadata``, or into the list of this file."""
    known = {*SAMPLERS, *CROPS, *RESIZES, *NEITHER}
    for stage in STAGES:
        for step in read(name)[f'{stage}_dataloader'].dataset.pipeline:
            assert step['type'].rpartition('.')[2] in known, step


def test_the_transforms_that_run_are_read() -> None:
    """The data loader's own, also inside of a wrapper or of another transform; not the name."""
    other = [dict(type='SampleFrames', clip_len=5)]
    for config in (
        {'test_dataloader': {'dataset': {'pipeline': other}}, 'test_pipeline': []},
        {'test_dataloader': {'dataset': {'dataset': {'pipeline': other}}}},
        {'val_dataloader': {'dataset': {'pipeline': other}}, 'test_dataloader': None},
        {'train_pipeline': [dict(type='mmtimesformer.RepeatClips', transforms=other)]},
        {'data': {'test': {'pipeline': other}}},
    ):
        assert metadata_of_config(config).preprocessing == Preprocessing(
            num_frames=5, frame_interval=1
        )


def test_pixels_that_are_not_normalised_are_read_as_they_are() -> None:
    preprocessor = {'type': 'ActionDataPreprocessor', 'format_shape': 'NCTHW'}
    found = metadata_of_config({'model': {'data_preprocessor': preprocessor}})
    assert found.preprocessing.mean == [0] * 3
    assert found.preprocessing.std == pytest.approx([1 / 255] * 3, abs=1e-6)
    old = [dict(type='Normalize', mean=[127.5] * 3, std=[127.5] * 3, to_bgr=True)]
    assert metadata_of_config({'test_pipeline': old}).preprocessing == Preprocessing(
        [0.5] * 3, [0.5] * 3, 'BGR'
    )


# -- weights of their own and of others ------------------------------------------------------------

# What the published files of the official code say; SAMPLING_RATE stands there for SSv2 as well
YAML = """
TRAIN: {{DATASET: {dataset}, BATCH_SIZE: 8}}
DATA: {{MEAN: [0.45, 0.45, 0.45], STD: [0.225, 0.225, 0.225], NUM_FRAMES: {frames},
       SAMPLING_RATE: {interval}, TEST_CROP_SIZE: {size}, REVERSE_INPUT_CHANNEL: false}}
TIMESFORMER: {{ATTENTION_TYPE: {attention}}}
"""


def weights_of(cfg: Config) -> dict[str, torch.Tensor]:
    """Weights of a config's clips and classes, of width 12 and one block."""
    backbone, scheme = cfg.model.backbone, cfg.model.backbone.attention_type
    model = TimeSformer(
        num_frames=backbone.num_frames,
        img_size=backbone.img_size,
        patch_size=backbone.patch_size,
        qkv_bias=backbone.get('qkv_bias', True),
        attention_type=scheme,
        embed_dims=12,
        num_layers=1,
        num_heads=12,
    )
    classes = cfg.model.cls_head.num_classes
    head = {'head.weight': torch.zeros(classes, 12), 'head.bias': torch.zeros(classes)}
    return {**model.state_dict(), **head}


def own_checkpoint(name: str, folder: Path) -> Path:
    """A file of the system that a config is of, as that system publishes it."""
    cfg = read(name)
    weights, path = weights_of(cfg), folder / 'weights'
    if 'paddle' in cfg.get('protocol', ''):
        arrays = {}
        for key, tensor in weights.items():
            array = tensor.numpy().T if tensor.ndim == 2 else tensor.numpy()
            key = f'head.fc.{key[5:]}' if key.startswith('head.') else f'backbone.{key}'
            arrays[key] = np.ascontiguousarray(array)
        path.write_bytes(pickle.dumps(arrays, protocol=4))
    elif 'official' in cfg.get('protocol', ''):
        sample = cfg.test_pipeline[1]
        text = YAML.format(
            dataset='ssv2' if 'sthv2' in name else 'kinetics',
            frames=sample.clip_len,
            interval=sample.get('frame_interval', 8),
            size=cfg.model.backbone.img_size,
            attention=cfg.model.backbone.attention_type,
        )
        state = {f'model.{key}': tensor for key, tensor in weights.items()}
        torch.save({'model_state': state, 'cfg': text}, path)
    else:
        state = {
            f'cls_head.fc_cls.{key[5:]}' if key.startswith('head.') else f'backbone.{key}': tensor
            for key, tensor in weights.items()
        }
        torch.save({'meta': {'cfg': cfg.pretty_text}, 'state_dict': state}, path)
    return path


@every_config
def test_weights_of_a_config_give_no_warning_in_it(name: str, tmp_path: Path) -> None:
    metadata = read_checkpoint(own_checkpoint(name, tmp_path)).describe()
    for key in ('mean', 'std', 'num_frames', 'frame_interval', 'size'):
        assert getattr(metadata.preprocessing, key) is not None, key
    assert differences(metadata, metadata_of_config(read(name))) == []


@every_config
def test_a_training_gives_no_warning_when_its_checkpoint_is_tested(name: str) -> None:
    cfg = read(name)
    assert (
        differences(metadata_of_config(read_literals(cfg.pretty_text)), metadata_of_config(cfg))
        == []
    )


def clip_of(name: str) -> dict[str, Any]:
    """What a config's test feeds, read off by position: steps 1, 3 and 4 sample, resize, crop."""
    cfg = read(name)
    sample, crop = cfg.test_pipeline[1], cfg.test_pipeline[4]
    preprocessor = cfg.model.data_preprocessor
    return {
        'mean': preprocessor.mean,
        'std': preprocessor.std,
        'channel_order': preprocessor.to_rgb,
        'sampling': 'Segment' in sample.type,
        'num_frames': sample.clip_len,
        'frame_interval': sample.get('frame_interval'),
        'size': crop.crop_size,
    }


# Their clips have other channels, and other steps in these places.
OTHER_CHANNELS = ('-grey', '-depth')
NAMED = [
    path.stem
    for path in CONFIGS
    if 'tiny' not in path.stem and not path.stem.endswith(OTHER_CHANNELS)
]


@pytest.mark.parametrize(
    'own',
    [
        OFFICIAL,
        'timesformer_divST_8xb8-u8-15e_sthv2-rgb_official',
        'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb',
        'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_paddle',
        'pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb',
    ],
)
def test_weights_in_any_other_config_give_a_warning_for_each_difference(
    own: str, tmp_path: Path
) -> None:
    metadata = read_checkpoint(own_checkpoint(own, tmp_path)).describe()
    mine = clip_of(own)
    for name in NAMED:
        theirs = clip_of(name)
        expected = [key for key in mine if mine[key] != theirs[key]]
        if mine['sampling'] != theirs['sampling']:
            expected.remove('frame_interval')
        found = differences(metadata, metadata_of_config(read(name)))
        assert [warning.partition(':')[0] for warning in found] == expected, name


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        (
            'timesformer_divST-L_8xb1-96x4x1-15e_kinetics400-rgb_official',
            [
                'num_frames: the checkpoint was trained with 8, the config gives 96',
                'frame_interval: the checkpoint was trained with 32, the config gives 4',
            ],
        ),
        (
            'timesformer_divST-HR_8xb1-16x16x1-15e_kinetics400-rgb_official',
            [
                'num_frames: the checkpoint was trained with 8, the config gives 16',
                'frame_interval: the checkpoint was trained with 32, the config gives 16',
                'size: the checkpoint was trained with 224, the config gives 448',
            ],
        ),
        (
            'timesformer_divST_8xb8-u8-15e_sthv2-rgb_official',
            [
                'channel_order: the checkpoint was trained with RGB, the config gives BGR',
                'sampling: the checkpoint was trained with frames 32 apart, the config gives one '
                'frame of each segment of the video',
            ],
        ),
        (OFFICIAL, []),
    ],
)
def test_loading_by_the_runner_logs_the_warnings(
    name: str, expected: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    from mmaction.registry import MODELS

    from mmtimesformer.engine import AdaptCheckpointHook

    cfg = copy.deepcopy(read(name))
    cfg.model.backbone.update(embed_dims=12, num_layers=1, num_heads=12, init_cfg=None)
    cfg.model.cls_head.update(in_channels=12)
    model = MODELS.build(cfg.model)
    runner = SimpleNamespace(
        model=model,
        cfg=cfg,
        logger=logging.getLogger('warned'),
        _resume=False,
        _train_loop=None,
        _val_loop=None,
        _test_loop=None,
    )
    checkpoint = read_model_checkpoint(own_checkpoint(OFFICIAL, tmp_path))
    with caplog.at_level(logging.WARNING, logger='warned'):
        AdaptCheckpointHook().after_load_checkpoint(runner, checkpoint)
    found = [record.message.removeprefix('Checkpoint: ') for record in caplog.records]
    assert [text for text in found if 'newly initialized' not in text] == expected


def test_weights_without_a_config_give_the_warnings_of_their_system(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MMAction2's names alone give MMAction2's mean and std, and the embeddings the clip."""
    import logging

    from mmaction.registry import MODELS

    from mmtimesformer.engine import AdaptCheckpointHook

    cfg = copy.deepcopy(read(OFFICIAL))
    cfg.model.backbone.update(embed_dims=12, num_layers=1, num_heads=12, init_cfg=None)
    cfg.model.backbone.num_frames = 16
    cfg.model.cls_head.update(in_channels=12)
    for pipeline in (cfg.test_pipeline, cfg.test_dataloader.dataset.pipeline):
        pipeline[1].clip_len = 16
    state, _ = convert_state_dict(weights_of(read(OFFICIAL)), 'mmaction2')
    runner = SimpleNamespace(
        model=MODELS.build(cfg.model),
        cfg=cfg,
        logger=logging.getLogger('w'),
        _resume=False,
        _train_loop=None,
        _val_loop=None,
        _test_loop=None,
    )
    with caplog.at_level(logging.WARNING, logger='w'):
        AdaptCheckpointHook().after_load_checkpoint(runner, {'state_dict': state})
    found = [record.message.removeprefix('Checkpoint: ') for record in caplog.records]
    assert [text.partition(':')[0] for text in found] == ['mean', 'std', 'num_frames']


def test_a_conversion_to_another_clip_is_for_that_clip(tmp_path: Path) -> None:
    path = own_checkpoint(OFFICIAL, tmp_path)
    metadata = read_checkpoint(path, num_frames=16, img_size=448).describe()
    assert (metadata.preprocessing.num_frames, metadata.preprocessing.size) == (16, 448)
    asked = metadata_of_config(
        read('timesformer_divST-HR_8xb1-16x16x1-15e_kinetics400-rgb_official')
    )
    assert differences(metadata, asked) == [
        'frame_interval: the checkpoint was trained with 32, the config gives 16'
    ]


def test_hostile_values_are_neither_compared_nor_shown() -> None:
    endless: list[Any] = []
    endless.append(endless)
    asked = metadata_of_config(read(OFFICIAL))
    for value in (endless, {'a': endless}, 10**5000, float('nan'), 'x' * 10**6, '\x1b[31m', b'x'):
        stored = dict.fromkeys(vars(asked.preprocessing), value)
        hostile = ModelMetadata.parse({'preprocessing': stored, 'norm_eps': value})
        assert differences(hostile, asked) == []
    assert differences(ModelMetadata.parse({'preprocessing': endless}), asked) == []
    text = (
        'test_pipeline = [dict(type="CenterCrop", crop_size=8), dict(type="Resize", scale=1e999)]'
    )
    assert metadata_of_config(read_literals(text)).preprocessing == Preprocessing()
