"""What a config misspells is told with its key, before anything is built."""

from typing import Any

import pytest
from mmengine.config import Config

from mmtimesformer.config.components import check_components
from mmtimesformer.config.find import shipped_configs
from mmtimesformer.config.validate import check_sections

TINY = 'timesformer_divST-tiny_moving-shapes'


@pytest.fixture(scope='module')
def tiny() -> Any:
    return Config.fromfile(shipped_configs()[TINY])


def changed(config: Any, **options: Any) -> Any:
    cfg = Config(config.to_dict())
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


@pytest.mark.parametrize('name', sorted(shipped_configs()))
def test_every_config_of_ours_is_right(name: str) -> None:
    cfg = Config.fromfile(shipped_configs()[name])
    cfg.pop('load_from', None)
    check_sections(cfg)
    for purpose in ('train', 'test'):
        check_components(cfg, purpose)


@pytest.mark.parametrize(
    ('option', 'value', 'letter'),
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
def test_a_misspelling_is_told_with_its_key(
    tiny: Any, option: str, value: Any, letter: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=letter):
        check_components(changed(tiny, **{option: value}), 'train')


@pytest.mark.parametrize(
    ('option', 'value', 'letter'),
    [
        ('model', 'timesformer', "model='timesformer' is text, where a dict is wanted"),
        (
            'model__backbone',
            {'_delete_': True, 'num_frames': 8},
            'model.backbone has no `type`; set model.backbone',
        ),
        ('train_dataloader', 'data', "train_dataloader='data' is text"),
        ('train_dataloader__dataset', 'VideoDataset', 'train_dataloader.dataset=.* is text'),
        ('train_dataloader__dataset__data_prefix', 'videos', 'data_prefix=.* is text'),
        (
            'train_dataloader__dataset__pipeline',
            'train_pipeline',
            'pipeline is a str, where a list',
        ),
        ('train_dataloader__dataset__pipeline', ['VideoInit'], 'pipeline.0=.* is text'),
        ('train_dataloader__dataset__pipeline', [{'typ': 'A'}], r'pipeline\.0 has no `type`'),
        ('train_dataloader__sampler', 'DefaultSampler', 'train_dataloader.sampler=.* is text'),
        ('train_dataloader__batch_size', '8', "batch_size='8' is not a whole number from 1 on"),
        ('train_dataloader__num_workers', -1, 'num_workers=-1 is not a whole number from 0 on'),
        ('val_evaluator', 'AccMetric', "val_evaluator='AccMetric' is text"),
        ('train_cfg', 'EpochBasedTrainLoop', 'train_cfg=.* is text'),
        ('optim_wrapper__optimizer', 'AdamW', "optim_wrapper.optimizer='AdamW' is text"),
        ('optim_wrapper__optimizer__lr', '1e-3', "optimizer.lr='1e-3' is text; AdamW wants a num"),
        ('optim_wrapper__optimizer__betas', '0.9', "optimizer.betas='0.9' is text"),
        ('optim_wrapper__clip_grad__max_norm', '3', "clip_grad.max_norm='3' is text"),
        ('param_scheduler', 'cosine', 'param_scheduler is a str, where a list is wanted'),
        ('default_hooks', ['CheckpointHook'], 'default_hooks=.* is a list, where a dict'),
        ('custom_hooks', {'type': 'EMAHook'}, 'custom_hooks is a .*Dict, where a list is wanted'),
        ('custom_hooks', ['EMAHook'], "custom_hooks.0='EMAHook' is text"),
        ('randomness__seed', '3', "randomness.seed='3' is not a whole number"),
        ('load_from', 3, 'load_from=3 is not a path'),
    ],
)
def test_what_stands_for_something_else_is_told(
    tiny: Any, option: str, value: Any, letter: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=letter):
        check_components(changed(tiny, **{option: value}), 'train')


@pytest.mark.parametrize('key', ['model', 'train_dataloader', 'train_cfg', 'optim_wrapper'])
def test_a_section_that_a_training_needs_is_missed(tiny: Any, key: str) -> None:
    with pytest.raises(ValueError, match=f'the config has no {key}, which a train run needs'):
        check_components(changed(tiny, **{key: None}), 'train')


def test_validation_is_whole_or_not_at_all(tiny: Any) -> None:
    with pytest.raises(ValueError, match='has val_dataloader and no val_cfg; add it, or set'):
        check_components(changed(tiny, val_cfg=None), 'train')
    check_components(changed(tiny, val_cfg=None, val_dataloader=None, val_evaluator=None), 'train')


def test_arguments_that_only_ours_has_are_known(tiny: Any) -> None:
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


def test_a_missing_argument_is_told(tiny: Any) -> None:
    cfg = changed(tiny)
    del cfg.train_dataloader.dataset.pipeline[1]['clip_len']
    with pytest.raises(TypeError, match=r"pipeline\.1: SampleFrames needs 'clip_len'; set train_"):
        check_components(cfg, 'train')


def test_a_missing_checkpoint_to_start_from_is_told(tiny: Any) -> None:
    start = {'type': 'mmtimesformer.Pretrained', 'checkpoint': 'nowhere/vit.pth'}
    cfg = changed(tiny)
    cfg.model.backbone.init_cfg = start
    with pytest.raises(FileNotFoundError, match=r'nowhere/vit.pth .*backbone.init_cfg.checkpoint'):
        check_components(cfg, 'train')


def test_a_misspelt_section_is_told_and_names_of_ones_own_are_not(tiny: Any) -> None:
    check_sections(changed(tiny, my_pipeline=[], train_list='a.txt'))
    cfg = changed(tiny)
    cfg.optim_wraper = cfg.pop('optim_wrapper')
    with pytest.raises(ValueError, match="section 'optim_wraper'.* mean 'optim_wrapper'"):
        check_sections(cfg)


def test_what_a_test_does_not_build_is_not_looked_at(tiny: Any) -> None:
    cfg = changed(tiny, optim_wrapper__optimizer__type='AdamV', train_dataloader__num_worker=2)
    check_components(cfg, 'test')
