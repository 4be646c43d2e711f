"""W19: short cuts that use weights past a layer's forward pass step aside for other layers."""

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_map

from mmtimesformer import TimeSformer
from mmtimesformer.models.fused_linear import is_plain

SCHEMES = 'divided_space_time', 'joint_space_time', 'space_only'
LINEAR = torch.ops.aten.linear.default


class Packed(Tensor):
    """Weights as a quantisation library keeps them: a linear layer can use them, and no more."""

    @staticmethod
    def __new__(cls, plain: Tensor) -> 'Packed':
        return Tensor._make_wrapper_subclass(cls, plain.shape, dtype=plain.dtype)

    def __init__(self, plain: Tensor) -> None:
        self.plain = plain

    @classmethod
    def __torch_function__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (F.linear, F.conv2d):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*tree_map(_unpack, args), **kwargs)
        return super().__torch_function__(func, kinds, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return Packed(args[0].plain)
        raise NotImplementedError(f'{func} is not implemented')


def _unpack(one: Any) -> Any:
    return one.plain if isinstance(one, Packed) else one


def pack(layer: nn.Module) -> None:
    layer.weight = nn.Parameter(Packed(layer.weight.detach()), requires_grad=False)


class LoRA(nn.Module):
    """A layer as PEFT wraps it: the base layer, a low-rank update, and the base's attributes."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base
        rank = 2
        if isinstance(base, nn.Conv2d):
            size = base.kernel_size
            self.down = nn.Conv2d(base.in_channels, rank, size, stride=base.stride, bias=False)
            self.up: nn.Module = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        else:
            self.down = nn.Linear(base.in_features, rank, bias=False)
            self.up = nn.Linear(rank, base.out_features, bias=False)

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor:
        return self.base_layer.bias

    @property
    def kernel_size(self) -> Any:
        return self.base_layer.kernel_size

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.up(self.down(x))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def replace(model: nn.Module, wrap: Any) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in (nn.Linear, nn.Conv2d):
                setattr(module, name, wrap(child))


@pytest.fixture(params=SCHEMES)
def model(request: pytest.FixtureRequest, tiny_backbone_cfg: dict[str, Any]) -> TimeSformer:
    cfg = {key: value for key, value in tiny_backbone_cfg.items() if key != 'type'}
    built = TimeSformer(**cfg, attention_type=request.param, temporal_init='random').eval()
    built.requires_grad_(False)
    return built


VIDEO = torch.randn(2, 3, 5, 32, 40, generator=torch.Generator().manual_seed(1))


def test_weights_that_only_a_linear_layer_can_use_give_the_same_numbers(model) -> None:
    expected = model(VIDEO)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            pack(module)
    torch.testing.assert_close(model(VIDEO), expected, rtol=1e-5, atol=1e-5)


def test_attention_maps_of_packed_weights_are_those_of_plain_ones(model) -> None:
    expected = model.attention_maps(VIDEO).rollout()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            pack(module)
    found = model.attention_maps(VIDEO).rollout()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_every_low_rank_update_has_an_effect(model) -> None:
    """Also that of the patch embedding, whose weights are used as those of a linear map."""
    replace(model, LoRA)
    model.requires_grad_(True)
    model(VIDEO).square().sum().backward()
    updates = {n: m.up.weight.grad for n, m in model.named_modules() if isinstance(m, LoRA)}
    assert 'patch_embed.proj' in updates
    for name, gradient in updates.items():
        assert gradient is not None and gradient.any(), name


def test_a_parametrisation_and_the_weight_that_it_computes_give_the_same_numbers(model) -> None:
    doubled = copy.deepcopy(model)
    for module in list(doubled.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.data *= 2
    for module in list(model.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            parametrize.register_parametrization(module, 'weight', Doubled())
    torch.testing.assert_close(model(VIDEO), doubled(VIDEO), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ['qkv', 'proj', 'fc1', 'patch_embed.proj', 'temporal_fc'])
def test_a_forward_that_was_set_on_a_layer_is_run(model, name: str) -> None:
    layers = [module for key, module in model.named_modules() if key.endswith(name)]
    if not layers:
        pytest.skip(f'{model.attention_type} has no {name}')
    expected = model(VIDEO)
    calls = []
    for layer in layers:
        old = layer.forward
        layer.forward = lambda x, old=old, layer=layer: (calls.append(layer), old(x))[1]
    torch.testing.assert_close(model(VIDEO), expected, rtol=1e-5, atol=1e-5)
    assert len({id(layer) for layer in calls}) == len(layers)


def test_a_hook_on_the_patch_embedding_sees_what_passes(model) -> None:
    seen = []
    model.patch_embed.proj.register_forward_hook(lambda *passed: seen.append(passed[-1].shape))
    model(VIDEO)
    assert seen == [(10, 28, 4, 5)]


def test_dynamically_quantised_layers_run(model) -> None:
    expected = model(VIDEO)
    with warnings.catch_warnings():  # of the end of torch.ao.quantization
        warnings.simplefilter('ignore')
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
        assert (quantised(VIDEO) - expected).abs().max() < 0.2


def test_plain_layers_keep_the_fast_path(tiny_backbone_cfg: dict[str, Any]) -> None:
    cfg = {key: value for key, value in tiny_backbone_cfg.items() if key != 'type'}
    block = TimeSformer(**cfg).blocks[0]
    assert is_plain(block.attn.qkv) and is_plain(block.temporal_fc)
    with torch.device('meta'):
        assert is_plain(nn.Linear(2, 3))
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert is_plain(nn.Linear(2, 3))  # as torch.export runs a model
