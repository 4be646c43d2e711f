"""Layer-wise learning rates: each parameter once, at the rate of its depth."""

from typing import Any

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmtimesformer import TimeSformer


def model_of(**backbone: Any) -> nn.Module:
    model = nn.Module()
    model.backbone = TimeSformer(
        num_frames=2, img_size=16, patch_size=8, embed_dims=8, num_layers=3, num_heads=2, **backbone
    )
    model.cls_head = nn.Linear(8, 5)
    return model


def groups_of(model: nn.Module, decay_rate: Any = 0.5) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, by name."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmtimesformer.LayerDecay',
            paramwise_cfg=dict(decay_rate=decay_rate),
            optimizer=dict(type='AdamW', lr=0.8, weight_decay=0.05),
        ),
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        (names[id(parameter)], (group['lr'], group['weight_decay']))
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    ]
    assert len(found) == len(dict(found)), 'a parameter is in two groups'
    return dict(found)


def test_the_rate_halves_with_every_layer_towards_the_pixels() -> None:
    groups = groups_of(model_of())
    for name, rate in {
        'cls_head.weight': 0.8,
        'backbone.norm.weight': 0.8,
        'backbone.blocks.2.mlp.fc1.weight': 0.4,
        'backbone.blocks.1.temporal_fc.weight': 0.2,
        'backbone.blocks.0.attn.qkv.bias': 0.1,
        'backbone.patch_embed.proj.weight': 0.05,
        'backbone.time_embed': 0.05,
        'backbone.pos_embed': 0.05,
        'backbone.cls_token': 0.05,
    }.items():
        assert groups[name][0] == pytest.approx(rate), name


def test_only_matrices_and_the_patches_convolution_decay() -> None:
    for name, (_, decay) in groups_of(model_of()).items():
        is_matrix = name.endswith('weight') and 'norm' not in name
        assert decay == (0.05 if is_matrix else 0.0), name


def test_every_parameter_that_learns_is_in_and_frozen_ones_are_not() -> None:
    model = model_of(frozen_stages=2)
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert set(groups_of(model)) == learning
    assert not any('blocks.1' in name for name in learning)


def test_a_rate_of_one_is_the_same_everywhere() -> None:
    assert {rate for rate, _ in groups_of(model_of(), 1).values()} == {0.8}


@pytest.mark.parametrize('rate', [None, 0, 1.5, -1, 'fast'])
def test_a_rate_out_of_range_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match=r'decay_rate=.* set optim_wrapper\.paramwise_cfg'):
        groups_of(model_of(), rate)


def test_schedules_keep_the_ratios() -> None:
    from mmengine.optim import MultiStepLR

    model = model_of()
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmtimesformer.LayerDecay',
            paramwise_cfg=dict(decay_rate=0.5),
            optimizer=dict(type='SGD', lr=0.8),
        ),
    )
    scheduler = MultiStepLR(wrapper.optimizer, milestones=[1], gamma=0.1)
    before = torch.tensor(wrapper.get_lr()['lr'])
    wrapper.optimizer.step()
    scheduler.step()
    assert torch.allclose(torch.tensor(wrapper.get_lr()['lr']), before / 10)
