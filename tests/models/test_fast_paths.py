"""What is done faster is done the same: folds, packed attention, portions, recomputation."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from mmtimesformer import TimeSformer
from mmtimesformer.models import attention, timesformer
from mmtimesformer.models.activation_checkpointing import LEVELS
from mmtimesformer.models.attention import (
    attend,
    attend_by_matmul,
    attend_in_portions,
    attend_packed,
    group_of,
    is_faster_by_matmul,
)
from mmtimesformer.models.fused_linear import multiply

SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')
T, WIDTH = 4, 24  # 4 frames of 10 patches: more tokens than channels, so that folding pays


def model_of(**changes: Any) -> TimeSformer:
    torch.manual_seed(0)
    arguments: dict[str, Any] = dict(
        num_frames=T, img_size=(16, 40), patch_size=8, embed_dims=WIDTH, num_heads=3, num_layers=3,
        drop_path_rate=0.0, temporal_init='random',
    )  # fmt: skip
    model = TimeSformer(**{**arguments, **changes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def video(b: int = 2) -> Tensor:
    return torch.randn(b, 3, T, 16, 40, generator=torch.Generator().manual_seed(1))


def fused_linears(model: TimeSformer) -> list[Any]:
    return [block._fused for block in model.blocks]


def unfolded(model: TimeSformer) -> TimeSformer:
    """The same model with something of the user's between the two layers."""
    other = copy.deepcopy(model)
    for block in other.blocks:
        block.temporal_fc.register_forward_hook(lambda *_: None)
    return other


# The two projections of temporal attention are folded into one


def test_folding_changes_neither_numbers_nor_gradients() -> None:
    folded, plain = model_of().double(), unfolded(model_of().double())
    for model in (folded, plain):
        model(video().double()).square().sum().backward()
    torch.testing.assert_close(folded(video().double()), plain(video().double()))
    for (name, one), other in zip(folded.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_folding_leaves_drop_path_as_it_is() -> None:
    folded = model_of(drop_path_rate=0.5).train()
    plain = unfolded(folded)
    torch.manual_seed(5)
    one = folded(video())
    torch.manual_seed(5)
    torch.testing.assert_close(one, plain(video()), rtol=1e-4, atol=1e-5)


def test_the_product_is_kept_on_a_cpu_and_made_anew_only_for_other_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    monkeypatch.setattr(
        'mmtimesformer.models.fused_linear.multiply',
        lambda *layers: made.append(1) or multiply(*layers),  # type: ignore[func-returns-value]
    )
    model = model_of().eval()
    with torch.no_grad():
        for _ in range(3):
            model(video())
        assert len(made) == 3  # one for each block
        model.blocks[1].temporal_fc.weight.data[0, 0] += 1
        model(video())
    assert len(made) == 4
    model(video())  # gradients are wanted: a product that differentiates, every time
    assert len(made) == 7


@pytest.mark.parametrize('layer', ['temporal_attn.proj', 'temporal_fc'])
@pytest.mark.parametrize('part', ['weight', 'bias'])
@pytest.mark.parametrize('way', ['in_place', 'data', 'load', 'swap_rows', 'swap_columns', 'optim'])
def test_the_product_keeps_step_with_the_weights(layer: str, part: str, way: str) -> None:
    model = model_of().eval()
    with torch.no_grad():
        before = model(video())
    parameter: nn.Parameter = getattr(model.blocks[0].get_submodule(layer), part)
    value = parameter.detach().clone()
    if way == 'in_place':
        with torch.no_grad():
            parameter.mul_(2)
    elif way == 'data':  # as averaged models (EMA) do: the tensor's version stays
        parameter.data.copy_(2 * value)
    elif way == 'load':
        state = {k: v.clone() for k, v in model.state_dict().items()}
        state[f'blocks.0.{layer}.{part}'] *= 2
        model.load_state_dict(state)
    elif way == 'swap_rows':
        parameter.data.copy_(value.flip(0))
    elif way == 'swap_columns':
        parameter.data.copy_(value.flip(-1))
    else:
        parameter.grad = torch.randn_like(parameter)
        torch.optim.SGD([parameter], lr=0.5).step()
    with torch.no_grad():
        after = model(video())
        expected = unfolded(model)(video())
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)


def test_the_product_is_no_part_of_the_model(tmp_path: Any) -> None:
    model = model_of().eval()
    with torch.no_grad():
        model(video())
    assert fused_linears(model)[0]._cached is not None
    assert not any('fused' in name for name in model.state_dict())
    assert fused_linears(copy.deepcopy(model))[0]._cached is None
    with torch.no_grad():
        torch.testing.assert_close(model.double()(video().double()).float(), model_of()(video()))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_folding_goes_with_autocast(dtype: torch.dtype) -> None:
    model = model_of().eval()
    with torch.no_grad():
        expected = model(video())
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            torch.testing.assert_close(model(video()).float(), expected, rtol=0.1, atol=0.1)


def test_a_layer_of_ones_own_is_not_folded() -> None:
    class Doubled(nn.Linear):  # as LoRA and quantised layers
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = model_of().eval()
    block = model.blocks[0]
    frames = torch.randn(2, T, 11, WIDTH)
    plain = block.attend_time(frames) - block.temporal_fc.bias
    block.temporal_fc.__class__ = Doubled
    doubled = block.attend_time(frames) - 2 * block.temporal_fc.bias
    torch.testing.assert_close(doubled[:, :, 1:], 2 * plain[:, :, 1:], rtol=1e-4, atol=1e-5)


# Attention on CUDA: short sequences are packed, many go in portions


@pytest.mark.parametrize(('b', 'n', 'group'), [(196, 8, 14), (12, 8, 12), (7, 96, 1), (30, 50, 2)])
def test_short_sequences_are_packed_into_one_tile(b: int, n: int, group: int) -> None:
    assert group_of(b, n) == group
    q, k, v = (torch.randn(b, 3, n, 5, dtype=torch.double, requires_grad=True) for _ in range(3))
    expected = F.scaled_dot_product_attention(q, k, v)
    packed = attend_packed(q, k, v, group)
    torch.testing.assert_close(packed, expected)
    gradients = torch.autograd.grad(packed.square().sum(), (q, k, v))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), (q, k, v)))


@pytest.mark.parametrize('shape', [(5, 3, 7, 4), (2, 3, 131, 4), (1, 2, 300, 8)])
@pytest.mark.parametrize('scores', [attention.SCORES, 1000])
def test_matrix_products_equal_the_attention_kernel(
    shape: tuple[int, ...], scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, 'SCORES', scores)  # one sequence at a time
    q, k, v = torch.randn(3, *shape, dtype=torch.double).requires_grad_()
    bias = torch.randn(shape[0], 1, 1, shape[2], dtype=torch.double)
    biased = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    torch.testing.assert_close(attend_by_matmul(q, k, v, bias=bias), biased)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend_by_matmul(q, k, v), expected)
    (found,) = torch.autograd.grad(attend_by_matmul(q, k, v).square().sum(), k)
    (right,) = torch.autograd.grad(expected.square().sum(), k)
    torch.testing.assert_close(found, right)


def test_which_sequences_attend_by_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones always; bfloat16 of any length in inference; never what is exported."""
    monkeypatch.setattr(attention, 'has_amx', lambda: False)
    monkeypatch.setattr(attention, 'is_onednn_used', lambda: False)

    def chosen(n: int, dtype: torch.dtype) -> bool:
        return is_faster_by_matmul(torch.empty(1, 1, n, 8, dtype=dtype))

    assert chosen(8, torch.float32) and not chosen(197, torch.float32)
    assert chosen(197, torch.bfloat16) and not chosen(1569, torch.bfloat16)  # gradients are on
    with torch.no_grad():
        assert chosen(1569, torch.bfloat16)
    monkeypatch.setattr(attention, 'has_amx', lambda: True)
    assert chosen(8, torch.bfloat16) and not chosen(197, torch.bfloat16)
    monkeypatch.setattr(attention, 'is_onednn_used', lambda: True)
    assert chosen(197, torch.float32) and not chosen(1569, torch.float32)
    monkeypatch.setattr(attention, 'is_exported', lambda: True)
    assert not chosen(8, torch.float32)


def test_dropout_of_attention_by_matrix_products() -> None:
    """Weights are dropped one by one and scaled up: the mean over many draws stays."""
    q, k = torch.zeros(2, 1, 1, 8, 4)
    v = torch.ones(1, 1, 8, 4)
    torch.manual_seed(0)
    draws = torch.stack([attend(q, k, v, 0.5)[0, 0, 0, 0] for _ in range(400)])
    assert draws.std() > 0.2 and abs(draws.mean() - 1) < 0.08


def test_any_number_of_sequences_can_attend(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(23, 2, 3, 4) for _ in range(3))
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend_in_portions(q, k, v, 5), expected)
    monkeypatch.setattr(attention, 'SEQUENCES', 4)
    torch.testing.assert_close(attend_packed(q[:22], k[:22], v[:22], 2), expected[:22])


# Inference on a CPU: videos in portions


@pytest.mark.parametrize('scheme', SCHEMES)
def test_videos_in_portions_give_what_all_at_once_give(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(attention_type=scheme).eval()
    sizes = []
    run = TimeSformer._forward_chunk
    monkeypatch.setattr(
        TimeSformer, '_forward_chunk', lambda self, x: sizes.append(len(x)) or run(self, x)
    )
    with torch.no_grad():
        expected = model(video(5))
        monkeypatch.setattr(timesformer, 'LARGE', 2 * T * 10 * 4 * WIDTH * 4)
        found = model(video(5))
        hook = model.blocks[0].register_forward_hook(lambda *_: None)
        model(video(5))  # with a hook, all videos run at once
        hook.remove()
    model(video(5))  # gradients are wanted
    assert sizes == [5, 2, 2, 1, 5, 5]
    torch.testing.assert_close(found, expected)


# Recomputation


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('level', LEVELS[1:])
def test_recomputing_changes_no_gradient(scheme: str, level: bool | str) -> None:
    """With drop path and dropout: random numbers must be drawn again as they were."""
    rates = dict(drop_path_rate=0.3, attn_drop_rate=0.2, drop_rate=0.1)
    models = [model_of(attention_type=scheme, with_cp=x, **rates).train() for x in (False, level)]
    for model in models:
        torch.manual_seed(7)
        model(video()).square().sum().backward()
    for (name, one), other in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


@pytest.mark.parametrize('level', ['pointwise', 'projections', 'mlp', 'block'])
def test_recomputing_goes_with_autocast(level: str) -> None:
    """Another pass in bfloat16 rounds as the first did, so not a bit is different."""
    gradients = []
    for cp in (False, level):
        model = model_of(with_cp=cp, drop_path_rate=0.3).train()
        torch.manual_seed(7)
        with torch.autocast('cpu', torch.bfloat16):
            out = model(video())
        assert out.dtype == torch.float32  # of the last norm
        out.square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for again, kept in zip(*gradients, strict=True):
        torch.testing.assert_close(again, kept, rtol=0, atol=0)


@pytest.fixture
def alone_in_a_group(tmp_path: Any) -> Any:
    """A process group of this process."""
    store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('level', LEVELS)
def test_recomputing_goes_with_ddp(level: bool | str, alone_in_a_group: None) -> None:
    """Each parameter is announced to the other processes once, and none is forgotten."""
    plain = model_of(drop_path_rate=0.3).train()
    shared = DistributedDataParallel(model_of(with_cp=level, drop_path_rate=0.3).train())
    for _ in range(2):  # DDP notices only in the second step what it missed in the first
        for model in (plain, shared):
            torch.manual_seed(7)
            model.zero_grad()
            model(video()).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


def test_each_level_computes_again_what_it_says() -> None:
    """Products of matrices, in units of one token's ``d x d``: no level does more than its own."""
    counts = []
    for level in (False, 'pointwise', 'projections', 'mlp', 'block'):
        model = model_of(with_cp=level, num_layers=2, out_type='tokens').train()
        with FlopCounterMode(display=False) as counter:
            out = sum(x.square().sum() for x in model(video()))
            out.backward()
        counts.append(counter.get_flop_counts()['Global'])
    products = [
        sum(n for op, n in one.items() if op in (torch.ops.aten.addmm, torch.ops.aten.mm))
        for one in counts
    ]
    nothing, pointwise, projections, mlp, block = (p / (2 * WIDTH**2) for p in products)
    tracks, tokens, blocks = 2 * T * 10, 2 * T * 11, 2
    assert pointwise == nothing
    assert projections - pointwise == blocks * (tracks + tokens)  # of time and of space
    assert mlp - projections == blocks * 4 * tokens  # its first layer
    assert block - mlp >= blocks * 3 * (tracks + tokens)  # queries, keys and values


@pytest.mark.slow
@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('level', [False, 'mlp', 'block'])
def test_the_model_compiles_as_one_graph(scheme: str, level: bool | str) -> None:
    """On CPU Inductor, which needs a C++ compiler; ``fullgraph`` refuses any break."""
    torch._dynamo.reset()
    model = model_of(attention_type=scheme, with_cp=level, num_layers=2).train()
    compiled = torch.compile(model, fullgraph=True)
    gradients = []
    for one in (model, compiled):
        model.zero_grad()
        one(video()).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(video()), model(video()), rtol=1e-4, atol=1e-4)
