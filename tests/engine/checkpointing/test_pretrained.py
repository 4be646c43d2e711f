import pytest
import torch
from mmengine.registry import MODELS

import mmtimesformer.engine.checkpointing.pretrained  # noqa: F401
from mmtimesformer.checkpoints import CheckpointError
from tests.checkpoints.conftest import IMAGE_FILES, VIDEO_FILES, random_weights, toy


def _backbone(checkpoint, **changes):
    init_cfg = {'type': 'mmtimesformer.Pretrained', 'checkpoint': str(checkpoint)}
    init_cfg.update(changes.pop('how', {}))
    return MODELS.build(
        {'type': 'mmtimesformer.TimeSformer', **toy(**changes), 'init_cfg': init_cfg}
    )


@pytest.mark.parametrize('kind', ['jax', 'timm bin', 'huggingface_vit', 'mmpretrain', 'paddle_vit'])
def test_a_config_starts_a_model_from_any_image_vit(kind, default_scope, tmp_path) -> None:
    weights = random_weights('space_only')
    IMAGE_FILES[kind](weights, tmp_path / 'vit')
    model = _backbone(tmp_path / 'vit', num_frames=5)
    model.init_weights()
    loaded = model.state_dict()
    assert torch.equal(loaded['blocks.1.mlp.fc1.weight'], weights['blocks.1.mlp.fc1.weight'])
    assert torch.equal(
        loaded['blocks.1.temporal_attn.qkv.weight'], weights['blocks.1.attn.qkv.weight']
    )
    assert not loaded['blocks.1.temporal_fc.weight'].any()


def test_a_start_that_does_not_match_is_refused_and_never_silent(tmp_path) -> None:
    torch.save({f'layer{i}.weight': torch.zeros(3) for i in range(9)}, tmp_path / 'resnet.pth')
    with pytest.raises(CheckpointError, match='no known format explains these 9 keys'):
        _backbone(tmp_path / 'resnet.pth').init_weights()
    VIDEO_FILES['mmaction2'](random_weights(), tmp_path / 'divided.pth')
    with pytest.raises(CheckpointError, match='change_attention'):
        _backbone(tmp_path / 'divided.pth', attention_type='space_only').init_weights()
    how = {'change_attention': True}
    _backbone(tmp_path / 'divided.pth', attention_type='space_only', how=how).init_weights()


def test_a_misspelt_option_of_the_start_is_an_error(tmp_path) -> None:
    with pytest.raises(TypeError, match='prefix'):
        _backbone(tmp_path / 'a', how={'prefix': 'backbone.'}).init_weights()
