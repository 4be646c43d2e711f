"""Every argument is felt, and every wrong one is answered in words."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.models import FFN, SelfAttention
from mmtimesformer.models.mmaction2_arguments import NAMES

BASE = dict(
    num_frames=3, img_size=(16, 40), patch_size=8, embed_dims=28, num_layers=3, num_heads=4,
    drop_path_rate=0.0,
)  # fmt: skip
VIDEO = torch.randn(2, 3, 3, 16, 40, generator=torch.Generator().manual_seed(2))


def build(**changes: Any) -> TimeSformer:
    torch.manual_seed(0)
    return TimeSformer(**{**BASE, 'temporal_init': 'random', **changes})


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def twin(model: TimeSformer, **changes: Any) -> TimeSformer:
    """The same weights under one changed argument."""
    changed = build(**changes)
    changed.load_state_dict(model.state_dict())
    return changed


@pytest.mark.parametrize(
    ('argument', 'value', 'name', 'shape'),
    [
        ('num_frames', 7, 'time_embed', (1, 7, 28)),
        ('img_size', 24, 'pos_embed', (1, 10, 28)),
        ('img_size', [24, 8], 'pos_embed', (1, 4, 28)),
        ('patch_size', 4, 'patch_embed.proj.weight', (28, 3, 4, 4)),
        ('in_channels', 2, 'patch_embed.proj.weight', (28, 2, 8, 8)),
        ('embed_dims', 32, 'norm.weight', (32,)),
        ('mlp_ratio', 2.5, 'blocks.2.mlp.fc1.weight', (70, 28)),
    ],
)
def test_an_argument_changes_the_shape_it_names(
    argument: str, value: Any, name: str, shape: tuple[int, ...]
) -> None:
    assert shapes(build(**{argument: value}))[name] == shape
    assert shapes(build())[name] != shape


def test_num_layers_is_the_number_of_blocks() -> None:
    assert len(build(num_layers=5).blocks) == 5


def test_without_qkv_bias_no_query_key_or_value_has_a_bias() -> None:
    with_bias, without = shapes(build()), shapes(build(qkv_bias=False))
    assert {name for name in with_bias if name not in without} == {
        f'blocks.{i}.{attn}.qkv.bias' for i in range(3) for attn in ('attn', 'temporal_attn')
    }


@pytest.mark.parametrize(
    ('argument', 'value'),
    [('num_heads', 7), ('norm_eps', 0.5), ('attn_cfg', dict(num_heads=2))],
)
def test_an_argument_without_weights_changes_the_output(argument: str, value: Any) -> None:
    model = build().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    assert (twin(model, **{argument: value}).eval()(VIDEO) - model(VIDEO)).abs().max() > 1e-3


@pytest.mark.parametrize('scheme', ['divided_space_time', 'joint_space_time', 'space_only'])
@pytest.mark.parametrize('argument', ['drop_rate', 'attn_drop_rate', 'drop_path_rate'])
def test_a_dropout_acts_in_training_and_only_there(argument: str, scheme: str) -> None:
    model = build(attention_type=scheme, **{argument: 0.5})
    assert not torch.equal(model.train()(VIDEO), model(VIDEO))
    assert torch.equal(model.eval()(VIDEO), model(VIDEO))
    assert torch.equal(model(VIDEO), twin(model, attention_type=scheme).eval()(VIDEO))


def test_drop_rate_reaches_embeddings_attention_and_mlp() -> None:
    rates = {name: m.p for name, m in build(drop_rate=0.25).named_modules() if hasattr(m, 'p')}
    assert set(rates.values()) == {0.25}
    assert set(rates) == {'drop'} | {
        f'blocks.{i}.{part}'
        for i in range(3)
        for part in ('attn.proj_drop', 'temporal_attn.proj_drop', 'mlp.drop')
    }


def test_out_types_are_views_of_one_computation() -> None:
    model = build().eval()
    cls = model(VIDEO)
    cls_again, patches = twin(model, out_type='tokens').eval()(VIDEO)
    states = twin(model, out_type='hidden_states').eval()(VIDEO)
    assert cls.shape == (2, 28)
    assert patches.shape == (2, 3, 2, 5, 28)
    assert len(states) == 4
    torch.testing.assert_close(cls, cls_again, rtol=1e-5, atol=1e-5)
    assert torch.equal(model.norm(states[-1][0]), cls_again)
    assert torch.equal(model.norm(states[-1][1]), patches)


@pytest.mark.parametrize(
    ('frozen_stages', 'trained', 'frozen'),
    [
        (-1, ['cls_token', 'patch_embed.proj.bias', 'blocks.0.norm1.bias', 'norm.bias'], []),
        (0, ['blocks.0.norm1.bias'], ['cls_token', 'time_embed', 'patch_embed.proj.bias']),
        (2, ['blocks.2.norm1.bias', 'norm.bias'], ['pos_embed', 'blocks.1.temporal_fc.bias']),
        (3, [], ['blocks.2.norm1.bias', 'norm.bias']),
    ],
)  # fmt: skip
def test_frozen_stages_get_no_gradient(
    frozen_stages: int, trained: list[str], frozen: list[str]
) -> None:
    model = build(frozen_stages=frozen_stages).train()
    output = model(VIDEO)
    if output.requires_grad:
        output.sum().backward()
    has_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert has_gradient.issuperset(trained)
    assert has_gradient.isdisjoint(frozen)


def test_frozen_stages_stay_in_evaluation_mode() -> None:
    model = build(frozen_stages=2, drop_path_rate=0.5, drop_rate=0.5).train()
    assert [block.training for block in model.blocks] == [False, False, True]
    assert not model.drop.training


@pytest.mark.parametrize('scheme', ['divided_space_time', 'joint_space_time', 'space_only'])
def test_with_cp_keeps_the_gradients_and_fewer_tensors(scheme: str) -> None:
    model = build(attention_type=scheme, drop_path_rate=0.3)
    saver = twin(model, attention_type=scheme, drop_path_rate=0.3, with_cp=True)

    def run(model: TimeSformer) -> tuple[int, dict[str, Tensor | None]]:
        saved = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            output = model.train()(VIDEO)
        output.sum().backward()
        return saved, {name: parameter.grad for name, parameter in model.named_parameters()}

    plain, gradients = run(model)
    saving, same_gradients = run(saver)
    assert saving < plain / 3
    for name, gradient in gradients.items():
        torch.testing.assert_close(same_gradients[name], gradient)


def test_time_starts_at_zero_for_weights_seeded_from_images() -> None:
    model = build(temporal_init='zero')
    assert not model.time_embed.any()
    for block in model.blocks:
        assert not block.temporal_fc.weight.any()
        assert not block.temporal_fc.bias.any()


def test_time_starts_at_random_for_training_from_scratch() -> None:
    model = build(temporal_init='random')
    assert model.time_embed.std() > 0.01
    for block in model.blocks:
        assert block.temporal_fc.weight.std() > 0.01


def test_embeddings_start_as_large_as_asked() -> None:
    model = build(embed_init_std=0.8)
    for embedding in (model.cls_token, model.pos_embed, model.time_embed):
        assert 0.5 < embedding.std() < 1
    assert build().pos_embed.std() < 0.03


def test_the_start_is_right_from_birth_and_init_weights_leaves_it_so() -> None:
    model = build(temporal_init='zero')
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.init_weights()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(not layer.bias.any() for layer in model.modules() if isinstance(layer, nn.Linear))
    assert 0.015 < model.blocks[0].attn.qkv.weight.std() < 0.025


def test_no_argument_is_without_a_test() -> None:
    tested_elsewhere = {'self', 'attention_type', 'block_cfg', 'ffn_cfg', 'init_cfg'}
    tested_elsewhere.update(NAMES)  # of MMAction2, in test_mmaction2_arguments.py
    tested_elsewhere.add('merge')  # in test_track_merging.py
    tested_elsewhere.update({'token_keep', 'token_drop_mode'})  # in test_track_dropout.py
    source = inspect.getsource(inspect.getmodule(test_no_argument_is_without_a_test))
    for name in inspect.signature(TimeSformer.__init__).parameters:
        assert name in tested_elsewhere or f"'{name}'" in source or f'{name}=' in source, name


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(attention_type='all'), ["'all'", 'backbone.attention_type', 'joint_space_time']),
        (dict(out_type='cls'), ["'cls'", 'backbone.out_type', 'hidden_states']),
        (dict(num_heads=5), ['embed_dims=28', 'num_heads=5', 'backbone.num_heads']),
        (dict(num_frames=0), ['num_frames=0', 'at least 1']),
        (dict(num_layers=0), ['num_layers=0', 'at least 1']),
        (dict(patch_size=0), ['patch_size=0', 'at least 1']),
        (dict(frozen_stages=4), ['frozen_stages=4', 'between -1 and 3']),
        (dict(img_size=(16, 41)), ['16 x 41', '8 x 8', 'backbone.img_size']),
        (dict(img_size=0), ['0 x 0', 'backbone.img_size']),
        (dict(drop_path_rate=1.0), ['1.0', 'backbone.drop_path_rate']),
        (dict(temporal_init='zeros'), ["'zeros'", 'backbone.temporal_init', "'random'"]),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_answered_with_the_value_the_rule_and_the_key(
    changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ValueError) as error:
        TimeSformer(**{**BASE, **changes})
    for word in words:
        assert word in str(error.value)


def test_a_misspelt_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match='num_frame'):
        TimeSformer(num_frame=8)
    with pytest.raises(TypeError, match='head'):
        SelfAttention(embed_dims=8, num_heads=2, head=1)
    with pytest.raises(TypeError, match='hidden'):
        FFN(embed_dims=8, feedforward_channels=8, hidden=1)


@pytest.mark.parametrize(
    ('video', 'words'),
    [
        (torch.zeros(2, 3, 16, 40), ['(2, 3, 16, 40)', '(b, c, t, H, W)', 'FormatShape']),
        (torch.zeros(2, 3, 1, 3, 16, 40), ['(2, 3, 1, 3, 16, 40)']),
        (torch.zeros(2, 1, 3, 16, 40), ['(2, 1, 3, 16, 40)', 'c=3', 'backbone.in_channels']),
        (torch.zeros(2, 3, 0, 16, 40), ['at least one frame']),
        (torch.zeros(0, 3, 3, 16, 40), ['a video and at least one frame']),
        (torch.zeros(2, 3, 3, 16, 42), ['16 x 42', '8 x 8', 'multiples of 8']),
        (torch.zeros(2, 3, 3, 16, 40, dtype=torch.uint8), ['uint8', 'ActionDataPreprocessor']),
    ],
)
def test_a_wrong_video_is_answered_with_its_shape_and_the_rule(
    video: Tensor, words: list[str]
) -> None:
    with pytest.raises(ValueError) as error:
        build()(video)
    for word in words:
        assert word in str(error.value)
