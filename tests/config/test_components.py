"""Mistakes in a config are named with their key before the run, and the check has no effects."""

import logging
import random
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import mmaction
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.visualization import Visualizer

from mmtimesformer.config import components
from mmtimesformer.config.components import check_components
from mmtimesformer.config.find import shipped_configs
from mmtimesformer.config.validate import check_sections

RECOGNITION = Path(mmaction.__file__).parent / '.mim/configs/recognition'
TINY = 'timesformer_divST-tiny_moving-shapes'


@pytest.fixture(scope='module')
def tiny() -> Any:
    return Config.fromfile(shipped_configs()[TINY])


def changed(config: Any, **options: Any) -> Any:
    cfg = Config(config.to_dict())
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


@pytest.mark.parametrize('name', sorted(shipped_configs()))
def test_every_shipped_config_passes(name: str) -> None:
    cfg = Config.fromfile(shipped_configs()[name])
    cfg.pop('load_from', None)
    check_sections(cfg)
    for purpose in ('train', 'test'):
        check_components(cfg, purpose)


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        ('model__backbone__num_framez', 3, "num_framez: TimeSformer .*mean 'num_frames'"),
        ('model__backbone__type', 'mmtimesformer.TimesFormer', 'no model named .*model.backbone'),
        ('model__backbone__num_frames', '8', "num_frames='8' is text; TimeSformer wants a number"),
        (
            'model__backbone__attention_type',
            3,
            'model.backbone: attention_type=3 is not known; .*divid',
        ),
        ('model__cls_head__num_clases', 3, "model.cls_head.num_clases: .*mean 'num_classes'"),
        ('model__data_preprocessor__men', [0.0], "data_preprocessor.men: .*mean 'mean'"),
        ('train_dataloader__num_worker', 2, "train_dataloader.num_worker: .*mean 'num_workers'"),
        ('train_dataloader__sampler__shufle', True, "sampler.shufle: .*mean 'shuffle'"),
        ('train_dataloader__dataset__anfile', 'a', "dataset.anfile: .*mean 'ann_file'"),
        ('train_dataloader__dataset__pipeline__1__clip_length', 8, 'pipeline.1.clip_length: '),
        ('train_dataloader__dataset__pipeline__3__type', 'RandomCropp', "mean 'RandomCrop'"),
        ('val_dataloader__dataset__pipeline__3__scales', 8, "pipeline.3.scales: .*mean 'scale'"),
        ('val_evaluator__metric_option', {}, "metric_option: .*mean 'metric_options'"),
        ('train_cfg__max_epoch', 3, "train_cfg.max_epoch: .*mean 'max_epochs'"),
        ('train_cfg__type', 'EpochBasedLoop', 'no loop named .*EpochBasedTrainLoop'),
        ('default_hooks__logger__intervall', 3, "hooks.logger.intervall: .*mean 'interval'"),
        ('default_hooks__checkpoint__intervall', 3, "checkpoint.intervall: .*mean 'interval'"),
        ('custom_hooks', [{'type': 'EmaHook'}], 'custom_hooks.0.type'),
        ('custom_hooks', [{'type': 'EMAHook', 'begin_iters': 3}], 'custom_hooks.0.begin_iters: '),
        ('optim_wrapper__clip_grads', {}, "optim_wrapper.clip_grads: .*mean 'clip_grad'"),
        ('optim_wrapper__optimizer__learn_rate', 1, 'optimizer.learn_rate: AdamW has no such'),
        ('optim_wrapper__optimizer__type', 'AdamV', "no optimizer named 'AdamV' .*optimizer.type"),
        ('param_scheduler__1__t_max', 3, "param_scheduler.1.t_max: .*mean 'T_max'"),
        ('visualizer__vis_backends__0__type', 'LocalBackend', 'LocalVisBackend'),
        ('randomness', {'sede': 3}, "randomness.sede: .*mean 'seed'"),
        ('env_cfg__cudnn_benchmrk', True, "env_cfg.cudnn_benchmrk: .*mean 'cudnn_benchmark'"),
        ('env_cfg__mp_cfg__mp_start', 'fork', 'env_cfg.mp_cfg.mp_start: there is no such setting'),
        ('auto_scale_lr__enabel', True, "auto_scale_lr.enabel: .*mean 'enable'"),
        ('optim_wrapper__clip_grad__maxnorm', 3, "clip_grad.maxnorm: .*mean 'max_norm'"),
        ('optim_wrapper__paramwise_cfg', {'costum_keys': {}}, "paramwise_cfg.costum_keys: .*'cust"),
        (
            'optim_wrapper__paramwise_cfg',
            {'custom_keys': {'bias': {'decay_mlut': 0.0}}},
            "custom_keys.bias.decay_mlut: .*mean 'decay_mult'",
        ),
        (
            'optim_wrapper__constructor',
            'mmtimesformer.LayerDecy',
            "mean '.*LayerDecay'",
        ),
        ('model__backbone__ffn_cfg', {'type': 'mmtimesformer.FNN'}, "mean 'mmtimesformer.FFN'"),
        ('log_level', 'INFOO', "log_level='INFOO' is none of DEBUG, INFO"),
    ],
)
def test_a_misspelling_is_named_with_its_key(
    tiny: Any, option: str, value: Any, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        check_components(changed(tiny, **{option: value}), 'train')


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        ('model', 'timesformer', "model='timesformer' is a str, where a dict is wanted"),
        (
            'model__backbone',
            {'_delete_': True, 'num_frames': 8},
            'model.backbone has no `type`; set model.backbone',
        ),
        ('train_dataloader', 'data', "train_dataloader='data' is a str, where a dict"),
        (
            'train_dataloader__dataset',
            'VideoDataset',
            'train_dataloader.dataset=.* is a str, where a dict',
        ),
        (
            'train_dataloader__dataset__data_prefix',
            'videos',
            'data_prefix=.* is a str, where a dict',
        ),
        (
            'train_dataloader__dataset__pipeline',
            'train_pipeline',
            'pipeline is a str, where a list',
        ),
        (
            'train_dataloader__dataset__pipeline',
            ['VideoInit'],
            'pipeline.0=.* is a str, where a dict',
        ),
        ('train_dataloader__dataset__pipeline', [{'typ': 'A'}], r'pipeline\.0 has no `type`'),
        (
            'train_dataloader__sampler',
            'DefaultSampler',
            'train_dataloader.sampler=.* is a str, where a dict',
        ),
        ('train_dataloader__batch_size', '8', "batch_size='8' is not a whole number from 1 on"),
        ('train_dataloader__num_workers', -1, 'num_workers=-1 is not a whole number from 0 on'),
        ('val_evaluator', 'AccMetric', "val_evaluator='AccMetric' is a str, where a dict"),
        ('train_cfg', 'EpochBasedTrainLoop', 'train_cfg=.* is a str, where a dict'),
        (
            'optim_wrapper__optimizer',
            'AdamW',
            "optim_wrapper.optimizer='AdamW' is a str, where a dict",
        ),
        ('optim_wrapper__optimizer__lr', '1e-3', "optimizer.lr='1e-3' is text; AdamW wants a num"),
        ('optim_wrapper__optimizer__betas', '0.9', "optimizer.betas='0.9' is text"),
        ('optim_wrapper__clip_grad__max_norm', '3', "clip_grad.max_norm='3' is text"),
        ('param_scheduler', 'cosine', 'param_scheduler is a str, where a list is wanted'),
        ('default_hooks', ['CheckpointHook'], 'default_hooks=.* is a list, where a dict'),
        ('custom_hooks', {'type': 'EMAHook'}, 'custom_hooks is a .*Dict, where a list is wanted'),
        ('custom_hooks', ['EMAHook'], "custom_hooks.0='EMAHook' is a str, where a dict"),
        ('randomness__seed', '3', "randomness.seed='3' is not a whole number"),
        ('load_from', 3, 'load_from=3 is not a path'),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_key(
    tiny: Any, option: str, value: Any, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        check_components(changed(tiny, **{option: value}), 'train')


@pytest.mark.parametrize('key', ['model', 'train_dataloader', 'train_cfg', 'optim_wrapper'])
def test_a_missing_section_is_named(tiny: Any, key: str) -> None:
    with pytest.raises(ValueError, match=f'the config has no {key}, which a train run needs'):
        check_components(changed(tiny, **{key: None}), 'train')


def test_a_part_of_the_validation_sections_is_refused(tiny: Any) -> None:
    with pytest.raises(ValueError, match='has val_dataloader and no val_cfg; add it, or set'):
        check_components(changed(tiny, val_cfg=None), 'train')
    check_components(changed(tiny, val_cfg=None, val_dataloader=None, val_evaluator=None), 'train')


def test_arguments_of_our_own_loop_and_hook_are_accepted(tiny: Any) -> None:
    options = {'default_hooks__checkpoint__patience': 3, 'train_cfg__max_worker_restarts': 3}
    check_components(changed(tiny, **options), 'train')


@pytest.mark.parametrize('name', ['chekpoint', 'checkpoint2', 'checkpoint_best', 'loggers'])
def test_a_hook_whose_name_is_near_one_of_mmengines_is_legal_and_a_note(
    tiny: Any, name: str
) -> None:
    hooks = {f'default_hooks__{name}': {'type': 'CheckpointHook'}}
    notes = check_components(changed(tiny, **hooks), 'train')
    (note,) = notes
    assert f'default_hooks.{name} is added' in note and 'did you mean ' in note


def test_a_missing_argument_is_named(tiny: Any) -> None:
    cfg = changed(tiny)
    del cfg.train_dataloader.dataset.pipeline[1]['clip_len']
    with pytest.raises(TypeError, match=r"pipeline\.1: SampleFrames needs 'clip_len'; set train_"):
        check_components(cfg, 'train')


def test_a_missing_checkpoint_to_start_from_is_named(tiny: Any) -> None:
    start = {'type': 'mmtimesformer.Pretrained', 'checkpoint': 'nowhere/vit.pth'}
    cfg = changed(tiny)
    cfg.model.backbone.init_cfg = start
    with pytest.raises(FileNotFoundError, match=r'nowhere/vit.pth .*backbone.init_cfg.checkpoint'):
        check_components(cfg, 'train')


def test_a_misspelt_section_is_refused_and_other_names_are_not(tiny: Any) -> None:
    check_sections(changed(tiny, my_pipeline=[], train_list='a.txt'))
    cfg = changed(tiny)
    cfg.optim_wraper = cfg.pop('optim_wrapper')
    with pytest.raises(ValueError, match="section 'optim_wraper'.* mean 'optim_wrapper'"):
        check_sections(cfg)


def test_components_that_a_test_does_not_build_are_not_checked(tiny: Any) -> None:
    cfg = changed(tiny, optim_wrapper__optimizer__type='AdamV', train_dataloader__num_worker=2)
    check_components(cfg, 'test')


class Counted:
    """A user's own metric, hook or transform."""

    built = 0

    def __init__(self, size: int = 1, **kwargs: Any) -> None:
        Counted.built += 1


def test_the_check_has_no_effects(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, no random number, and no logger or visualizer that the run would find."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    options = {'custom_hooks': [{'type': 'VisualizationHook', 'enable': True}]}
    cfg = changed(tiny, work_dir=str(tmp_path / 'work'), **options)
    text = cfg.pretty_text

    def state() -> list[Any]:
        classes = DefaultScope, MMLogger, MessageHub, Visualizer
        instances = [list(cls._instance_dict) for cls in classes]
        numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
        return [instances, torch.get_rng_state().tolist(), random.getstate(), numpy]

    before = state()
    check_components(cfg, 'train')
    assert state() == before
    assert cfg.pretty_text == text
    assert list(tmp_path.iterdir()) == []
    assert logging.root.manager.disable == 0


def test_the_state_is_restored_after_an_error(tiny: Any) -> None:
    scopes = list(DefaultScope._instance_dict)
    with pytest.raises(TypeError):
        check_components(changed(tiny, model__backbone__num_framez=3), 'train')
    assert logging.root.manager.disable == 0
    assert list(DefaultScope._instance_dict) == scopes


def test_weights_get_no_memory(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []

    def check(cfg: Any, model: Any) -> None:
        models.append(model)

    monkeypatch.setattr(components, '_check_optimization', check)
    check_components(changed(tiny, model__backbone__embed_dims=3072), 'train')
    sizes = [one.numel() for one in models[0].parameters() if not one.is_meta]
    assert sum(one.numel() for one in models[0].parameters()) > 1e8
    assert sum(sizes) < 1e6


@pytest.mark.parametrize('key', ['custom_hooks', 'val_evaluator', 'pipeline'])
def test_a_users_own_class_is_not_built_and_its_arguments_are_checked(tiny: Any, key: str) -> None:
    def with_own(own: dict[str, Any]) -> Any:
        cfg = changed(tiny)
        if key == 'pipeline':
            cfg.train_dataloader.dataset.pipeline.append(own)
        else:
            cfg[key] = [own]
        return cfg

    check_components(with_own({'type': Counted, 'size': 3, 'other': 'x'}), 'train')
    assert Counted.built == 0
    with pytest.raises(ValueError, match=r"size='3' is text; Counted wants a number"):
        check_components(with_own({'type': Counted, 'size': '3'}), 'train')


def test_weights_that_a_constructor_would_load_are_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MMAction2's TANet loads them when it is built."""
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', None)
    (path,) = RECOGNITION.rglob('tanet_imagenet-pretrained-r50_8xb8-dense-1x1x8-100e_*.py')
    cfg = Config.fromfile(path)
    assert cfg.model.backbone.pretrained
    check_components(cfg, 'train')


@pytest.mark.parametrize('backbone', ['timm.vit_base_patch16_224', 'torchvision.resnet50'])
def test_backbones_of_other_packages_are_left_to_the_run(
    tiny: Any, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may download weights when they are built."""
    cfg = changed(tiny)
    cfg.model.backbone = {'type': backbone, 'pretrained': True}
    package = backbone.partition('.')[0]
    monkeypatch.setitem(sys.modules, package, None)
    message = f'model.backbone.type={backbone!r} needs the package {package}, which is not'
    with pytest.raises(ValueError, match=message):
        check_components(cfg, 'train')
    module = types.ModuleType(package)
    module.__spec__ = ModuleSpec(package, None)
    monkeypatch.setitem(sys.modules, package, module)
    check_components(cfg, 'train')


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        (
            'train_dataloader__dataset__pipeline__3',
            {
                'type': 'RandomApply',
                'transforms': [{'type': 'Flip', 'flip_ration': 1}],
            },
            r"pipeline\.3\.transforms\.0\.flip_ration: Flip has no .* mean 'flip_ratio'",
        ),
        (
            'train_dataloader__dataset__pipeline__3',
            {'type': 'Resize', 'scale': '224'},
            r"pipeline\.3\.scale='224': Scale must be",
        ),
        (
            'model__data_preprocessor__format_shape',
            'NCT',
            "data_preprocessor.format_shape='NCT': Invalid format shape",
        ),
        ('model__backbone__num_heads', 5, r'^model\.backbone: .*num_heads=5'),
        ('train_dataloader__sampler', {}, 'train_dataloader.sampler has no `type`'),
        (
            'optim_wrapper',
            {'type': 'AmpOptimWrapper', 'loss_scal': 3, 'optimizer': {'type': 'SGD', 'lr': 1}},
            r"optim_wrapper\.loss_scal: .* mean 'loss_scale'",
        ),
        ('val_evaluator', {'type': 'Evaluator', 'metrics': [{'type': 'AccM'}]}, 'metrics.0.type'),
        (
            'custom_hooks',
            [{'type': 'mmengine.CheckpointHook', 'save_optimiser': False}],
            r"custom_hooks\.0\.save_optimiser: .* mean 'save_optimizer'",
        ),
    ],
)
def test_a_nested_mistake_is_named_with_its_own_key(
    tiny: Any, option: str, value: Any, message: str
) -> None:
    cfg = changed(tiny)
    parent, _, name = option.rpartition('__')
    place = cfg
    for word in filter(None, parent.split('__')):
        place = place[int(word) if word.isdigit() else word]
    place[int(name) if name.isdigit() else name] = value
    with pytest.raises((TypeError, ValueError), match=message):
        check_components(cfg, 'train')


@pytest.mark.parametrize(
    'optimizer',
    [
        {'type': 'AdamW', 'lr': 1e-3, 'fused': True},
        {'type': 'ZeroRedundancyOptimizer', 'optimizer_type': 'AdamW', 'lr': 1e-3},
    ],
    ids=lambda optimizer: optimizer['type'],
)
@pytest.mark.parametrize('wrapper', ['OptimWrapper', 'AmpOptimWrapper'])
def test_optimizers_that_need_a_gpu_or_processes_are_accepted(
    tiny: Any, optimizer: dict[str, Any], wrapper: str
) -> None:
    cfg = changed(tiny)
    cfg.optim_wrapper = {'type': wrapper, 'optimizer': optimizer}
    check_components(cfg, 'train')


@pytest.mark.parametrize(
    'kind', ['DefaultSampler', 'InfiniteSampler', 'mmtimesformer.PairedSampler']
)
def test_samplers_are_accepted(tiny: Any, kind: str) -> None:
    cfg = changed(tiny)
    cfg.train_dataloader.sampler = {'type': kind}
    check_components(cfg, 'train')
