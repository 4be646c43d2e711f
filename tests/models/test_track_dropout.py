"""Track dropout: what is dropped has no influence, what is kept is computed exactly."""

import inspect
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.models import set_merge
from mmtimesformer.models.track_dropout import MODES, draw_kept, mask_of
from tests.tiny_model import CONFIG, build_model

SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')
B, T, P, D = 2, 5, 13, 20  # videos, frames, patches of a frame (in one row), width
each_scheme = pytest.mark.parametrize('scheme', SCHEMES)


def model_of(scheme: str = SCHEMES[0], **changes: Any) -> TimeSformer:
    torch.manual_seed(0)
    arguments: dict[str, Any] = dict(
        num_frames=T, img_size=(8, 8 * P), patch_size=8, embed_dims=D, num_heads=5, num_layers=3,
        drop_path_rate=0.0, attention_type=scheme, temporal_init='random',
    )  # fmt: skip
    model = TimeSformer(**{**arguments, **changes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.train()


def video(width: int = P) -> Tensor:
    return torch.randn(B, 3, T, 8, 8 * width, generator=torch.Generator().manual_seed(1))


def run(model: TimeSformer, seed: int, clip: Tensor | None = None) -> Any:
    torch.manual_seed(seed)
    return model(video() if clip is None else clip)


@pytest.mark.parametrize('mode', MODES)
@each_scheme
def test_dropped_patches_have_no_influence_and_kept_ones_have(scheme: str, mode: str) -> None:
    model = model_of(scheme, token_keep=0.4, token_drop_mode=mode, out_type='tokens')
    clip = video().requires_grad_()
    cls, _, kept = run(model, 3, clip)
    (gradient,) = torch.autograd.grad(cls.square().sum(), clip)
    felt = gradient.unflatten(-1, (P, 8)).abs().sum((1, 3, 5)) > 0  # b t p
    assert torch.equal(felt, mask_of(kept, (1, P))[:, :, 0])
    noise = 9 * torch.randn_like(clip) * ~felt.repeat_interleave(8, -1)[:, None, :, None]
    assert torch.equal(run(model, 3, clip + noise)[0], cls)


@each_scheme
def test_what_remains_is_computed_as_a_video_of_these_tracks(scheme: str) -> None:
    """The model of a frame of 5 patches, given the pixels and positions of those kept."""
    model = model_of(scheme, token_keep=5 / P, out_type='tokens')
    clip = video()[:1]
    cls, patches, kept = run(model, 3, clip)
    assert patches.shape == (1, T, 5, D) and kept.shape == (1, T, 5)
    assert (kept == kept[:, :1]).all()

    small = model_of(scheme, img_size=(8, 40), out_type='tokens')
    weights = model.state_dict()
    weights['pos_embed'] = weights['pos_embed'][:, [0, *(1 + kept[0, 0]).tolist()]]
    small.load_state_dict(weights)
    pixels = clip.unflatten(-1, (P, 8))[..., kept[0, 0], :].flatten(-2)
    expected = small.eval()(pixels)
    torch.testing.assert_close(cls, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patches, expected[1].squeeze(2), rtol=1e-4, atol=1e-5)


@each_scheme
def test_it_is_off_by_default_and_exactly_nothing_at_1(scheme: str) -> None:
    assert inspect.signature(TimeSformer.__init__).parameters['token_keep'].default == 1
    plain, all_kept = model_of(scheme), model_of(scheme, token_keep=1.0)
    assert torch.equal(run(plain, 3), run(all_kept, 3))
    state = torch.get_rng_state()
    all_kept(video())
    assert torch.equal(torch.get_rng_state(), state), 'no random number was drawn'
    assert not torch.allclose(run(plain, 3), run(model_of(scheme, token_keep=0.9), 3), rtol=1e-3)


@each_scheme
def test_nothing_is_dropped_in_evaluation(scheme: str) -> None:
    plain, dropping = model_of(scheme).eval(), model_of(scheme, token_keep=0.5).eval()
    assert torch.equal(plain(video()), dropping(video()))
    dropping.out_type = 'tokens'
    assert dropping(video())[1].shape == (B, T, 1, P, D)


@each_scheme
def test_every_parameter_learns_and_recomputing_drops_the_same(scheme: str) -> None:
    gradients = []
    for with_cp in (False, True):
        model = model_of(scheme, token_keep=0.5, with_cp=with_cp)
        run(model, 5).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.any(), name
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@each_scheme
def test_kept_tracks_can_be_merged(scheme: str) -> None:
    model = model_of(scheme, token_keep=0.5, out_type='tokens')  # 6 of 13
    set_merge(model, 2)
    cls, patches, kept = run(model, 3)
    assert patches.shape == (B, T, 6, D) and kept.shape == (B, T, 6)
    assert len(patches[0, 0].detach().unique(dim=0)) == 2  # after 2 of 3 blocks
    model.out_type = 'cls_token'
    torch.testing.assert_close(run(model, 3), cls, rtol=1e-4, atol=1e-5)


# The draw


@pytest.mark.parametrize(
    ('mode', 'groups'), [('track', [5]), ('tube', [2, 2, 1]), ('frame', 5 * [1])]
)
def test_places_are_drawn_as_the_mode_says(mode: str, groups: list[int]) -> None:
    torch.manual_seed(0)
    kept = draw_kept(7, T, 101, 0.5, mode)
    assert kept.shape == (7, T, 50)
    assert (kept.diff() > 0).all() and kept.min() >= 0 and kept.max() <= 100
    parts = kept.split(groups, dim=1)
    assert all((part == part[:, :1]).all() for part in parts)
    different = {tuple(row) for part in parts for row in part[:, 0].tolist()}
    assert len(different) == 7 * len(groups)
    torch.manual_seed(0)
    assert torch.equal(draw_kept(7, T, 101, 0.5, mode), kept)


def test_every_track_is_kept_equally_often() -> None:
    torch.manual_seed(0)
    mask = mask_of(draw_kept(4000, 1, P, 0.4), (1, P)).double()  # 5 of 13
    assert (mask.mean(0) - 5 / P).abs().max() < 0.03


def test_at_least_one_track_is_kept() -> None:
    assert draw_kept(1, T, P, 0.01).shape == (1, T, 1)


# Mistakes, and a config


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(token_keep=0), ['token_keep=0', 'backbone.token_keep']),
        (dict(token_keep=1.5), ['token_keep=1.5', 'at most 1']),
        (dict(token_keep=float('nan')), ['token_keep=nan']),
        (dict(token_keep='half'), ["token_keep='half'", 'backbone.token_keep']),
        (dict(token_drop_mode='block'), ["'block'", 'backbone.token_drop_mode', 'tube']),
    ],
)
def test_a_wrong_setting_is_answered_in_words(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        model_of(**changes)
    for word in words:
        assert word in str(error.value)


def test_hidden_states_of_dropped_tracks_are_refused() -> None:
    model = model_of(token_keep=0.5, out_type='hidden_states')
    with pytest.raises(ValueError, match=r"token_keep=0.5 .*'hidden_states'"):
        model(video())
    assert len(model.eval()(video())) == 4


def test_a_config_with_it_builds_and_trains() -> None:
    cfg = Config.fromstring(CONFIG, '.py')
    cfg.model.backbone.update(token_keep=0.5)
    model = build_model(cfg).train()
    assert model.backbone.token_keep == 0.5
    model.backbone(torch.randn(1, 3, 4, 32, 32)).sum().backward()
