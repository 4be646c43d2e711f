"""Item 6: PaddleVideo's distilled models and Paddle's image ViT are read, tested and converted.

The files are written here by hand: the layout of the published ones, small weights.
"""

import copy
import importlib.util
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints import read_checkpoint, read_model_checkpoint, save_checkpoint
from mmtimesformer.checkpoints.metadata import Preprocessing

ROOT = Path(__file__).parents[2]
PP = 'pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb'
DISTILLED = {8: f'{PP}_distill', 16: f'{PP.replace("8x32", "16x32")}_distill'}
SMALL = {'embed_dims': 24, 'num_layers': 2, 'num_heads': 12, 'img_size': 32}


@pytest.fixture(autouse=True)
def _mmaction_scope() -> Iterator[None]:
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        yield


@pytest.fixture(scope='module')
def convert() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location('convert', ROOT / 'tools/convert_checkpoint.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def random_weights(classes: int, **changes: Any) -> dict[str, torch.Tensor]:
    """A state dict of ours with a head, every number random."""
    model = TimeSformer(**{**SMALL, **changes})
    weights = {name: torch.randn_like(tensor) / 5 for name, tensor in model.state_dict().items()}
    head = {'head.weight': torch.randn(classes, 24), 'head.bias': torch.randn(classes)}
    return {**weights, **head}


def write_paddle(weights: dict[str, torch.Tensor], path: Path, prefix: str, head: str) -> Path:
    """Linear layers as (in, out), everything else as it is; the list of Paddle's own names."""
    arrays: dict[str, Any] = {}
    for name, tensor in weights.items():
        array = tensor.numpy().T if tensor.ndim == 2 else tensor.numpy()
        key = f'{head}{name[5:]}' if name.startswith('head.') else f'{prefix}{name}'
        arrays[key] = np.ascontiguousarray(array)
    arrays['StructuredToParameterName@@'] = {key: f'{key}_0' for key in arrays}
    path.write_bytes(pickle.dumps(arrays, protocol=4))
    return path


def write_vit(folder: Path, with_head: bool = True) -> tuple[Path, dict[str, torch.Tensor]]:
    weights = random_weights(1000, attention_type='space_only')
    if not with_head:
        weights = {name: w for name, w in weights.items() if not name.startswith('head.')}
    path = folder / 'ViT_base_patch16_224_pretrained.pdparams'
    return write_paddle(weights, path, prefix='', head='head.'), weights


def small_config(name: str) -> Config:
    cfg = Config.fromfile(ROOT / 'configs' / 'timesformer' / f'{name}.py')
    cfg.model.backbone.update(**SMALL, init_cfg=None)
    cfg.model.cls_head.in_channels = 24
    return cfg


def our_name(name: str) -> str:
    return name.replace('cls_head.fc_cls.', 'head.').removeprefix('backbone.')


def load_by_the_runner(cfg: Config, path: Path, caplog: Any) -> tuple[Any, list[str]]:
    """What ``load_from`` and ``tools/test.py`` do: a model with the weights, and what is logged."""
    from mmaction.registry import MODELS

    from mmtimesformer.engine import AdaptCheckpointHook

    model = MODELS.build(copy.deepcopy(cfg.model))
    checkpoint = read_model_checkpoint(path)
    runner = SimpleNamespace(
        model=model,
        cfg=cfg,
        logger=logging.getLogger('paddle'),
        _resume=False,
        _train_loop=None,
        _val_loop=None,
        _test_loop=None,
    )
    with caplog.at_level(logging.WARNING, logger='paddle'):
        AdaptCheckpointHook().after_load_checkpoint(runner, checkpoint)
    model.load_state_dict(checkpoint['state_dict'])
    return model, [record.message for record in caplog.records]


@pytest.mark.parametrize('frames', DISTILLED)
def test_a_distilled_model_is_tested_in_its_config(
    frames: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = random_weights(400, num_frames=frames, qkv_bias=False)
    file = tmp_path / f'ppTimeSformer_k400_{frames}f_distill.pdparams'
    write_paddle(weights, file, prefix='backbone.', head='head.fc.')
    cfg = small_config(DISTILLED[frames])
    model, logged = load_by_the_runner(cfg, file, caplog)
    # The size alone differs: these weights are for 32 pixels, to be small
    assert [text.partition(': ')[2].partition(':')[0] for text in logged] == ['size']
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[our_name(name)]), name
    oracle = TimeSformer(**SMALL, num_frames=frames, qkv_bias=False)
    head = {name: weights.pop(name) for name in ('head.weight', 'head.bias')}
    oracle.load_state_dict(weights)
    clip = torch.randn(1, 3, frames, 32, 32)
    theirs = torch.nn.functional.linear(oracle.eval()(clip), *head.values())
    torch.testing.assert_close(model.eval().cls_head(model.backbone(clip)), theirs)


@pytest.mark.parametrize('frames', DISTILLED)
def test_a_distilled_model_is_converted(
    frames: int, convert: Callable[[list[str]], int], tmp_path: Path, capsys: Any
) -> None:
    weights = random_weights(400, num_frames=frames, qkv_bias=False)
    file = write_paddle(weights, tmp_path / 'a.pdparams', prefix='backbone.', head='head.fc.')
    assert convert([str(file), str(tmp_path / 'out.pth')]) == 0
    printed = capsys.readouterr().out
    assert "PaddleVideo's TimeSformer -> mmtimesformer" in printed
    assert 'missing     0' in printed
    assert 'unknown     0' in printed
    metadata = read_checkpoint(tmp_path / 'out.pth').describe()
    assert metadata.source == 'paddle'
    assert metadata.qkv_bias is False
    assert metadata.preprocessing == Preprocessing(
        [0.0] * 3, [1.0] * 3, 'RGB', frame_interval=32, num_frames=frames, size=32
    )
    converted = torch.load(tmp_path / 'out.pth')['state_dict']
    assert {our_name(name) for name in converted} == set(weights)


def test_a_file_of_paddlevideo_is_enough_to_predict(tiny_videos: Path, tmp_path: Path) -> None:
    """Its two models differ in pixels and in how views become one score."""
    from mmtimesformer.inference import VideoClassifier

    found = {}
    for qkv_bias in (True, False):
        weights = random_weights(7, num_frames=2, qkv_bias=qkv_bias, patch_size=16)
        path = write_paddle(weights, tmp_path / 'a.pdparams', 'backbone.', 'head.fc.')
        save_checkpoint(read_checkpoint(path, num_heads=12), tmp_path / 'a.pth')
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            clf = VideoClassifier(checkpoint=tmp_path / 'a.pth')
        mean = clf.model.data_preprocessor.mean.flatten().tolist()
        found[qkv_bias] = clf.inference_config.protocol, clf.fusion, mean[0]
        assert len(clf(tiny_videos / '0.mp4').all_scores) == 7
    assert found == {
        True: ('paddle', 'mean of logits', pytest.approx(114.75)),
        False: ('pp-paddle', 'mean of softmax', 0.0),
    }


@pytest.mark.parametrize('with_head', [True, False])
def test_an_image_vit_of_paddle_is_converted(
    with_head: bool, convert: Callable[[list[str]], int], tmp_path: Path, capsys: Any
) -> None:
    file, weights = write_vit(tmp_path, with_head)
    assert convert([str(file), str(tmp_path / 'start.pth'), '--num-frames', '4']) == 0
    printed = capsys.readouterr().out
    assert "Paddle's ViT -> mmtimesformer" in printed
    assert ('classifier of images, 1000 classes' in printed) is with_head
    assert 'unknown     0' in printed
    check_seeded(torch.load(tmp_path / 'start.pth')['state_dict'], weights, frames=4)


def check_seeded(state_dict: dict[str, Any], weights: dict[str, torch.Tensor], frames: int) -> None:
    """Space is the image ViT's, time attention a copy of it behind a projection of zero."""
    state_dict = {name.removeprefix('backbone.'): w for name, w in state_dict.items()}
    for name, tensor in weights.items():
        if name.startswith('head.'):
            continue
        assert torch.equal(state_dict[name], tensor), name
        if '.attn.' in name or '.norm1.' in name:
            temporal = name.replace('.attn.', '.temporal_attn.').replace(
                '.norm1', '.temporal_norm1'
            )
            assert torch.equal(state_dict[temporal], tensor), temporal
    for i in range(2):
        assert not state_dict[f'blocks.{i}.temporal_fc.weight'].any()
        assert not state_dict[f'blocks.{i}.temporal_fc.bias'].any()
    assert state_dict['time_embed'].shape == (1, frames, 24)
    assert not state_dict['time_embed'].any()


@pytest.mark.parametrize('with_head', [True, False])
def test_an_image_vit_of_paddle_starts_a_training(
    with_head: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By ``init_cfg``, as PaddleVideo starts, and by ``load_from``."""
    from mmaction.registry import MODELS

    file, weights = write_vit(tmp_path, with_head)
    cfg = small_config('timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_paddle')
    backbone = copy.deepcopy(cfg.model.backbone)
    backbone.init_cfg = dict(type='mmtimesformer.Pretrained', checkpoint=str(file))
    model = MODELS.build(backbone)
    model.init_weights()
    check_seeded(model.state_dict(), weights, frames=8)

    model, logged = load_by_the_runner(cfg, file, caplog)
    check_seeded(model.backbone.state_dict(), weights, frames=8)
    assert len(logged) == 1
    assert 'cls_head.fc_cls' in logged[0]
    assert 'newly initialized' in logged[0]


def test_a_biased_image_vit_in_pp_timesformer_is_an_error_that_names_the_key(
    tmp_path: Path,
) -> None:
    from mmaction.registry import MODELS

    file, _ = write_vit(tmp_path)
    backbone = small_config(PP).model.backbone
    backbone.init_cfg = dict(type='mmtimesformer.Pretrained', checkpoint=str(file))
    with pytest.raises(ValueError, match=r'qkv.bias.* set backbone.qkv_bias to True'):
        MODELS.build(backbone).init_weights()
