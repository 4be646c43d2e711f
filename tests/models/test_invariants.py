"""What the paper's words promise, as laws that a wrong axis or a forgotten token breaks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.models import DividedSpaceTimeBlock, JointSpaceTimeBlock, SpaceOnlyBlock
from mmtimesformer.models.blocks import DropPath
from mmtimesformer.resize import resize_positions, resize_times

D, HEADS, T, P = 12, 3, 3, 5  # width, heads, frames, patches in a frame
SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')


def randomise(module: nn.Module, std: float = 0.3) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module


def dependencies(attend: Callable[[Tensor], Tensor], n: int, rows: int = 1) -> Tensor:
    """``depends[r, i, s, j]``: output token ``i`` of row ``r`` depends on input ``j`` of ``s``."""
    tokens = torch.randn(rows, n, D, requires_grad=True)
    output = attend(tokens)
    depends = torch.zeros(*output.shape[:2], rows, n, dtype=torch.bool)
    for row in range(output.shape[0]):
        for i in range(output.shape[1]):
            direction = torch.randn(D)
            (gradient,) = torch.autograd.grad(output[row, i] @ direction, tokens, retain_graph=True)
            depends[row, i] = gradient.abs().amax(-1) > 1e-9
    return depends


def as_frames(tokens: Tensor) -> Tensor:
    """Lay out the class token and the patches ``(p t)`` as a divided block takes them."""
    cls = tokens[:, None, :1].expand(-1, T, -1, -1)
    return torch.cat([cls, rearrange(tokens[:, 1:], 'b (p t) d -> b t p d', t=T)], dim=2)


def as_tokens(frames: Tensor) -> Tensor:
    """Lay them out again as :func:`as_frames` was given them; all class tokens must agree."""
    cls, patches = frames[:, :, 0], frames[:, :, 1:]
    torch.testing.assert_close(cls, cls[:, :1].expand_as(cls))
    return torch.cat([cls[:, :1], rearrange(patches, 'b t p d -> b (p t) d')], dim=1)


def places() -> tuple[Tensor, Tensor]:
    """Location and frame of every patch token, in the order ``(p t)``."""
    return torch.arange(P).repeat_interleave(T), torch.arange(T).repeat(P)


def test_in_time_a_patch_sees_exactly_its_own_track() -> None:
    block = randomise(DividedSpaceTimeBlock(D, HEADS)).eval()
    depends = dependencies(
        lambda tokens: as_tokens(block.attend_time(as_frames(tokens))), 1 + P * T, rows=2
    )
    location, _ = places()
    expected = torch.zeros(
        1 + P * T, 1 + P * T, dtype=torch.bool
    )  # the class token has no time attention
    expected[1:, 1:] = location[:, None] == location[None]
    for row in range(2):
        assert torch.equal(depends[row, :, row], expected)
        assert not depends[row, :, 1 - row].any(), 'videos of a batch must not affect each other'


def test_in_space_a_patch_sees_exactly_its_own_frame_and_the_class_token() -> None:
    block = randomise(DividedSpaceTimeBlock(D, HEADS)).eval()
    depends = dependencies(
        lambda tokens: as_tokens(block.attend_space(as_frames(tokens))), 1 + P * T, rows=2
    )
    _, frame = places()
    expected = torch.ones(1 + P * T, 1 + P * T, dtype=torch.bool)
    expected[1:, 1:] = frame[:, None] == frame[None]
    for row in range(2):
        assert torch.equal(depends[row, :, row], expected)
        assert not depends[row, :, 1 - row].any(), 'videos of a batch must not affect each other'


def test_in_a_divided_block_a_patch_sees_its_frame_and_the_tracks_that_cross_it() -> None:
    """Everything is in reach of a patch within one block; time alone does not reach the class."""
    block = randomise(DividedSpaceTimeBlock(D, HEADS)).eval()

    def both_steps(tokens: Tensor) -> Tensor:
        return as_tokens(block(as_frames(tokens), T))

    assert dependencies(both_steps, 1 + P * T).all()

    for layer in (block.attn.qkv, block.attn.proj):  # without space, only tracks are left
        nn.init.zeros_(layer.weight)
    depends = dependencies(both_steps, 1 + P * T)[0, :, 0]
    location, _ = places()
    expected = torch.zeros(1 + P * T, 1 + P * T, dtype=torch.bool)
    expected[0, 0] = True
    expected[1:, 1:] = location[:, None] == location[None]
    assert torch.equal(depends, expected)


def test_in_a_joint_block_every_token_of_a_video_sees_every_other() -> None:
    block = randomise(JointSpaceTimeBlock(D, HEADS)).eval()
    depends = dependencies(lambda tokens: block(tokens, T), 1 + P * T, rows=2)
    for row in range(2):
        assert depends[row, :, row].all()
        assert not depends[row, :, 1 - row].any()


def test_in_a_space_only_block_frames_do_not_meet() -> None:
    block = randomise(SpaceOnlyBlock(D, HEADS)).eval()
    depends = dependencies(lambda tokens: block(tokens, T), 1 + P, rows=T)
    for row in range(T):
        for other in range(T):
            assert depends[row, :, other].all() == (row == other)
            assert depends[row, :, other].any() == (row == other)


@pytest.mark.parametrize('scheme', SCHEMES)
def test_each_patch_of_the_map_stands_where_its_pixels_are(
    scheme: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    """With blocks that add nothing, a lit patch of the video is the one that lights the map."""
    del tiny_backbone_cfg['type']
    model = TimeSformer(attention_type=scheme, out_type='hidden_states', **tiny_backbone_cfg)
    dark = model(torch.zeros(1, 3, 3, 16, 40))[0][1]
    for t, h, w in [(0, 0, 0), (1, 1, 2), (2, 0, 4)]:
        video = torch.zeros(1, 3, 3, 16, 40)
        video[:, :, t, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8] = 1
        changed = (model(video)[0][1] - dark).abs().amax(-1)[0]
        assert changed.nonzero().tolist() == [[t, h, w]]


@pytest.mark.parametrize('scheme', SCHEMES)
def test_positions_belong_to_places_and_times_to_frames(scheme: str) -> None:
    model = TimeSformer(
        num_frames=3, img_size=(16, 40), patch_size=8, embed_dims=4, num_heads=2, num_layers=1,
        attention_type=scheme, out_type='hidden_states',
    )  # fmt: skip
    nn.init.zeros_(model.pos_embed)
    before = model(torch.zeros(1, 3, 3, 16, 40))[0][1]
    with torch.no_grad():
        model.pos_embed[0, 1 + 7] = 1  # row 1, column 2 of 2 x 5
    after = model(torch.zeros(1, 3, 3, 16, 40))[0][1]
    assert (after - before).abs().amax(-1).nonzero().tolist() == [[0, t, 1, 2] for t in range(3)]
    if scheme == 'space_only':
        return
    with torch.no_grad():
        model.time_embed[0, 1] = 1
    later = model(torch.zeros(1, 3, 3, 16, 40))[0][1]
    changed = (later - after).abs().amax(-1)[0]
    assert changed[1].all()
    assert not changed[[0, 2]].any()


class ImageViT(nn.Module):
    """A plain Vision Transformer of stock PyTorch parts, as an independent oracle."""

    def __init__(self, model: TimeSformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        m = self.model
        patches = nn.functional.unfold(image, m.patch_size, stride=m.patch_size).transpose(1, 2)
        patches = patches @ m.patch_embed.proj.weight.flatten(1).T + m.patch_embed.proj.bias
        tokens = torch.cat([m.cls_token.expand(len(image), -1, -1), patches], 1) + m.pos_embed
        for block in m.blocks:
            attention = nn.MultiheadAttention(
                tokens.shape[-1], block.attn.num_heads, batch_first=True
            )
            attention.in_proj_weight = block.attn.qkv.weight
            attention.in_proj_bias = block.attn.qkv.bias
            attention.out_proj = block.attn.proj
            normed = block.norm1(tokens)
            tokens = tokens + attention(normed, normed, normed, need_weights=True)[0]
            hidden = nn.functional.gelu(block.mlp.fc1(block.norm2(tokens)))
            tokens = tokens + block.mlp.fc2(hidden)
        return m.norm(tokens)[:, 0]


@pytest.mark.parametrize('scheme', ['divided_space_time', 'space_only'])
def test_a_still_video_through_a_fresh_model_equals_the_image_vit(
    scheme: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    del tiny_backbone_cfg['type']
    model = TimeSformer(attention_type=scheme, **tiny_backbone_cfg).eval()
    image = torch.randn(2, 3, 16, 40)
    video = image[:, :, None].expand(-1, -1, 3, -1, -1)
    torch.testing.assert_close(model(video), ImageViT(model)(image), rtol=0, atol=1e-5)


def test_frame_order_is_invisible_until_time_embed_learns(
    tiny_backbone_cfg: dict[str, Any],
) -> None:
    """Also with a working ``temporal_fc``: attention alone is invariant to the order."""
    del tiny_backbone_cfg['type']
    model = TimeSformer(**tiny_backbone_cfg).eval()
    for block in model.blocks:
        nn.init.normal_(block.temporal_fc.weight, std=0.3)
    video = torch.randn(2, 3, 3, 16, 40)
    shuffled = video[:, :, [2, 0, 1]]
    torch.testing.assert_close(model(shuffled), model(video), rtol=0, atol=1e-5)
    assert (model(video.roll(1, 0)) - model(video)).abs().max() > 1e-2, 'content must be visible'

    nn.init.normal_(model.time_embed)
    assert (model(shuffled) - model(video)).abs().max() > 1e-2


def test_frame_order_is_always_invisible_to_space_only(tiny_backbone_cfg: dict[str, Any]) -> None:
    del tiny_backbone_cfg['type']
    model = TimeSformer(attention_type='space_only', **tiny_backbone_cfg).eval()
    video = torch.randn(2, 3, 3, 16, 40)
    torch.testing.assert_close(model(video.flip(2)), model(video), rtol=0, atol=1e-5)


@pytest.mark.parametrize('scheme', SCHEMES)
def test_videos_of_a_batch_do_not_touch_each_other(
    scheme: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    del tiny_backbone_cfg['type']
    model = randomise(TimeSformer(attention_type=scheme, **tiny_backbone_cfg)).eval()
    videos = torch.randn(3, 3, 3, 16, 40)
    one_by_one = torch.cat([model(video[None]) for video in videos])
    torch.testing.assert_close(model(videos), one_by_one, rtol=0, atol=1e-5)


def dropped_rows(block: nn.Module, part: str, tokens: Tensor) -> Tensor:
    """Which rows did drop path drop, for the call of it that follows ``part`` of the block?"""
    calls: list[Tensor] = []
    handle = block.drop_path.register_forward_hook(lambda _, args, out: calls.append(out))
    block(tokens, T)
    handle.remove()
    order = ['time', 'space', 'mlp'] if len(calls) == 3 else ['space', 'mlp']
    return calls[order.index(part)].abs().flatten(1).amax(1) == 0


@pytest.mark.parametrize(
    ('block_type', 'n', 'part', 'rows'),
    [
        (DividedSpaceTimeBlock, (T, 1 + P), 'time', 40 * P),  # per location
        (DividedSpaceTimeBlock, (T, 1 + P), 'space', 40 * T),  # per frame
        (DividedSpaceTimeBlock, (T, 1 + P), 'mlp', 40),  # per video
        (JointSpaceTimeBlock, (1 + P * T,), 'space', 40),
        (SpaceOnlyBlock, (1 + P,), 'space', 40),
    ],
)
def test_drop_path_drops_whole_rows(
    block_type: type, n: tuple[int, ...], part: str, rows: int
) -> None:
    block = randomise(block_type(D, HEADS, drop_path_rate=0.4)).train()
    dropped = dropped_rows(block, part, torch.randn(40, *n, D))
    assert len(dropped) == rows
    assert 0.2 < dropped.float().mean() < 0.6


def test_a_dropped_track_still_gets_the_bias_of_temporal_fc() -> None:
    block = randomise(DividedSpaceTimeBlock(D, HEADS, drop_path_rate=0.5)).train()
    update = block.attend_time(torch.randn(8, T, 1 + P, D))
    update = rearrange(update[:, :, 1:], 'b t p d -> (b p) t d')
    only_bias = (update - block.temporal_fc.bias).abs().amax((1, 2)) < 1e-6
    assert 0.2 < only_bias.float().mean() < 0.8


@pytest.mark.parametrize('ffn_cfg', [None, dict(type='mmtimesformer.FFN', drop_rate=0.5)])
def test_the_class_token_stays_one_token(ffn_cfg: dict[str, Any] | None) -> None:
    """Each frame has a copy; neither attention nor the dropout of an MLP parts them."""
    block = randomise(DividedSpaceTimeBlock(D, HEADS, drop_path_rate=0.3, ffn_cfg=ffn_cfg)).train()
    as_tokens(block(as_frames(torch.randn(6, 1 + P * T, D)), T))


def test_drop_path_keeps_the_mean() -> None:
    rows = DropPath(0.3).train()(torch.ones(20_000, 1, 1))
    torch.testing.assert_close(rows.unique(), torch.tensor([0.0, 1 / 0.7]))
    assert rows.mean() == pytest.approx(1, abs=0.02)


def test_drop_path_grows_from_nothing_in_the_first_block() -> None:
    model = TimeSformer(embed_dims=8, num_heads=2, num_layers=5, drop_path_rate=0.2)
    rates = [block.drop_path.drop_rate for block in model.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize(
    ('t', 'height', 'width'), [(1, 16, 40), (7, 16, 40), (3, 40, 16), (5, 24, 8)]
)
def test_other_lengths_and_sizes_work_at_run_time(
    scheme: str, t: int, height: int, width: int, tiny_backbone_cfg: dict[str, Any]
) -> None:
    del tiny_backbone_cfg['type']
    model = TimeSformer(attention_type=scheme, out_type='tokens', **tiny_backbone_cfg)
    cls, patches = model(torch.randn(2, 3, t, height, width))
    assert cls.shape == (2, 28)
    assert patches.shape == (2, t, height // 8, width // 8, 28)


def test_a_model_built_larger_with_resized_embeddings_equals_the_resize_at_run_time() -> None:
    small = randomise(
        TimeSformer(num_frames=3, img_size=(16, 24), patch_size=8, embed_dims=D, num_heads=HEADS)
    ).eval()
    large = TimeSformer(
        num_frames=5, img_size=(32, 48), patch_size=8, embed_dims=D, num_heads=HEADS
    )
    weights = small.state_dict()
    weights['pos_embed'] = resize_positions(weights['pos_embed'], (2, 3), (4, 6))
    weights['time_embed'] = resize_times(weights['time_embed'], 5)
    large.load_state_dict(weights)
    video = torch.randn(2, 3, 5, 32, 48)
    torch.testing.assert_close(small(video), large.eval()(video))


@pytest.mark.parametrize('scheme', SCHEMES)
def test_every_parameter_is_felt(scheme: str, tiny_backbone_cfg: dict[str, Any]) -> None:
    del tiny_backbone_cfg['type']
    model = randomise(TimeSformer(attention_type=scheme, **tiny_backbone_cfg))
    model(torch.randn(2, 3, 3, 16, 40)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f'{name} takes no part'
        assert parameter.grad.abs().max() > 1e-7, f'{name} takes no part'
