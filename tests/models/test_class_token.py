"""Only the class token leaves the backbone, so the last block computes it alone: same numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.models.attention import SelfAttention
from mmtimesformer.models.blocks import DividedSpaceTimeBlock

SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')
every_scheme = pytest.mark.parametrize('attention_type', SCHEMES)


def model_of(tiny_backbone_cfg: dict[str, Any], **changes: Any) -> TimeSformer:
    arguments = {**tiny_backbone_cfg, 'temporal_init': 'random', **changes}
    del arguments['type']
    model = TimeSformer(**arguments)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def video() -> Tensor:
    return torch.randn(2, 3, 3, 16, 40)


def run(model: TimeSformer, out_type: str, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the class token, and the gradient of every parameter."""
    model.out_type = out_type
    model.zero_grad()
    out = model(x)
    cls = out[0] if out_type == 'tokens' else out
    (cls * torch.linspace(-1, 1, cls.numel()).view_as(cls)).sum().backward()
    return cls.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@every_scheme
@pytest.mark.parametrize('qkv_bias', [True, False])
def test_the_class_token_and_its_gradients_are_those_of_the_whole_block(
    attention_type: str, qkv_bias: bool, tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = model_of(tiny_backbone_cfg, attention_type=attention_type, qkv_bias=qkv_bias).double()
    x = video().double()
    alone, gradients = run(model, 'cls_token', x)
    full, expected = run(model, 'tokens', x)
    torch.testing.assert_close(alone, full, rtol=1e-10, atol=1e-10)
    assert set(gradients) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-8, atol=1e-10, msg=name)


@every_scheme
def test_patches_of_the_last_block_are_not_computed(
    attention_type: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = model_of(tiny_backbone_cfg, attention_type=attention_type).eval()
    costs = {}
    for model.out_type in ('tokens', 'cls_token'):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(video())
        costs[model.out_type] = counter.get_total_flops()
    assert costs['cls_token'] < 0.8 * costs['tokens']  # of two blocks


@every_scheme
@pytest.mark.parametrize('rate', ['drop_rate', 'attn_drop_rate'])
def test_dropout_keeps_its_mean(
    attention_type: str, rate: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    attention = SelfAttention(12, 3, **{rate: 0.5}).train()
    tokens = torch.randn(1, 7, 12)
    with torch.no_grad():
        mean = attention.forward_first_token(tokens.expand(20_000, -1, -1)).mean(0)
        expected = attention.eval()(tokens)[0, :1]
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.02)


@every_scheme
def test_drop_path_drops_the_same_rows(
    attention_type: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = model_of(tiny_backbone_cfg, attention_type=attention_type, drop_path_rate=0.5)
    x = video()
    torch.manual_seed(3)
    alone, _ = run(model, 'cls_token', x)
    torch.manual_seed(3)
    full, _ = run(model, 'tokens', x)
    torch.testing.assert_close(alone, full, rtol=1e-4, atol=1e-4)


class Louder(DividedSpaceTimeBlock):
    def attend_space(self, frames: Tensor) -> Tensor:
        return 2 * super().attend_space(frames)


class Sharper(SelfAttention):
    def forward(self, tokens: Tensor) -> Tensor:
        return 2 * super().forward(tokens)


@pytest.mark.parametrize(('part', 'kind'), [('block', Louder), ('attention', Sharper)])
def test_a_part_of_ones_own_is_asked_in_full(
    part: str, kind: type[nn.Module], tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = model_of(tiny_backbone_cfg)
    if part == 'block':
        model.blocks[-1].__class__ = kind
    else:
        model.blocks[-1].attn.__class__ = kind
    x = video()
    torch.testing.assert_close(run(model, 'cls_token', x)[0], run(model, 'tokens', x)[0])


def test_a_hook_in_the_last_block_sees_whole_forward_passes(
    tiny_backbone_cfg: dict[str, Any],
) -> None:
    model = model_of(tiny_backbone_cfg).eval()
    shapes = []
    handle = model.blocks[-1].attn.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    model(video())
    handle.remove()
    assert shapes == [(2 * 3, 1 + 10, 28)]
    model(video())
    assert len(shapes) == 1


@every_scheme
def test_it_runs_under_autocast_and_checkpointing(
    attention_type: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = model_of(tiny_backbone_cfg, attention_type=attention_type, with_cp=True).train()
    x = video()
    expected, gradients = run(model, 'cls_token', x)
    model.with_cp = False
    again, plain = run(model, 'cls_token', x)
    torch.testing.assert_close(again, expected)
    for name in plain:
        torch.testing.assert_close(gradients[name], plain[name], msg=name)
    with torch.autocast('cpu', torch.bfloat16):
        half = model(x)
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)
