"""A config is a promise: each one builds, and its file name says what it holds."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(ROOT.glob('timesformer/*.py'))
SCHEMES = {'divST': 'divided_space_time', 'jointST': 'joint_space_time', 'spaceOnly': 'space_only'}
NAME = re.compile(
    r'timesformer_(?P<scheme>\w+?)_(?P<gpus>\d+)xb(?P<batch>\d+)'
    r'-(?P<length>\d+)x(?P<interval>\d+)x(?P<clips>\d+)-(?P<epochs>\d+)e_(?P<dataset>[a-z0-9-]+)-rgb'
    r'(_(?P<protocol>[a-z]+))?'
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

    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('path', NAMED, ids=lambda path: path.stem)
def test_the_file_name_says_what_the_config_holds(path: Path) -> None:
    said = NAME.fullmatch(path.stem).groupdict()
    cfg = Config.fromfile(path)
    backbone = cfg.model.backbone
    assert backbone.attention_type == SCHEMES[said['scheme']]
    assert cfg.train_dataloader.batch_size == int(said['batch'])
    assert cfg.auto_scale_lr.base_batch_size == int(said['gpus']) * int(said['batch'])
    assert cfg.train_cfg.max_epochs == int(said['epochs'])
    assert backbone.num_frames == int(said['length'])
    # Protocols of other data sets begin with the data set's name: ssv2-official.
    assert cfg.protocol.rpartition('-')[2] == (said['protocol'] or 'mmaction2')
    for loader, pipeline in stages(cfg):
        (sample,) = transforms(pipeline, 'SampleFrames')
        assert sample['clip_len'] == int(said['length']), loader
        # Segments follow the length of the video.
        assert sample.get('frame_interval', 1) == int(said['interval']), loader
        if loader != 'test_dataloader':
            assert sample.get('num_clips', 1) == int(said['clips']), loader
        assert said['dataset'] in cfg[loader].dataset.ann_file, loader


@every_config
def test_the_config_begins_with_what_it_is_and_what_to_expect(path: Path) -> None:
    header = path.read_text().split('"""')[1]
    for heading in ('Train:', 'Test:', 'Cost:', 'Expect:'):
        assert heading in header, f'{heading} is missing'
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
        assert transforms(pipeline, 'FormatShape')[0]['input_format'] == 'NCTHW'


@every_config
def test_every_custom_key_of_the_optimiser_matches_a_parameter(
    path: Path, mmaction_scope: None
) -> None:
    cfg = Config.fromfile(path)
    keys = cfg.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    names = [name for name, _ in build_model(cfg).named_parameters()]
    for key in keys:
        assert any(key in name for name in names), f'{key!r} matches no parameter'


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


def test_the_model_index_lists_every_published_model_with_its_config() -> None:
    import yaml

    root = ROOT.parent
    models = []
    for listed in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        models += yaml.safe_load((root / listed).read_text())['Models']
    assert {model['Config'] for model in models} == {str(path.relative_to(root)) for path in NAMED}
    for model in models:
        assert model['Name'] == Path(model['Config']).stem
        header = (root / model['Config']).read_text().split('"""')[1]
        (result,) = model['Results']
        for metric, said in (('Top 1 Accuracy', 'top-1'), ('Top 5 Accuracy', 'top-5')):
            assert f'{said} {result["Metrics"][metric]}' in header
        assert model['Metadata']['FLOPs'] in header
