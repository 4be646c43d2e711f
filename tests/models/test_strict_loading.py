"""Loading with strict=False, as MMEngine and MMAction2 do: the complete backbone, or an error."""

from typing import Any

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmtimesformer import TimeSformer


@pytest.fixture
def model(tiny_backbone_cfg: dict[str, Any]) -> nn.Module:
    arguments = {key: value for key, value in tiny_backbone_cfg.items() if key != 'type'}
    return nn.ModuleDict({'backbone': TimeSformer(**arguments), 'cls_head': nn.Linear(28, 5)})


def changed(state_dict: dict[str, Any], **renamed: str) -> dict[str, Any]:
    names = {name: name for name in state_dict}
    for old, new in renamed.items():
        names = {name: new_name.replace(old, new) for name, new_name in names.items()}
    return {names[name]: tensor for name, tensor in state_dict.items()}


def test_its_own_weights_are_loaded(model: nn.Module) -> None:
    wanted = {name: torch.rand_like(value) for name, value in model.state_dict().items()}
    load_state_dict(model, wanted)
    for name, value in model.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_weights_of_a_classifier_alone_are_loaded(model: nn.Module) -> None:
    wanted = {'cls_head.weight': torch.rand(5, 28), 'cls_head.bias': torch.rand(5)}
    load_state_dict(model, wanted)
    assert torch.equal(model['cls_head'].weight, wanted['cls_head.weight'])


@pytest.mark.parametrize(
    'renamed',
    [
        {'backbone.blocks': 'backbone.transformer_layers.layers'},  # MMAction2
        {'temporal_attn': 'time_attn'},
        {'blocks.1': 'blocks.7'},
    ],
    ids=lambda renamed: ' '.join(renamed),
)
def test_weights_under_other_names_are_refused(model: nn.Module, renamed: dict[str, str]) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r'no place for backbone\..*convert_checkpoint'):
        load_state_dict(model, changed(before, **renamed))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_of_another_attention_type_are_refused(model: nn.Module) -> None:
    joint = {name: value for name, value in model.state_dict().items() if 'temporal' not in name}
    with pytest.raises(ValueError, match=r'lacks 16 of the \d+ .*temporal_norm1'):
        load_state_dict(model, joint)


def test_what_was_trained_may_come_alone(model: nn.Module) -> None:
    wanted = {'backbone.blocks.1.norm1.weight': torch.rand(28)}
    load_state_dict(model, wanted)
    assert torch.equal(model['backbone'].blocks[1].norm1.weight, *wanted.values())


@pytest.mark.parametrize('name', ['pos_embed', 'time_embed'])
def test_embeddings_of_another_size_are_refused_with_both_shapes(
    model: nn.Module, name: str
) -> None:
    weights = model.state_dict()
    weights[f'backbone.{name}'] = torch.rand(1, 99, 28)
    with pytest.raises(ValueError, match=rf'backbone.{name} has shape \(1, 99, 28\)'):
        load_state_dict(model, weights)
