"""Attention maps are the weights that were used; what follows from them obeys its own laws."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.models import AttentionMaps, SelfAttention, attention_maps
from mmtimesformer.models.attention_maps import mean_weights
from mmtimesformer.registry import MODELS

T, H, W = 3, 2, 5  # frames, patch rows, patch columns: all different
P = H * W
SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')
every_scheme = pytest.mark.parametrize('attention_type', SCHEMES)


def model_of(cfg: dict[str, Any], std: float = 0.3, **changes: Any) -> TimeSformer:
    """Build a model whose every weight is random, so that no map is flat."""
    arguments = {**cfg, 'temporal_init': 'random', **changes}
    del arguments['type']
    model = TimeSformer(**arguments)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model.eval()


def video(t: int = T, b: int = 2) -> Tensor:
    return torch.randn(b, 3, t, 8 * H, 8 * W)


def maps_of(maps: AttentionMaps, layer: int) -> list[Tensor]:
    if maps.attention_type == 'joint_space_time':
        return [maps.joint(layer)]
    if maps.attention_type == 'space_only':
        return [maps.spatial(layer)]
    return [maps.spatial(layer), maps.temporal(layer)]


# What the maps are


@every_scheme
def test_weights_of_every_layer_and_head_sum_to_one(
    attention_type: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    maps = model_of(tiny_backbone_cfg, attention_type=attention_type).attention_maps(video())
    shapes = {
        'divided_space_time': [(2, T, 4, 1 + P, 1 + P), (2, P, 4, T, T)],
        'joint_space_time': [(2, 4, 1 + P * T, 1 + P * T)],
        'space_only': [(2, T, 4, 1 + P, 1 + P)],
    }
    for layer in (0, 1):
        found = maps_of(maps, layer)
        assert [tuple(weights.shape) for weights in found] == shapes[attention_type]
        for weights in found:
            assert weights.min() >= 0
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@every_scheme
def test_weights_times_values_are_what_the_attention_gathered(
    attention_type: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = model_of(tiny_backbone_cfg, attention_type=attention_type).double()
    maps = model.attention_maps(video().double())
    for layer in maps.layers.values():
        for record in filter(None, (layer.space, layer.time)):
            gathered = record.weights() @ record.attention.qkv_heads(record.tokens)[2]
            answer = record.attention.proj(rearrange(gathered, 'b heads n c -> b n (heads c)'))
            torch.testing.assert_close(answer, record.attention(record.tokens))


def test_maps_lie_in_the_order_that_they_say(tiny_backbone_cfg: dict[str, Any]) -> None:
    """One patch of one video changes; in the first layer only its frame and its track notice."""
    model = model_of(tiny_backbone_cfg, num_layers=1)
    before = video()
    after = before.clone()
    b, t, row, column = 1, 2, 1, 3
    after[b, :, t, 8 * row : 8 * (row + 1), 8 * column : 8 * (column + 1)] += 1
    before, after = model.attention_maps(before), model.attention_maps(after)

    time = (after.temporal() - before.temporal()).abs().amax((2, 3, 4)) > 1e-6  # b p
    assert time.nonzero().tolist() == [[b, row * W + column]]
    # The others of its track have looked at it, so all frames of the video have changed: but only
    # at that patch have the frames' tokens.
    space = after.layers[0].space.tokens - before.layers[0].space.tokens
    moved = rearrange(space.abs().amax(-1) > 1e-6, '(b t) n -> b t n', t=T)
    assert moved.nonzero().tolist() == [[b, frame, 1 + row * W + column] for frame in range(T)]


@every_scheme
@pytest.mark.parametrize('out_type', ['cls_token', 'tokens', 'hidden_states'])
def test_asking_for_maps_changes_no_output(
    attention_type: str, out_type: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = model_of(tiny_backbone_cfg, attention_type=attention_type, out_type=out_type)
    x = video()
    with torch.no_grad():
        before = model(x)
        maps = model.attention_maps(x)
        after = model(x)
    for a, b in zip(flat(after), flat(before), strict=True):
        assert torch.equal(a, b)
    # While it is watched, no step is folded or left out.
    torch.testing.assert_close(maps.output, before)


def flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output for tensor in flat(part)]


@pytest.mark.parametrize('with_score', [False, True])
def test_no_hook_and_no_gradient_stays_behind(
    with_score: bool, tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = model_of(tiny_backbone_cfg)
    maps = model.attention_maps(video(), score=(lambda cls: cls[:, 0]) if with_score else None)
    for part in model.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks
    assert all(parameter.grad is None for parameter in model.parameters())
    kept = [maps.output, *(record.space.tokens for record in maps.layers.values())]
    assert not any(tensor.requires_grad for tensor in kept)
    with pytest.raises(ValueError, match='cannot be cut'):
        model.attention_maps(torch.zeros(1, 3, 2, 8, 9))
    assert not model.blocks[0].attn._forward_pre_hooks


def test_a_pass_without_maps_forms_no_weights(
    tiny_backbone_cfg: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(tiny_backbone_cfg)
    monkeypatch.delattr(SelfAttention, 'attention_weights')
    model(video())


def test_chosen_layers_alone_are_kept(tiny_backbone_cfg: dict[str, Any]) -> None:
    model = model_of(tiny_backbone_cfg, num_layers=3)
    x = video()
    every, last = model.attention_maps(x), model.attention_maps(x, layers=[-1])
    assert list(last.layers) == [2]
    torch.testing.assert_close(last.spatial(), every.spatial(2))
    with pytest.raises(ValueError, match='layer 0 was not recorded; these were: 2'):
        last.spatial(0)


# A model that attends to one place

PLACE, FRAME = (1, 3), 2


@pytest.fixture
def one_patch_model(
    tiny_backbone_cfg: dict[str, Any], request: pytest.FixtureRequest
) -> TimeSformer:
    """All tokens of all heads attend to patch (1, 3), and along time at frame 2.

    A position and a time have a mark in a channel of their own, every key is made of these two
    channels, and every query matches both. Blocks add nothing, so each block gets the same marks.
    """
    changes = getattr(request, 'param', {})
    model = model_of({**tiny_backbone_cfg, 'num_heads': 2, **changes}, std=0.0)
    model.pos_embed.data[0, 1 + PLACE[0] * W + PLACE[1], 0] = 5
    if model.time_embed is not None:
        model.time_embed.data[0, FRAME, 1] = 5
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, SelfAttention):
            d = part.proj.in_features
            for head in range(2):
                part.qkv.bias.data[head * d // 2] = 10  # queries
                part.qkv.weight.data[d + head * d // 2, [0, 1]] = 1  # keys
    return model


@pytest.mark.parametrize(
    'one_patch_model', [{'attention_type': scheme} for scheme in SCHEMES], indirect=True
)
@pytest.mark.parametrize('how', ['from_class', 'rollout'])
def test_a_model_that_looks_at_one_patch_is_shown_looking_there(
    one_patch_model: TimeSformer, how: str
) -> None:
    maps = one_patch_model.attention_maps(video(b=1))
    shown = maps.rollout()[0] if how == 'rollout' else maps.from_class()[0].mean(0)
    assert shown.shape == (T, H, W)
    for frame in shown:
        place = divmod(int(frame.argmax()), W)
        assert place == PLACE
        assert frame[PLACE] > 10 * frame.flatten().topk(2).values[1] or how == 'rollout'
    if maps.attention_type == 'joint_space_time' or (
        how == 'rollout' and maps.attention_type == 'divided_space_time'
    ):
        assert int(shown.sum((1, 2)).argmax()) == FRAME


def test_temporal_maps_show_the_frame_that_is_attended_to(one_patch_model: TimeSformer) -> None:
    maps = one_patch_model.attention_maps(video(b=1))
    for layer in (0, 1):
        temporal = maps.temporal(layer)[0]  # p heads t t
        assert temporal[..., FRAME].min() > 0.9
        spatial = maps.spatial(layer)[0]  # t heads 1+p 1+p
        assert spatial[..., 1 + PLACE[0] * W + PLACE[1]].min() > 0.9


# Rollout


def dense_rollout(maps: AttentionMaps) -> Tensor:
    """Multiply whole matrices, written out token by token: of the first video."""
    t, h, w = maps.grid
    p = h * w
    n = 1 + p * t
    total = torch.eye(n)
    for layer in range(maps.num_layers):
        if maps.attention_type == 'joint_space_time':
            steps = [(torch.eye(n) + maps.joint(layer)[0].mean(0)) / 2]
        else:
            along, within = torch.eye(n), torch.zeros(n, n)
            temporal = maps.temporal(layer)[0].mean(1)
            spatial = maps.spatial(layer)[0].mean(1)

            def at(place: int, frame: int) -> int:
                return 1 + place * t + frame

            for place in range(p):
                for i in range(t):
                    for j in range(t):
                        weight = temporal[place, i, j]
                        along[at(place, i), at(place, j)] = (weight + float(i == j)) / 2
            within[0, 0] = 0.5
            for frame in range(t):
                within[0, 0] += spatial[frame, 0, 0] / t / 2
                for i in range(p):
                    within[0, at(i, frame)] += spatial[frame, 0, 1 + i] / t / 2
                    within[at(i, frame), 0] += spatial[frame, 1 + i, 0] / 2
                    within[at(i, frame), at(i, frame)] += 0.5
                    for j in range(p):
                        within[at(i, frame), at(j, frame)] += spatial[frame, 1 + i, 1 + j] / 2
            steps = [along, within]
        for step in steps:
            total = step @ total
    return total


@pytest.mark.parametrize('attention_type', ['divided_space_time', 'joint_space_time'])
@pytest.mark.parametrize('chunk', [attention_maps.CHUNK, 100])
def test_rollout_is_the_product_of_all_layers(
    attention_type: str,
    chunk: int,
    tiny_backbone_cfg: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention_maps, 'CHUNK', chunk)
    maps = model_of(tiny_backbone_cfg, attention_type=attention_type).attention_maps(video())
    n = 1 + P * T
    every = maps.carry(torch.eye(n).expand(2, n, n), mean_weights, residual=0.5)
    torch.testing.assert_close(every[0], dense_rollout(maps))
    torch.testing.assert_close(every.sum(-1), torch.ones(2, n))
    expected = rearrange(every[:, 0, 1:], 'b (h w t) -> b t h w', h=H, w=W)
    torch.testing.assert_close(maps.rollout(), expected)


@every_scheme
def test_rollout_gives_out_a_whole(attention_type: str, tiny_backbone_cfg: dict[str, Any]) -> None:
    maps = model_of(tiny_backbone_cfg, attention_type=attention_type).attention_maps(video())
    row = maps.carry(maps.class_row(), mean_weights, residual=0.5)
    torch.testing.assert_close(row.sum(-1), torch.ones(2, 1))
    own = 0.5**maps.num_layers  # kept by the class token itself at every layer
    assert (maps.rollout().sum((1, 2, 3)) < 1 - own).all()


def test_rollout_is_the_forward_pass_of_a_model_that_only_looks(
    tiny_backbone_cfg: dict[str, Any],
) -> None:
    """With values, projections and norms that change nothing, a block returns (I + S)(I + T) x."""
    model = model_of(tiny_backbone_cfg, num_heads=1)
    d = model.pos_embed.shape[-1]
    for block in model.blocks:
        block.norm1 = block.temporal_norm1 = nn.Identity()
        block.mlp.fc2.weight.data.zero_()
        block.mlp.fc2.bias.data.zero_()
        for part in (block.attn.proj, block.temporal_attn.proj, block.temporal_fc):
            part.weight.data.copy_(torch.eye(d))
            part.bias.data.zero_()
        for part in (block.attn, block.temporal_attn):
            part.qkv.weight.data[2 * d :] = torch.eye(d)
            part.qkv.bias.data[2 * d :] = 0
    x = video()
    model.out_type = 'hidden_states'
    maps = model.attention_maps(x)
    (cls, patches), *_, (last, _) = maps.output
    tokens = torch.cat([cls[:, None], rearrange(patches, 'b t h w d -> b (h w t) d')], dim=1)
    row = maps.carry(maps.class_row(), mean_weights, residual=1.0, copy_weight=1 / T)
    torch.testing.assert_close((row @ tokens)[:, 0], last)


@MODELS.register_module(force=True)
class IdentityAttention(SelfAttention):
    """Every token attends only to itself."""

    def gather(self, tokens: Tensor) -> Tensor:
        return rearrange(self.qkv_heads(tokens)[2], 'b heads n c -> b n (heads c)')

    def attention_weights(self, tokens: Tensor, queries: slice = slice(None)) -> Tensor:
        identity = torch.eye(tokens.shape[1])[queries]
        return identity.expand(len(tokens), self.num_heads, -1, -1)


@every_scheme
def test_rollout_of_identity_attention_is_the_identity(
    attention_type: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    own = {'type': 'mmtimesformer.IdentityAttention'}
    model = model_of(tiny_backbone_cfg, attention_type=attention_type, attn_cfg=own)
    maps = model.attention_maps(video())
    assert torch.count_nonzero(maps.rollout()) == 0
    if attention_type == 'divided_space_time':  # the class token keeps what it has, in each frame
        n = 1 + P * T
        identity = torch.eye(n).expand(2, n, n)
        torch.testing.assert_close(maps.carry(identity, mean_weights, 0.5), identity)


# Relevance


@every_scheme
def test_gradients_of_weights_equal_those_of_autograd(
    attention_type: str, tiny_backbone_cfg: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle forms the weights in the forward pass, and returns the gradient of each."""
    model = model_of(tiny_backbone_cfg, attention_type=attention_type).double()
    direction = torch.randn(28).double()
    x = video().double()
    maps = model.attention_maps(x, score=lambda cls: cls @ direction)
    torch.testing.assert_close(maps.score, maps.output @ direction)

    formed: list[Tensor] = []

    def gather(self: SelfAttention, tokens: Tensor) -> Tensor:
        formed.append(self.attention_weights(tokens))
        return rearrange(formed[-1] @ self.qkv_heads(tokens)[2], 'b heads n c -> b n (heads c)')

    monkeypatch.setattr(SelfAttention, 'gather', gather)
    model.out_type = 'tokens'
    oracle = torch.autograd.grad((model(x)[0] @ direction).sum(), formed)
    records = [
        record for layer in maps.layers.values() for record in (layer.time, layer.space) if record
    ]
    for record, expected in zip(records, oracle, strict=True):
        torch.testing.assert_close(record.gradients(), expected)
        part = record.gradients(slice(1, 3))
        torch.testing.assert_close(part, expected[:, :, 1:3])


@pytest.mark.parametrize(
    'one_patch_model', [{'attention_type': scheme} for scheme in SCHEMES], indirect=True
)
def test_relevance_finds_the_patch_that_raises_the_score(one_patch_model: TimeSformer) -> None:
    """All attend to one patch, and its value alone moves the score: for it, or against it."""
    d = one_patch_model.pos_embed.shape[-1]
    for block in one_patch_model.blocks:
        block.attn.qkv.weight.data[2 * d + 3, 0] = 1  # the value of the mark, in channel 3
        block.attn.proj.weight.data[3, 3] = 1
    x = video(b=1)
    relevance = one_patch_model.attention_maps(x, score=lambda cls: cls[:, 3]).relevance()[0]
    assert relevance.min() >= 0
    for frame in relevance:
        assert divmod(int(frame.argmax()), W) == PLACE
    against = one_patch_model.attention_maps(x, score=lambda cls: -cls[:, 3]).relevance()[0]
    assert against[:, PLACE[0], PLACE[1]].max() < 1e-2 * relevance.max()


def test_relevance_of_one_layer_is_its_attention_times_gradient(
    tiny_backbone_cfg: dict[str, Any],
) -> None:
    """The copies of the class token are summed: their gradients are those of a mean."""
    model = model_of(tiny_backbone_cfg, num_layers=1, attention_type='divided_space_time')
    model.blocks[0].temporal_fc.weight.data.zero_()  # time has no effect
    maps = model.attention_maps(video(), score=lambda cls: cls[:, 0])
    record = maps.layers[0].space
    product = (record.weights() * record.gradients())[:, :, 0, 1:].clamp(min=0).mean(1)
    expected = rearrange(product, '(b t) (h w) -> b t h w', t=T, h=H)
    torch.testing.assert_close(maps.relevance(), expected)


def test_relevance_without_a_score_is_refused(tiny_backbone_cfg: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='need a score; call model.attention_maps'):
        model_of(tiny_backbone_cfg).attention_maps(video()).relevance()


# Long and wide, low precision, and parts of one's own


def test_relevance_can_be_asked_for_in_inference_mode(tiny_backbone_cfg: dict[str, Any]) -> None:
    model, x = model_of(tiny_backbone_cfg), video()
    expected = model.attention_maps(x, score=lambda cls: cls[:, 0]).relevance()
    with torch.inference_mode():
        found = model.attention_maps(x, score=lambda cls: cls[:, 0]).relevance()
    torch.testing.assert_close(found, expected)


def test_maps_of_a_pass_under_autocast_are_near_those_without(
    tiny_backbone_cfg: dict[str, Any],
) -> None:
    model, x = model_of(tiny_backbone_cfg), video()
    expected = model.attention_maps(x, score=lambda cls: cls[:, 0])
    with torch.autocast('cpu', torch.bfloat16):
        found = model.attention_maps(x, score=lambda cls: cls[:, 0])
    torch.testing.assert_close(found.rollout(), expected.rollout(), rtol=0, atol=0.02)
    difference = (found.relevance() - expected.relevance()).abs().max()
    assert difference < 0.1 * expected.relevance().max()


def test_layers_are_multiplied_in_float32_also_of_a_bfloat16_model(
    tiny_backbone_cfg: dict[str, Any],
) -> None:
    model, x = model_of(tiny_backbone_cfg), video()
    expected = model.attention_maps(x).rollout()
    found = model.bfloat16().attention_maps(x.bfloat16()).rollout()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


@every_scheme
def test_maps_of_96_frames_and_of_another_size(
    attention_type: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = model_of(tiny_backbone_cfg, attention_type=attention_type, num_frames=96)
    maps = model.attention_maps(torch.randn(1, 3, 96, 24, 8), score=lambda cls: cls.sum(-1))
    assert maps.grid == (96, 3, 1)
    for shown in (maps.rollout(), maps.relevance(), maps.from_class().mean(1)):
        assert shown.shape == (1, 96, 3, 1)
        assert shown.isfinite().all()
    if attention_type == 'divided_space_time':
        assert maps.temporal().shape == (1, 3, 4, 96, 96)


@pytest.mark.parametrize('attention_type', ['divided_space_time', 'joint_space_time'])
def test_one_frame_is_enough(attention_type: str, tiny_backbone_cfg: dict[str, Any]) -> None:
    maps = model_of(tiny_backbone_cfg, attention_type=attention_type).attention_maps(video(t=1))
    assert maps.rollout().shape == (2, 1, H, W)


@MODELS.register_module(force=True)
class Sharper(SelfAttention):
    """Scores twice as large, with its own weights."""

    def gather(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv_heads(tokens)
        return rearrange(
            F.scaled_dot_product_attention(2 * q, k, v), 'b heads n c -> b n (heads c)'
        )

    def attention_weights(self, tokens: Tensor, queries: slice = slice(None)) -> Tensor:
        q, k, _ = self.qkv_heads(tokens)
        return (2 * q[:, :, queries] @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


@MODELS.register_module(force=True)
class WithoutWeights(SelfAttention):
    """Overrides gather without giving its weights."""

    def gather(self, tokens: Tensor) -> Tensor:
        return reduce(tokens, 'b n d -> b 1 d', 'mean').expand_as(tokens)


def test_a_custom_attention_gives_its_weights(tiny_backbone_cfg: dict[str, Any]) -> None:
    own = {'type': 'mmtimesformer.Sharper'}
    maps = model_of(tiny_backbone_cfg, attn_cfg=own).attention_maps(video())
    record = maps.layers[1].time
    gathered = record.weights() @ record.attention.qkv_heads(record.tokens)[2]
    expected = record.attention.gather(record.tokens)
    torch.testing.assert_close(rearrange(gathered, 'b heads n c -> b n (heads c)'), expected)


def test_an_attention_without_its_own_weights_is_refused(
    tiny_backbone_cfg: dict[str, Any],
) -> None:
    own = {'type': 'mmtimesformer.WithoutWeights'}
    with pytest.raises(
        TypeError,
        match='overrides gather or forward.*give WithoutWeights a method attention_wei',
    ):
        model_of(tiny_backbone_cfg, attn_cfg=own).attention_maps(video())
    model = model_of(tiny_backbone_cfg)
    model.blocks[0].attn = nn.Identity()
    with pytest.raises(TypeError, match='Identity is not a SelfAttention'):
        model.attention_maps(video())


def test_maps_and_layers_that_do_not_exist_are_refused(
    tiny_backbone_cfg: dict[str, Any],
) -> None:
    model = model_of(tiny_backbone_cfg, attention_type='joint_space_time')
    with pytest.raises(ValueError, match='has no temporal maps; use its joint maps'):
        model.attention_maps(video()).temporal()
    with pytest.raises(ValueError, match='layer 2 is not one of the 2 of the model'):
        model.attention_maps(video(), layers=[2])
    with pytest.raises(ValueError, match='no layer was chosen'):
        model.attention_maps(video(), layers=[])
    with pytest.raises(ValueError, match='training mode.*model.eval'):
        model.train().attention_maps(video())
