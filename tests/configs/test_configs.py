"""Every config builds, and its file name matches its content."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(ROOT.glob('timesformer/*.py'))
VARIANTS = {'HR': [(16, 448)], 'L': [(96, 224), (64, 224)]}
VITS = {None: (16, 768, 12, 12), 'large-p16': (16, 1024, 24, 16), 'huge-p14': (14, 1280, 32, 16)}
CLASSES = {
    'kinetics400': 400, 'kinetics600': 600, 'sthv2': 174, 'diving48': 48, 'howto100m': 1059,
    'ucf101': 101, 'hmdb51': 51,
}  # fmt: skip
SCHEMES = {'divST': 'divided_space_time', 'jointST': 'joint_space_time', 'spaceOnly': 'space_only'}
NAME = re.compile(
    r'(pp-)?timesformer(-vit-(?P<vit>\w+-p\d+))?'
    r'_(?P<scheme>\w+?)(-(?P<variant>HR|L))?_(?P<gpus>\d+)xb(?P<batch>\d+)'
    r'-(u(?P<segments>\d+)|(?P<length>\d+)x(?P<interval>\d+)x(?P<clips>\d+))-(?P<epochs>\d+)e'
    r'_(?P<dataset>[a-z0-9]+|your-own)(-frames)?(-split(?P<split>\d))?-(?P<modality>rgb-depth|rgb|grey)'
    r'(_(?P<protocol>official|paddle|mix|small-data|distill))?'
)
NAMED = [path for path in CONFIGS if NAME.fullmatch(path.stem)]

every_config = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)


def stages(cfg: Config) -> list[tuple[str, list[dict[str, Any]]]]:
    """The three pipelines, as the data loaders run them."""
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [(loader, cfg[loader].dataset.pipeline) for loader in loaders]


def transforms(pipeline: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [transform for transform in pipeline if transform['type'].endswith(name)]


@pytest.fixture
def mmaction_scope() -> Any:
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        yield


def build_model(cfg: Config) -> torch.nn.Module:
    from mmaction.registry import MODELS

    with torch.device('meta'):  # where pixels do not flow, and what mixes them may not live
        return MODELS.build({**cfg.model, 'data_preprocessor': None})


@pytest.mark.parametrize('path', NAMED, ids=lambda path: path.stem)
def test_the_file_name_matches_the_config(path: Path) -> None:
    parts = NAME.fullmatch(path.stem).groupdict()
    cfg = Config.fromfile(path)
    backbone = cfg.model.backbone
    assert backbone.attention_type == SCHEMES[parts['scheme']]
    size = backbone.patch_size, backbone.embed_dims, backbone.num_layers, backbone.num_heads
    assert size == VITS[parts['vit']]
    assert cfg.train_dataloader.batch_size == int(parts['batch'])
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    videos = int(parts['gpus']) * int(parts['batch']) * accumulated
    assert cfg.auto_scale_lr.base_batch_size == videos
    assert cfg.train_cfg.max_epochs == int(parts['epochs'])
    frames = int(parts['segments'] or parts['length'])
    assert backbone.num_frames == frames
    channels = {'rgb': 3, 'grey': 1, 'rgb-depth': 4}[parts['modality']]
    assert backbone.get('in_channels', 3) == channels == len(cfg.model.data_preprocessor.mean)
    if parts['variant']:
        assert (frames, backbone.img_size) in VARIANTS[parts['variant']]
    # Protocols of other data sets begin with the data set's name: ssv2-official.
    of_name = {None: 'mmaction2', 'mix': 'mmaction2', 'small-data': 'mmaction2'}.get(
        parts['protocol'], parts['protocol']
    )
    if path.stem.startswith('pp-'):
        of_name = 'paddle'
    assert cfg.protocol.rpartition('-')[2] == of_name
    for loader, pipeline in stages(cfg):
        (sample,) = transforms(pipeline, 'SampleFrames')
        assert sample['clip_len'] == frames, loader
        if parts['segments']:
            assert sample['type'] == 'mmtimesformer.SegmentSampleFrames'
        else:
            assert sample['frame_interval'] == int(parts['interval']), loader
        if loader != 'test_dataloader':
            assert sample.get('num_clips', 1) == int(parts['clips'] or 1), loader
        elif parts['dataset'] == 'howto100m':
            assert sample['num_clips'] == {8: 48, 32: 12, 64: 6, 96: 4}[frames]
        folder = parts['dataset'].replace('-', '_')
        assert cfg[loader].dataset.ann_file.startswith(f'data/{folder}/'), loader
        if parts['split']:
            assert f'_split_{parts["split"]}_' in cfg[loader].dataset.ann_file, loader


@pytest.mark.parametrize('path', NAMED, ids=lambda path: path.stem)
def test_classes_are_those_of_the_data_set(path: Path) -> None:
    cfg = Config.fromfile(path)
    folder = Path(cfg.train_dataloader.dataset.ann_file).parts[1]
    if folder == 'your_own':
        assert cfg.model.cls_head.num_classes == cfg.num_classes
    else:
        assert cfg.model.cls_head.num_classes == CLASSES[folder]
    for loader, _ in stages(cfg):
        dataset = cfg[loader].dataset
        assert Path(dataset.ann_file).parts[1] == folder
        assert dataset.data_prefix.video.startswith(f'data/{folder}/')
        assert dataset.metainfo.classes == f'data/{folder}/classes.txt'
    blending = cfg.model.data_preprocessor.get('blending') or {'augments': []}
    for augment in blending['augments']:
        assert augment['num_classes'] == cfg.model.cls_head.num_classes


@every_config
def test_the_config_begins_with_what_it_is_and_what_to_expect(path: Path) -> None:
    header = path.read_text().split('"""')[1]
    decay = ('Decay:',) if path in NAMED else ()
    for heading in ('Train:', 'Test:', 'Cost:', *decay, 'Expect:'):
        assert heading in header, f'{heading} is missing'
    if 'all parameters' in header:
        assert 'paramwise_cfg' not in Config.fromfile(path).optim_wrapper
    if 'quoted' in header:
        assert 'not measured here' in header


@every_config
def test_the_config_plugs_itself_in(path: Path) -> None:
    cfg = Config.fromfile(path)
    assert 'mmtimesformer' in cfg.custom_imports.imports
    assert cfg.default_scope == 'mmaction'
    assert cfg.test_pipeline == cfg.test_dataloader.dataset.pipeline, 'the inference APIs read it'
    assert 'custom_imports' in (path.read_text() + base_text(path))


def base_text(path: Path) -> str:
    bases = re.findall(r"_base_ = '([\w.-]+)'", path.read_text())
    return ''.join((path.parent / base).read_text() for base in bases)


@every_config
def test_the_model_builds_and_its_parts_fit(path: Path, mmaction_scope: None) -> None:
    cfg = Config.fromfile(path)
    model = build_model(cfg)
    assert type(model.backbone).__module__.startswith('mmtimesformer.')
    assert cfg.model.cls_head.in_channels == cfg.model.backbone.embed_dims
    assert model.cls_head.average_clips is not None, 'three crops must become one score'


@every_config
def test_the_pipelines_build_and_end_at_the_size_of_the_backbone(
    path: Path, mmaction_scope: None
) -> None:
    from mmengine.dataset import Compose

    cfg = Config.fromfile(path)
    for loader, pipeline in stages(cfg):
        Compose(pipeline)
        crop = [t for t in pipeline if 'Crop' in t['type']][-1]
        size = crop.get('size', crop.get('crop_size'))
        assert size == cfg.model.backbone.img_size, loader
        (form,) = [transform for transform in pipeline if 'Format' in transform['type']]
        assert form['type'] == 'mmtimesformer.FormatClips' or form['input_format'] == 'NCTHW'


@every_config
def test_every_custom_key_of_the_optimiser_matches_a_parameter(
    path: Path, mmaction_scope: None
) -> None:
    cfg = Config.fromfile(path)
    assert not keys_without_effect(cfg), 'they match no parameter'


def test_a_custom_key_that_matches_no_parameter_is_found(mmaction_scope: None) -> None:
    """MMAction2's own keys for TimeSformer begin with a dot, which no name does."""
    cfg = Config.fromfile(ROOT / 'timesformer/timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb.py')
    keys = {'.backbone.cls_token': dict(decay_mult=0.0), 'pos_embed': dict(decay_mult=0.0)}
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=keys)
    assert keys_without_effect(cfg) == ['.backbone.cls_token']


def test_some_config_has_custom_keys() -> None:
    assert any(custom_keys(Config.fromfile(path)) for path in CONFIGS)


def custom_keys(cfg: Config) -> dict[str, Any]:
    return cfg.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})


def settings_of_parameters(cfg: Config, model: torch.nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter, as MMEngine's optimiser has them."""
    from mmengine.optim import build_optim_wrapper

    optimizer = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper)).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for parameter in group['params']
    }


def keys_without_effect(cfg: Config) -> list[str]:
    """The custom keys without which every parameter would have the same settings."""
    keys = custom_keys(cfg)
    if not keys:
        return []
    model = build_model(cfg)
    whole, without_effect = settings_of_parameters(cfg, model), []
    for key in keys:
        less = copy.deepcopy(cfg)
        del less.optim_wrapper.paramwise_cfg.custom_keys[key]
        if settings_of_parameters(less, model) == whole:
            without_effect.append(key)
    return without_effect


@every_config
def test_the_schedule_builds_and_ends_with_the_training(path: Path, mmaction_scope: None) -> None:
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import PARAM_SCHEDULERS

    cfg = Config.fromfile(path)
    wrapper = build_optim_wrapper(torch.nn.Linear(2, 2), cfg.optim_wrapper)
    schedulers = cfg.param_scheduler
    assert max(scheduler['end'] for scheduler in schedulers) == cfg.train_cfg.max_epochs
    for scheduler in schedulers:
        arguments = {k: v for k, v in scheduler.items() if k != 'convert_to_iter_based'}
        PARAM_SCHEDULERS.build({**arguments, 'optimizer': wrapper.optimizer})


def test_the_three_schemes_differ_in_nothing_else() -> None:
    divided, joint, space = (
        Config.fromfile(ROOT / f'timesformer/timesformer_{s}_8xb8-8x32x1-15e_kinetics400-rgb.py')
        for s in SCHEMES
    )
    for cfg in (divided, joint, space):
        del cfg.model.backbone.attention_type
    assert divided.to_dict() == joint.to_dict() == space.to_dict()


def published() -> list[dict[str, Any]]:
    import yaml

    root = ROOT.parent
    listed = yaml.safe_load((root / 'model-index.yml').read_text())['Import']
    return [
        model for path in listed for model in yaml.safe_load((root / path).read_text())['Models']
    ]


def test_the_model_index_lists_every_model_of_a_data_set() -> None:
    listed = [model['Config'] for model in published()]
    assert len(listed) == len(set(listed))
    ours = [path for path in NAMED if 'your-own' not in path.stem]
    assert set(listed) == {str(path.relative_to(ROOT.parent)) for path in ours}
    assert {path for path in CONFIGS if path not in NAMED} == set(ROOT.glob('*/*-tiny_*.py'))


@pytest.mark.parametrize('model', published(), ids=lambda model: model['Name'])
def test_the_model_index_matches_the_config(model: dict[str, Any]) -> None:
    from mmtimesformer.analysis.complexity import in_billions, in_millions, measure_complexity

    path = ROOT.parent / model['Config']
    cfg, header = Config.fromfile(path), path.read_text().split('"""')[1]
    about, (result,) = model['Metadata'], model['Results']
    assert model['Name'] == path.stem
    assert about['Batch Size'] == cfg.train_dataloader.batch_size
    assert about['Epochs'] == cfg.train_cfg.max_epochs
    assert about['Frames'] == cfg.model.backbone.num_frames
    assert about['Resolution'] == f'{cfg.model.backbone.img_size}x{cfg.model.backbone.img_size}'
    assert about['Protocol'] == cfg.protocol
    cost = measure_complexity(cfg)
    assert about['FLOPs'] == in_billions(cost.multiply_adds)
    assert about['Parameters'] == in_millions(cost.parameters)
    for figure in (about['FLOPs'], about['Parameters']):
        assert figure in header
    for metric, label in (('Top 1 Accuracy', 'top-1'), ('Top 5 Accuracy', 'top-5')):
        if metric in result['Metrics']:
            assert f'{label} {result["Metrics"][metric]}' in header
        else:
            assert label not in header
    assert ' '.join(result['Source'].split()) in ' '.join(header.split())
    views = int(re.search(r'a test takes (\d+) views', header)[1])
    assert views == cfg.test_pipeline[1].get('num_clips', 1) * 3


def test_the_tables_of_models_are_those_of_the_model_index() -> None:
    from runpy import run_path

    tool = run_path(str(ROOT.parent / 'tools' / 'analysis_tools' / 'zoo_table.py'))
    assert tool['main'](['--check']) == 0
