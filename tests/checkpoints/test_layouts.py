"""Each system's files, laid out by hand, are read value by value."""

import pickle
from pathlib import Path

import pytest
import torch

from mmtimesformer.checkpoints import read_checkpoint

from .conftest import (
    IMAGE_FILES,
    SCHEMES,
    VIDEO_FILES,
    WIDTH,
    as_jax,
    as_paddle,
    as_paddle_vit,
    is_time,
    of_images,
    random_weights,
)


def _no_positions_of_class(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """big_vision adds positions before the class token, which so has none."""
    weights['pos_embed'][:, 0] = 0
    return weights


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('kind', VIDEO_FILES)
def test_a_timesformer_file_of_any_system_comes_in_value_by_value(
    kind: str, scheme: str, tmp_path: Path
) -> None:
    weights = random_weights(scheme)
    path = tmp_path / 'a_file_without_an_ending'
    VIDEO_FILES[kind](weights, path)

    read = read_checkpoint(path)

    if kind == 'huggingface without prefix':
        weights = {name: tensor for name, tensor in weights.items() if name[:5] != 'head.'}
    assert read.attention_type == scheme
    assert set(read.tensors) == set(weights)
    for name, tensor in weights.items():
        torch.testing.assert_close(read.tensors[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize('kind', IMAGE_FILES)
def test_an_image_vit_of_any_system_comes_in_value_by_value(kind: str, tmp_path: Path) -> None:
    weights = random_weights('space_only')
    if 'big_vision' in kind:
        weights = _no_positions_of_class(weights)
    path = tmp_path / 'weights.of_some_kind'
    IMAGE_FILES[kind](weights, path)

    read = read_checkpoint(path, num_frames=4)

    assert read.attention_type == 'divided_space_time'
    assert not read.source.is_video
    for name, tensor in of_images(weights).items():
        if not name.startswith('head.'):
            torch.testing.assert_close(read.tensors[name], tensor, rtol=0, atol=0)
    assert 'head.weight' not in read.tensors
    assert read.tensors['time_embed'].shape == (1, 4, 20)


@pytest.mark.parametrize('kind', [kind for kind in IMAGE_FILES if 'base' not in kind])
def test_a_classifier_of_images_is_kept_when_asked_for(kind: str, tmp_path: Path) -> None:
    weights = random_weights('space_only')
    IMAGE_FILES[kind](weights, tmp_path / 'vit')
    if kind == 'mmaction2_vit':  # that file has none
        return
    read = read_checkpoint(tmp_path / 'vit', keep_head=True)
    torch.testing.assert_close(read.tensors['head.weight'], weights['head.weight'], rtol=0, atol=0)
    assert not [key for key in read.load_report.keys('dropped') if 'head/' in key]


@pytest.mark.parametrize(
    ('width', 'heads', 'patch'), [(384, 6, 16), (768, 12, 32), (1024, 16, 16), (1280, 16, 14)]
)
def test_vit_s_b_l_and_h_with_any_patch_come_in(
    width: int, heads: int, patch: int, tmp_path: Path
) -> None:
    from mmtimesformer.checkpoints.metadata import heads_of

    weights = random_weights('space_only', width=width, depth=1, patch=patch, grid=2)
    for kind in ('timm safetensors', 'huggingface', 'official'):
        ({**IMAGE_FILES, **VIDEO_FILES})[kind](weights, tmp_path / 'vit')
        read = read_checkpoint(tmp_path / 'vit')
        assert read.patch_size == patch
        assert heads_of(width) == heads
    import numpy as np

    np.savez(tmp_path / 'vit.npz', **as_jax(weights, heads=heads))
    read = read_checkpoint(tmp_path / 'vit.npz')
    name = 'blocks.0.attn.qkv.weight'
    torch.testing.assert_close(read.tensors[name], weights[name], rtol=0, atol=0)
    assert read.describe().num_heads == heads


def test_square_matrices_of_paddle_are_turned(tmp_path: Path) -> None:
    weights = random_weights()
    laid_out = as_paddle(weights)
    name = 'blocks.1.temporal_fc.weight'
    assert laid_out[f'backbone.{name}'].shape == weights[name].shape  # the shapes do not differ
    assert not torch.equal(torch.from_numpy(laid_out[f'backbone.{name}']), weights[name])
    VIDEO_FILES['paddle'](weights, tmp_path / 'x.pdparams')
    assert torch.equal(read_checkpoint(tmp_path / 'x.pdparams').tensors[name], weights[name])


@pytest.mark.parametrize('kind', ['paddle_vit', 'paddle_vit base'])
def test_the_linear_layers_of_paddles_vit_are_turned_and_nothing_else(
    kind: str, tmp_path: Path
) -> None:
    weights = random_weights('space_only', patch=WIDTH, grid=4)  # a kernel as wide as a token
    IMAGE_FILES[kind](weights, tmp_path / 'ViT_base_patch16_224_pretrained.pdparams')
    laid_out = as_paddle_vit(weights)
    read = read_checkpoint(tmp_path / 'ViT_base_patch16_224_pretrained.pdparams', keep_head=True)
    assert read.source.name == 'paddle_vit'
    turned = set()
    for name, tensor in read.tensors.items():
        if not is_time(name):
            assert torch.equal(tensor, weights[name]), name
            theirs = torch.from_numpy(laid_out[name])
            if theirs.shape != tensor.shape or not torch.equal(theirs, tensor):
                turned.add(name.split('.', 2)[-1] if name.startswith('blocks.') else name)
    linear = {'attn.qkv.weight', 'attn.proj.weight', 'mlp.fc1.weight', 'mlp.fc2.weight'}
    assert turned == linear | ({'head.weight'} if kind == 'paddle_vit' else set())
    assert read.load_report.complete
    assert read.load_report.keys('unknown') == read.load_report.keys('missing') == []
    assert read.load_report.keys('dropped') == []


def test_an_image_vit_of_paddle_is_not_taken_for_a_video_model(tmp_path: Path) -> None:
    """Nor the other way round; a backbone without prefix is detected by its temporal weights."""
    images, videos = random_weights('space_only'), random_weights()
    found = {}
    for name, laid_out in {
        'image': as_paddle_vit(images),
        'video': as_paddle(videos),
        'space-only video': as_paddle(images),
        'backbone of a video': {
            key.removeprefix('backbone.'): array
            for key, array in as_paddle(videos).items()
            if not key.startswith('head.')
        },
        'joint backbone': {
            key.removeprefix('backbone.'): array
            for key, array in as_paddle(random_weights('joint_space_time')).items()
            if not key.startswith('head.')
        },
        'PP-TimeSformer backbone': {
            key.removeprefix('backbone.'): array
            for key, array in as_paddle(random_weights(qkv_bias=False)).items()
            if not key.startswith('head.')
        },
        'image without qkv bias': as_paddle_vit(random_weights('space_only', qkv_bias=False)),
    }.items():
        (tmp_path / 'a.pdparams').write_bytes(pickle.dumps(laid_out, protocol=4))
        read = read_checkpoint(tmp_path / 'a.pdparams')
        found[name] = read.source.name, read.attention_type, bool(read.load_report.keys('seeded'))
    assert found == {
        'image': ('paddle_vit', 'divided_space_time', True),
        'video': ('paddle', 'divided_space_time', False),
        'space-only video': ('paddle', 'space_only', False),
        'backbone of a video': ('paddle', 'divided_space_time', False),
        'joint backbone': ('paddle', 'joint_space_time', False),
        'PP-TimeSformer backbone': ('paddle', 'divided_space_time', False),
        'image without qkv bias': ('paddle_vit', 'divided_space_time', True),
    }


def test_a_torch_vit_is_not_taken_for_one_of_paddle(tmp_path: Path) -> None:
    IMAGE_FILES['timm bin'](random_weights('space_only'), tmp_path / 'vit.pth')
    assert read_checkpoint(tmp_path / 'vit.pth').source.name == 'timm_vit'


def test_the_vit_whose_heads_scale_by_its_width_is_refused(tmp_path: Path) -> None:
    weights = random_weights('space_only', width=768, depth=8, patch=2, grid=1, qkv_bias=False)
    for name in list(weights):
        if 'mlp.fc' in name and not name.endswith('fc2.bias'):
            weights[name] = torch.zeros(
                *(2304 if side == 3072 else side for side in weights[name].shape)
            )
    for kind in ('paddle_vit', 'timm bin'):
        IMAGE_FILES[kind](weights, tmp_path / 'small')
        with pytest.raises(ValueError, match=r'scale their scores by 768.*start from another ViT'):
            read_checkpoint(tmp_path / 'small')


def test_pp_timesformer_without_bias_of_queries_stays_without(tmp_path: Path) -> None:
    weights = random_weights(qkv_bias=False)
    VIDEO_FILES['paddle'](weights, tmp_path / 'pp.pdparams')
    read = read_checkpoint(tmp_path / 'pp.pdparams')
    assert not read.has_qkv_bias
    assert read.describe().qkv_bias is False
    assert set(read.tensors) == set(weights)


def test_what_is_dropped_on_purpose_is_in_the_account(tmp_path: Path) -> None:
    IMAGE_FILES['jax with optimiser'](random_weights('space_only'), tmp_path / 'a')
    dropped = read_checkpoint(tmp_path / 'a').load_report.keys('dropped')
    assert {'opt/target/pre_logits/kernel', 'opt/target/head/kernel', 'opt/state/step'} < set(
        dropped
    )


def test_a_vit_without_a_class_token_is_refused_by_its_name(tmp_path: Path) -> None:
    import numpy as np

    arrays = as_jax(random_weights('space_only'), big_vision=True)
    del arrays['cls']  # average pooling
    np.savez(tmp_path / 'gap.npz', **arrays)
    with pytest.raises(ValueError, match='lacks cls_token'):
        read_checkpoint(tmp_path / 'gap.npz')


def test_only_time_is_seeded_from_an_image_vit(tmp_path: Path) -> None:
    IMAGE_FILES['timm bin'](random_weights('space_only'), tmp_path / 'a')
    read = read_checkpoint(tmp_path / 'a')
    assert all(is_time(name) for name in read.load_report.keys('seeded'))
    assert {name for name in read.tensors if is_time(name)} == set(read.load_report.keys('seeded'))
