"""Merging tracks: what it may not change, and that it is off unless asked for."""

import copy
import inspect
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.models import DividedSpaceTimeBlock, SelfAttention, set_merge, timesformer
from mmtimesformer.models.attention import attend, attend_in_portions
from mmtimesformer.models.track_merging import MergedTokens, match
from mmtimesformer.models.track_selection import TokenOrder
from tests.tiny_model import CONFIG

SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')
# Every scheme and matching there is
WAYS = [(s, m) for s in SCHEMES for m in ('track', 'frame') if (s, m) != ('space_only', 'track')]
B, T, P, D = 2, 3, 13, 20  # videos, frames, patches of a frame (in one row), width
each_way = pytest.mark.parametrize(('scheme', 'matching'), WAYS)


def model_of(scheme: str = SCHEMES[0], **changes: Any) -> TimeSformer:
    """A model of weights so large that every token matters."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = dict(
        num_frames=T, img_size=(8, 8 * P), patch_size=8, embed_dims=D, num_heads=5, num_layers=4,
        drop_path_rate=0.0, attention_type=scheme, temporal_init='random',
    )  # fmt: skip
    model = TimeSformer(**{**arguments, **changes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def video(b: int = B, seed: int = 1) -> Tensor:
    return torch.randn(b, 3, T, 8, 8 * P, generator=torch.Generator().manual_seed(seed))


def run(model: TimeSformer, out_type: str, clip: Tensor | None = None) -> Any:
    model.out_type = out_type
    return model(video() if clip is None else clip)


def tokens_of(scheme: str) -> tuple[Tensor, TokenOrder]:
    return model_of(scheme).double().embed(video().double()).detach(), TokenOrder(scheme, T)


def merged_twice(scheme: str, matching: str) -> tuple[MergedTokens, MergedTokens]:
    """Tokens as embedded, and after 5 and 3 of 13 tracks were merged."""
    single = MergedTokens.single(*tokens_of(scheme), B, matching)
    return single, single.merge(5).merge(3)


# What merging does


@each_way
def test_a_merged_token_is_the_mean_of_its_patches(scheme: str, matching: str) -> None:
    single, merged = merged_twice(scheme, matching)
    before, after = (x.order.frames(x.tokens, B) for x in (single, merged))
    place = merged.place.expand(-1, T, -1)
    assert after.shape[2] == P - 8
    for b in range(B):
        for t in range(T):
            for k in range(P - 8):
                expected = before[b, t, place[b, t] == k].mean(0)
                torch.testing.assert_close(after[b, t, k], expected, rtol=1e-5, atol=1e-6)


@each_way
def test_sizes_count_the_patches_and_sum_to_their_number(scheme: str, matching: str) -> None:
    _, merged = merged_twice(scheme, matching)
    assert (merged.sizes.sum(-1) == P).all()
    assert merged.sizes.min() >= 1 and merged.sizes.max() > 2
    for sizes, place in zip(merged.sizes.flatten(0, 1), merged.place.flatten(0, 1), strict=True):
        assert torch.equal(sizes, place.bincount(minlength=P - 8))


@each_way
def test_unmerging_gives_every_patch_its_token(scheme: str, matching: str) -> None:
    single, merged = merged_twice(scheme, matching)
    unmerged, after = merged.unmerge(), merged.order.frames(merged.tokens, B)
    assert unmerged.shape == single.tokens.shape
    place = merged.place.expand(-1, T, -1)
    for b in range(B):
        for t in range(T):
            assert torch.equal(merged.order.frames(unmerged, B)[b, t], after[b, t, place[b, t]])


@each_way
def test_the_class_token_is_never_merged(scheme: str, matching: str) -> None:
    single, merged = merged_twice(scheme, matching)
    first = slice(None), slice(1)
    index = (slice(None), *first) if scheme == 'divided_space_time' else first
    assert torch.equal(merged.tokens[index], single.tokens[index])
    (bias,) = merged.key_bias()
    assert not bias[:, 0].any()


def test_whole_tracks_are_merged() -> None:
    sizes = run_merged(SCHEMES[0], 'track', 'hidden_states')[-1][2]
    assert sizes.shape == (B, T, 1, P)
    assert (sizes == sizes[:, :1]).all()
    assert (sizes > 1).any()
    others = run_merged(SCHEMES[0], 'frame', 'hidden_states')[-1][2]
    assert not (others == others[:, :1]).all()


def run_merged(scheme: str, matching: str, out_type: str, r: int = 2) -> Any:
    model = model_of(scheme)
    set_merge(model, r, matching=matching)
    return run(model, out_type)


@pytest.mark.parametrize('is_shared', [True, False])
def test_the_most_similar_pairs_are_matched(is_shared: bool) -> None:
    frames = torch.randn(B, T, P, D, generator=torch.Generator().manual_seed(3))
    source, target = match(frames, 4, is_shared)
    assert source.shape == target.shape == (B, 1 if is_shared else T, 4)
    for b in range(B):
        for t in range(source.shape[1]):
            seen = frames[b].transpose(0, 1) if is_shared else frames[b, t][:, None]
            rows = seen.flatten(1)
            pairs = {}
            for i in range(0, P, 2):
                cosine = torch.stack(
                    [torch.cosine_similarity(rows[i], rows[j], 0) for j in range(1, P, 2)]
                )
                pairs[i] = cosine.max().item(), 2 * int(cosine.argmax()) + 1
            best = sorted(pairs, key=lambda i: -pairs[i][0])[:4]
            assert source[b, t].tolist() == best
            assert target[b, t].tolist() == [pairs[i][1] for i in best]


# What it does not change


@each_way
def test_merging_equal_tracks_changes_nothing(scheme: str, matching: str) -> None:
    """All patches of a frame are equal, and differ from those of the next frame."""
    model = model_of(scheme).double()
    model.pos_embed.data[:, 1:] = 0
    clip = torch.randn(B, 3, T, 8, 8, dtype=torch.float64).repeat(1, 1, 1, 1, P)
    plain = run(model, 'tokens', clip)
    set_merge(model, 3, layers=[0, 1, 2], matching=matching)
    for one, other in zip(plain, run(model, 'tokens', clip), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(('scheme', 'matching'), [way for way in WAYS if way != WAYS[1]])
def test_pairs_of_equal_tracks_are_found_and_change_nothing(scheme: str, matching: str) -> None:
    """Not so in divided attention with a matching for each frame, which tears tracks apart."""
    kinds = torch.tensor([0, 1, 1, 0, 2, 2, 0, 1, 2, 3, 3, 0, 1])
    model = model_of(scheme).double()
    model.pos_embed.data[:, 1:] = 0
    patches = torch.randn(B, 3, T, 8, 4, 8, dtype=torch.float64)
    clip = patches[..., kinds, :].flatten(-2)
    plain = run(model, 'cls_token', clip)
    set_merge(model, 5, layers=[0], matching=matching)
    torch.testing.assert_close(plain, run(model, 'cls_token', clip), rtol=1e-6, atol=1e-8)
    sizes = run(model, 'hidden_states', clip)[-1][2]
    assert sizes.max() > 2  # so the sizes have been felt


def test_a_key_of_size_m_counts_as_m_keys() -> None:
    attention = SelfAttention(D, 5).double().eval()
    tokens = torch.randn(B, 4, D, dtype=torch.float64)
    repeated = tokens[:, [0, 1, 1, 1, 2, 3, 3]]
    bias = torch.tensor([1, 3, 1, 2]).double().log().expand(B, -1)
    first = [0, 1, 4, 5]
    torch.testing.assert_close(attention(tokens, bias), attention(repeated)[:, first])
    torch.testing.assert_close(
        attention.forward_first_token(tokens, bias), attention(repeated)[:, :1]
    )


def test_sequences_in_portions_keep_their_own_bias() -> None:
    q, k, v = torch.randn(3, 7, 5, 4, 4)
    bias = torch.randn(7, 4)
    whole = attend(q, k, v, key_bias=bias)
    torch.testing.assert_close(attend_in_portions(q, k, v, 3, mask=bias[:, None, None]), whole)


@pytest.mark.parametrize('scheme', SCHEMES)
def test_nothing_is_merged_by_default_and_with_r_0_exactly_nothing(scheme: str) -> None:
    signature = inspect.signature(TimeSformer.__init__).parameters
    assert signature['merge'].default is None
    plain, zero = model_of(scheme), model_of(scheme, merge=dict(r=0))
    assert plain.merging is None and zero.merging is None
    other = model_of(scheme, merge=dict(r=2))
    assert torch.equal(plain(video()), zero(video()))
    assert not torch.allclose(plain(video()), other(video()), rtol=1e-4)
    set_merge(other, 0)
    assert torch.equal(plain(video()), other(video()))


# With everything else


@each_way
def test_the_short_last_block_and_the_tokens_agree(scheme: str, matching: str) -> None:
    cls = run_merged(scheme, matching, 'cls_token')
    other, patches = run_merged(scheme, matching, 'tokens')
    assert patches.shape == (B, T, 1, P, D)
    torch.testing.assert_close(cls, other, rtol=1e-4, atol=1e-5)


@each_way
def test_videos_do_not_touch_each_other(
    scheme: str, matching: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(scheme)
    set_merge(model, 2, matching=matching)
    alone = torch.cat([model(clip[None]) for clip in video(3)])
    torch.testing.assert_close(model(video(3)), alone, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(timesformer, 'LARGE', 1)
    with torch.no_grad():
        assert model._videos_at_a_time(video(3)) == 1
        torch.testing.assert_close(model(video(3)), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('level', ['pointwise', 'mlp', 'block'])
@pytest.mark.parametrize('scheme', SCHEMES)
def test_it_trains_and_recomputing_keeps_the_gradients(scheme: str, level: str) -> None:
    gradients = []
    for with_cp in (False, level):
        model = model_of(scheme, with_cp=with_cp, drop_path_rate=0.3).train()
        set_merge(model, 2)
        torch.manual_seed(4)
        model(video()).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.any(), name
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@each_way
def test_gradients_are_those_of_the_output(scheme: str, matching: str) -> None:
    model = model_of(scheme).double()
    set_merge(model, 2, matching=matching)
    direction = torch.randn(model.pos_embed.shape, dtype=torch.float64)
    model(video().double()).sum().backward()
    slope = (model.pos_embed.grad * direction).sum()
    ends = []
    for step in (1e-6, -2e-6):
        model.pos_embed.data.add_(direction, alpha=step)
        ends.append(model(video().double()).sum().detach())
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-6, slope, rtol=1e-5, atol=1e-6)


@each_way
def test_it_runs_under_autocast_and_in_bfloat16(scheme: str, matching: str) -> None:
    model = model_of(scheme)
    set_merge(model, 2, matching=matching)
    plain = model(video())
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        mixed = model(video())
    assert torch.cosine_similarity(plain, mixed.float()).min() > 0.9
    assert model.bfloat16()(video().bfloat16()).isfinite().all()


@each_way
def test_it_compiles_to_one_graph(scheme: str, matching: str) -> None:
    model = model_of(scheme)
    set_merge(model, 2, matching=matching)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(video()), model(video()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('scheme', SCHEMES)
def test_it_is_exported_for_any_number_of_videos(scheme: str) -> None:
    model = model_of(scheme)
    set_merge(model, 2)
    shapes = {'video': {0: torch.export.Dim('b', min=1, max=64)}}
    program = torch.export.export(model, (video(),), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(video(5)), model(video(5)))


def test_other_lengths_and_sizes_work_at_run_time() -> None:
    model = model_of(merge=dict(r=2, layers=[0, -2]), out_type='hidden_states')
    states = model(torch.randn(1, 3, 5, 24, 40))
    assert len(states) == 5
    assert [int((1 / sizes[0, 0]).sum().round()) for *_, sizes in states] == [15, 15, 13, 13, 11]
    assert states[-1][1].shape == (1, 5, 3, 5, D)


def test_fused_layers_are_fused_on_merged_tokens() -> None:
    model = model_of()
    set_merge(model, 2)
    other = copy.deepcopy(model)
    for block in other.blocks:
        block.temporal_fc.register_forward_hook(lambda *_: None)
    with torch.no_grad():
        torch.testing.assert_close(model(video()), other(video()), rtol=1e-4, atol=1e-5)
    assert model.blocks[0]._fused._cached is not None


# Mistakes


@pytest.mark.parametrize(
    ('merge', 'words'),
    [
        (dict(r=-1), ['r=-1', 'backbone.merge.r']),
        (dict(r=0.5), ['r=0.5', 'whole number']),
        (dict(layers=[0]), ['layers', 'dict(r=8)']),
        (dict(r=1, ratio=2), ['ratio', 'dict(r=8)']),
        (dict(r=1, layers=[3]), ['block 3', 'from 0 to 2']),
        (dict(r=1, layers=[-5]), ['block -5', 'from 0 to 2']),
        (dict(r=1, layers=[]), ['empty', 'backbone.merge']),
        (dict(r=1, matching='tube'), ["'tube'", 'backbone.merge.matching']),
    ],
)
def test_a_wrong_setting_is_answered_in_words(merge: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        model_of(merge=merge)
    for word in words:
        assert word in str(error.value)


def test_frames_of_space_only_attention_are_not_matched_together() -> None:
    with pytest.raises(ValueError, match='do not interact'):
        model_of('space_only', merge=dict(r=1, matching='track'))


def test_more_than_there_are_is_answered_in_words() -> None:
    model = model_of(merge=dict(r=3))
    model(video())
    set_merge(model, 4)
    with pytest.raises(ValueError, match=r'merge.r=4 .* 3 blocks .* 13 tracks.* at most 3'):
        model(video())
    set_merge(model, 6, layers=[1])
    model(video())


class PlainBlock(DividedSpaceTimeBlock):
    def forward(self, frames: Tensor, t: int) -> Tensor:  # type: ignore[override]
        return super().forward(frames, t)


class PlainAttention(SelfAttention):
    def gather(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        return super().gather(tokens)


class OwnAttention(SelfAttention):
    def gather(self, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
        return 2 * super().gather(tokens, key_bias)


def test_a_block_that_takes_no_sizes_is_refused() -> None:
    model = model_of()
    model.blocks[0] = PlainBlock(D, 5)  # before the first merging
    set_merge(model, 1)
    model.blocks[2] = PlainBlock(D, 5)
    with pytest.raises(TypeError, match=r'blocks.2 .* PlainBlock takes no key_bias'):
        set_merge(model, 1)
    model = model_of()
    model.blocks[1].attn = PlainAttention(D, 5)
    with pytest.raises(TypeError, match=r'blocks.1 .* PlainAttention takes no key_bias'):
        set_merge(model, 1)
    model.blocks[1].attn = nn.Identity()
    with pytest.raises(TypeError, match=r'blocks.1 .* Identity takes no key_bias'):
        set_merge(model, 1)
    model.blocks[1].attn = OwnAttention(D, 5)
    set_merge(model, 1)
    model(video())


def test_attention_maps_are_those_of_all_patches() -> None:
    model = model_of(merge=dict(r=1))
    with pytest.raises(ValueError, match=r'set_merge\(model, 0\)'):
        model.attention_maps(video())
    set_merge(model, 0)
    model.attention_maps(video()).rollout()


# In a config


def test_a_config_with_it_builds_and_costs_less() -> None:
    from mmtimesformer.analysis.complexity import measure_complexity

    cfg = Config.fromstring(CONFIG, '.py')
    plain = measure_complexity(cfg)
    cfg.merge_from_dict({'model.backbone.merge.r': 1})  # as --cfg-options does
    merged = measure_complexity(cfg)
    assert merged.parameters == plain.parameters
    assert merged.multiply_adds < plain.multiply_adds
