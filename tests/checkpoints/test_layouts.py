"""Each system's files, laid out by hand, come in value by value."""

from pathlib import Path

import pytest
import torch

from mmtimesformer.checkpoints import read_checkpoint

from .conftest import (
    IMAGE_FILES,
    SCHEMES,
    VIDEO_FILES,
    as_jax,
    as_paddle,
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
    assert not [key for key in read.account.keys('dropped') if 'head/' in key]


@pytest.mark.parametrize(
    ('width', 'heads', 'patch'), [(384, 6, 16), (768, 12, 32), (1024, 16, 16), (1280, 16, 14)]
)
def test_vit_s_b_l_and_h_with_any_patch_come_in(
    width: int, heads: int, patch: int, tmp_path: Path
) -> None:
    from mmtimesformer.checkpoints.facts import heads_of

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
    assert read.describe()['num_heads'] == heads


def test_square_matrices_of_paddle_are_turned(tmp_path: Path) -> None:
    weights = random_weights()
    laid_out = as_paddle(weights)
    name = 'blocks.1.temporal_fc.weight'
    assert laid_out[f'backbone.{name}'].shape == weights[name].shape  # no shape would tell
    assert not torch.equal(torch.from_numpy(laid_out[f'backbone.{name}']), weights[name])
    VIDEO_FILES['paddle'](weights, tmp_path / 'x.pdparams')
    assert torch.equal(read_checkpoint(tmp_path / 'x.pdparams').tensors[name], weights[name])


def test_pp_timesformer_without_bias_of_queries_stays_without(tmp_path: Path) -> None:
    weights = random_weights(qkv_bias=False)
    VIDEO_FILES['paddle'](weights, tmp_path / 'pp.pdparams')
    read = read_checkpoint(tmp_path / 'pp.pdparams')
    assert not read.has_qkv_bias
    assert read.describe()['qkv_bias'] is False
    assert set(read.tensors) == set(weights)


def test_what_is_dropped_on_purpose_is_in_the_account(tmp_path: Path) -> None:
    IMAGE_FILES['jax with optimiser'](random_weights('space_only'), tmp_path / 'a')
    dropped = read_checkpoint(tmp_path / 'a').account.keys('dropped')
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
    assert all(is_time(name) for name in read.account.keys('seeded'))
    assert {name for name in read.tensors if is_time(name)} == set(read.account.keys('seeded'))
