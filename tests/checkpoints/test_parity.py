"""Toy models of the other libraries, converted both ways: the same numbers come out."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints import load_checkpoint, save_checkpoint

from .conftest import CLASSES, DEPTH, FRAMES, GRID, HEADS, PATCH, SCHEMES, WIDTH, Recognizer, toy

TOLERANCE = {'rtol': 1e-5, 'atol': 1e-5}


def _video(frames: int = FRAMES) -> Tensor:
    return torch.randn(2, 3, frames, PATCH * GRID, PATCH * GRID)


def _shake(model: nn.Module) -> nn.Module:
    """Give every parameter a value of its own, so that no two can be swapped unseen."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


# -- Hugging Face --------------------------------------------------------------------------------


def _huggingface(scheme: str, head: bool = True, **changes: Any) -> nn.Module:
    from transformers import (
        TimesformerConfig,
        TimesformerForVideoClassification,
        TimesformerModel,
    )

    config = TimesformerConfig(
        image_size=PATCH * GRID,
        patch_size=PATCH,
        num_frames=FRAMES,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        attention_type=scheme,
        num_labels=CLASSES,
        **changes,
    )
    return (TimesformerForVideoClassification if head else TimesformerModel)(config).eval()


@pytest.mark.parametrize('scheme', ['divided_space_time', 'joint_space_time'])
@pytest.mark.parametrize('qkv_bias', [True, False])
def test_hugging_faces_logits_are_ours_after_conversion(scheme, qkv_bias, tmp_path) -> None:
    theirs = _shake(_huggingface(scheme, qkv_bias=qkv_bias))
    theirs.save_pretrained(tmp_path)
    ours = Recognizer(attention_type=scheme, qkv_bias=qkv_bias).eval()
    load_checkpoint(ours, tmp_path)
    video = _video()
    expected = theirs(video.transpose(1, 2)).logits
    torch.testing.assert_close(ours(video), expected, **TOLERANCE)


@pytest.mark.parametrize('scheme', ['divided_space_time', 'joint_space_time'])
def test_our_logits_are_hugging_faces_after_conversion(scheme, tmp_path) -> None:
    from transformers import TimesformerForVideoClassification

    ours = _shake(Recognizer(attention_type=scheme))
    save_checkpoint(ours, tmp_path / 'folder', 'huggingface')
    theirs, info = TimesformerForVideoClassification.from_pretrained(
        tmp_path / 'folder', output_loading_info=True
    )
    assert not info['missing_keys']
    assert not info['unexpected_keys']
    video = _video()
    logits = theirs.eval()(video.transpose(1, 2)).logits
    torch.testing.assert_close(logits, ours(video), **TOLERANCE)


@pytest.mark.parametrize('scheme', SCHEMES)
def test_a_folder_that_we_write_holds_exactly_what_hugging_face_wrote(scheme, tmp_path) -> None:
    """Also for space_only, whose weights are right there although its forward pass is not."""
    from transformers import TimesformerForVideoClassification

    theirs = _shake(_huggingface(scheme))
    theirs.save_pretrained(tmp_path / 'theirs')
    ours = Recognizer(attention_type=scheme)
    load_checkpoint(ours, tmp_path / 'theirs')
    save_checkpoint(ours, tmp_path / 'ours', 'huggingface')
    again = TimesformerForVideoClassification.from_pretrained(tmp_path / 'ours')
    before, after = theirs.state_dict(), again.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    keys = ['attention_type', 'image_size', 'layer_norm_eps', 'qkv_bias', 'num_attention_heads']
    if scheme != 'space_only':  # which is the same model for any number of frames
        keys.append('num_frames')
    for key in keys:
        assert getattr(theirs.config, key) == getattr(again.config, key)


def test_a_base_model_without_a_classifier_goes_both_ways(tmp_path) -> None:
    from transformers import TimesformerModel

    theirs = _shake(_huggingface('divided_space_time', head=False))
    theirs.save_pretrained(tmp_path / 'theirs')
    ours = TimeSformer(**toy()).eval()
    load_checkpoint(ours, tmp_path / 'theirs')
    video = _video()
    expected = theirs(video.transpose(1, 2)).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(video), expected, **TOLERANCE)
    save_checkpoint(ours, tmp_path / 'ours', 'huggingface')
    _, info = TimesformerModel.from_pretrained(tmp_path / 'ours', output_loading_info=True)
    assert not info['missing_keys']
    assert not info['unexpected_keys']


def test_hugging_face_cannot_hold_frames_that_are_not_square(tmp_path) -> None:
    with pytest.raises(ValueError, match='square frames only, this is 10 x 25'):
        save_checkpoint(Recognizer(img_size=(10, 25)), tmp_path / 'a', 'huggingface')


@pytest.fixture
def vit(tmp_path: Path) -> nn.Module:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        image_size=PATCH * GRID,
        patch_size=PATCH,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
    )
    model = _shake(ViTModel(config))
    model.save_pretrained(tmp_path)
    return model


@pytest.mark.parametrize('frames', [1, 3, 6])
@pytest.mark.parametrize('scheme', ['divided_space_time', 'space_only'])
def test_a_still_video_seeded_from_a_vit_gives_the_class_token_of_one_frame(
    scheme, frames, vit, tmp_path
) -> None:
    ours = TimeSformer(**toy(attention_type=scheme, norm_eps=1e-12)).eval()
    load_checkpoint(ours, tmp_path)
    frame = torch.randn(2, 3, PATCH * GRID, PATCH * GRID)
    still = frame[:, :, None].expand(-1, -1, frames, -1, -1)
    expected = vit(frame).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(still), expected, **TOLERANCE)


def test_a_joint_model_seeded_from_a_vit_is_that_vit_on_one_frame(vit, tmp_path) -> None:
    ours = TimeSformer(**toy(attention_type='joint_space_time', norm_eps=1e-12)).eval()
    load_checkpoint(ours, tmp_path)
    frame = torch.randn(2, 3, PATCH * GRID, PATCH * GRID)
    expected = vit(frame).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(frame[:, :, None]), expected, **TOLERANCE)


def test_an_image_classifier_of_hugging_face_comes_in_too(tmp_path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=PATCH * GRID,
        patch_size=PATCH,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        num_labels=CLASSES,
    )
    theirs = _shake(ViTForImageClassification(config))
    theirs.save_pretrained(tmp_path)
    ours = Recognizer(norm_eps=1e-12).eval()
    load_checkpoint(ours, tmp_path, keep_head=True)
    frame = torch.randn(2, 3, PATCH * GRID, PATCH * GRID)
    expected = theirs(frame).logits
    torch.testing.assert_close(ours(frame[:, :, None]), expected, **TOLERANCE)


# -- MMAction2 -----------------------------------------------------------------------------------


@pytest.fixture
def build_mmaction2():
    from mmengine.registry import DefaultScope

    before = dict(DefaultScope._instance_dict)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import mmaction.models  # noqa: F401
        from mmaction.registry import MODELS
    DefaultScope.get_instance('parity', scope_name='mmaction')

    def build(scheme: str) -> nn.Module:
        backbone = {
            'type': 'TimeSformer',
            'num_frames': FRAMES,
            'img_size': PATCH * GRID,
            'patch_size': PATCH,
            'embed_dims': WIDTH,
            'num_heads': HEADS,
            'num_transformer_layers': DEPTH,
            'attention_type': scheme,
        }
        head = {'type': 'TimeSformerHead', 'num_classes': CLASSES, 'in_channels': WIDTH}
        return MODELS.build({'type': 'Recognizer3D', 'backbone': backbone, 'cls_head': head}).eval()

    yield build
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


def _logits(recogniser: nn.Module, video: Tensor) -> Tensor:
    return recogniser.cls_head(recogniser.backbone(video))


@pytest.mark.parametrize('scheme', SCHEMES)
def test_mmaction2s_logits_are_ours_after_conversion(scheme, build_mmaction2, tmp_path) -> None:
    theirs = _shake(build_mmaction2(scheme))
    torch.save({'meta': {}, 'state_dict': theirs.state_dict()}, tmp_path / 'a.pth')
    ours = Recognizer(attention_type=scheme).eval()
    load_checkpoint(ours, tmp_path / 'a.pth')
    video = _video()
    torch.testing.assert_close(ours(video), _logits(theirs, video), **TOLERANCE)


@pytest.mark.parametrize('scheme', SCHEMES)
def test_our_logits_are_mmaction2s_after_conversion(scheme, build_mmaction2, tmp_path) -> None:
    ours = _shake(Recognizer(attention_type=scheme))
    save_checkpoint(ours, tmp_path / 'a.pth', 'mmaction2')
    theirs = build_mmaction2(scheme)
    theirs.load_state_dict(torch.load(tmp_path / 'a.pth')['state_dict'], strict=True)
    video = _video()
    torch.testing.assert_close(_logits(theirs, video), ours(video), **TOLERANCE)


def test_no_bias_in_ours_is_a_bias_of_zero_in_mmaction2(build_mmaction2, tmp_path) -> None:
    ours = _shake(Recognizer(qkv_bias=False))
    save_checkpoint(ours, tmp_path / 'a.pth', 'mmaction2')
    theirs = build_mmaction2('divided_space_time')
    theirs.load_state_dict(torch.load(tmp_path / 'a.pth')['state_dict'], strict=True)
    video = _video()
    torch.testing.assert_close(_logits(theirs, video), ours(video), **TOLERANCE)


# -- timm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('ending', ['pth', 'npz'])
def test_timms_vit_gives_its_features_and_reads_jax_as_we_do(ending, tmp_path) -> None:
    timm = pytest.importorskip('timm', exc_type=Exception)  # it needs a torchvision that fits
    import numpy as np

    from .conftest import as_jax, random_weights

    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=PATCH * GRID,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=CLASSES,
    ).eval()
    if ending == 'pth':
        _shake(theirs)
        torch.save(theirs.state_dict(), tmp_path / 'vit.pth')
    else:
        np.savez(tmp_path / 'vit.npz', **as_jax(random_weights('space_only')))
        theirs.load_pretrained(str(tmp_path / 'vit.npz'))
    ours = TimeSformer(**toy()).eval()
    load_checkpoint(ours, tmp_path / f'vit.{ending}')
    frame = torch.randn(2, 3, PATCH * GRID, PATCH * GRID)
    still = frame[:, :, None].expand(-1, -1, FRAMES, -1, -1)
    expected = theirs.forward_features(frame)[:, 0]
    torch.testing.assert_close(ours(still), expected, **TOLERANCE)
