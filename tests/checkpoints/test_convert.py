import itertools
from collections.abc import Callable

import pytest
import torch

from mmtimesformer.checkpoints import CheckpointError, convert_state_dict
from mmtimesformer.checkpoints.convert import (
    WRITABLE,
    expected_names,
    seed_temporal_attention,
    to_canonical,
    to_format,
)

from .conftest import (
    SCHEMES,
    as_huggingface,
    as_mmaction2,
    as_official,
    as_paddle,
    of_images,
    random_weights,
)

LAYOUTS = {'official': as_official, 'huggingface': as_huggingface, 'mmaction2': as_mmaction2}


def _ours(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        f'cls_head.fc_cls.{k[5:]}' if k.startswith('head.') else f'backbone.{k}': v
        for k, v in weights.items()
    }


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('to', LAYOUTS)
def test_what_is_written_is_what_the_other_system_writes_itself(to: str, scheme: str) -> None:
    weights = random_weights(scheme)
    written, load_report = convert_state_dict(_ours(weights), to)
    assert _equal(written, LAYOUTS[to](weights))
    assert load_report.complete


@pytest.mark.parametrize('head', [True, False])
@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('to', WRITABLE)
def test_there_and_back_is_bit_equal(to: str, scheme: str, head: bool) -> None:
    ours = _ours(random_weights(scheme, head=head))
    there, _ = convert_state_dict(ours, to)
    back, _ = convert_state_dict(there)
    assert _equal(back, ours)


@pytest.mark.parametrize('to', WRITABLE)
def test_converting_twice_is_converting_once(to: str) -> None:
    vit = of_images(random_weights('space_only'))
    once, _ = convert_state_dict(vit, to, num_frames=5, img_size=20)
    twice, load_report = convert_state_dict(once, to, num_frames=5, img_size=20)
    assert _equal(once, twice)
    assert not load_report.keys('seeded') + load_report.keys('resized')


def test_every_key_that_came_and_every_key_that_goes_is_in_the_account_once() -> None:
    vit = of_images(random_weights('space_only'))
    written, load_report = convert_state_dict(vit, num_frames=5, img_size=20)
    came = load_report.keys('renamed') + load_report.keys('dropped') + load_report.keys('unknown')
    assert sorted(came) == sorted(vit)
    goes = [e.to for e in load_report.entries if e.action in ('renamed', 'seeded')]
    assert sorted(goes) == sorted(written)


def test_time_starts_as_a_copy_of_space_behind_a_projection_of_zero() -> None:
    vit = of_images(random_weights('space_only', head=False))
    seeded, _ = convert_state_dict(vit, num_frames=5)
    for i in range(2):
        for name in ('attn.qkv', 'attn.proj', 'norm1'):
            for leaf in ('weight', 'bias'):
                space = seeded[f'backbone.blocks.{i}.{name}.{leaf}']
                time = seeded[f'backbone.blocks.{i}.temporal_{name}.{leaf}']
                assert torch.equal(space, time)
                assert space.data_ptr() != time.data_ptr()  # training one must not move the other
        assert not seeded[f'backbone.blocks.{i}.temporal_fc.weight'].any()
        assert not seeded[f'backbone.blocks.{i}.temporal_fc.bias'].any()
    assert seeded['backbone.time_embed'].shape == (1, 5, 20)
    assert not seeded['backbone.time_embed'].any()


def test_joint_and_space_only_are_made_of_an_image_vit_too() -> None:
    vit = of_images(random_weights('space_only', head=False))
    joint, load_report = convert_state_dict(vit, attention_type='joint_space_time')
    assert load_report.keys('seeded') == ['time_embed']
    assert not joint['backbone.time_embed'].any()
    space, load_report = convert_state_dict(vit, attention_type='space_only')
    assert not load_report.keys('seeded')
    assert {name.removeprefix('backbone.') for name in space} == set(vit)


def test_seeding_refuses_to_overwrite_temporal_weights() -> None:
    weights = to_canonical(_ours(random_weights()))
    with pytest.raises(CheckpointError, match='temporal weights already.*would overwrite'):
        seed_temporal_attention(weights)


@pytest.mark.parametrize(('has', 'wanted'), list(itertools.permutations(SCHEMES, 2)))
def test_another_attention_type_is_refused_by_default_and_allowed_by_a_flag(has, wanted) -> None:
    ours = _ours(random_weights(has))
    with pytest.raises(CheckpointError) as error:
        convert_state_dict(ours, attention_type=wanted)
    message = str(error.value)
    assert has in message
    assert wanted in message
    assert '--change-attention' in message
    assert ('drop' in message) == (len(expected_names(has, 2)) > len(expected_names(wanted, 2)))

    changed, load_report = convert_state_dict(ours, attention_type=wanted, change_attention=True)
    assert {name.removeprefix('backbone.') for name in changed if 'cls_head' not in name} == set(
        expected_names(wanted, 2)
    )
    if 'drop' in message:
        assert load_report.keys('dropped')
    if 'seed' in message:
        assert load_report.keys('seeded')
    if 'space_only' not in (has, wanted):  # both know the time, so it is kept
        assert torch.equal(changed['backbone.time_embed'], ours['backbone.time_embed'])


def test_an_unknown_and_a_missing_key_are_named() -> None:
    ours = _ours(random_weights())
    del ours['backbone.blocks.1.mlp.fc1.bias']
    ours['backbone.blocks.1.gamma'] = torch.zeros(3)
    with pytest.raises(CheckpointError) as error:
        convert_state_dict(ours)
    assert 'lacks blocks.1.mlp.fc1.bias' in str(error.value)
    assert 'has backbone.blocks.1.gamma, which no known format has' in str(error.value)
    assert error.value.load_report.keys('missing') == ['blocks.1.mlp.fc1.bias']


def test_an_unknown_key_alone_is_an_error() -> None:
    ours = _ours(random_weights())
    ours['backbone.blocks.1.ls1.gamma'] = torch.zeros(3)
    with pytest.raises(CheckpointError, match='read as mmtimesformer, has .*ls1.gamma, which'):
        convert_state_dict(ours)


def test_a_qkv_without_its_query_is_missing_and_the_rest_is_reported_as_dropped() -> None:
    from .conftest import as_huggingface_vit

    vit = as_huggingface_vit(random_weights('space_only'))
    del vit['vit.encoder.layer.1.attention.attention.query.weight']
    with pytest.raises(CheckpointError, match='lacks .*blocks.1.attn.qkv.weight') as error:
        convert_state_dict(vit)
    assert 'vit.encoder.layer.1.attention.attention.key.weight' in error.value.load_report.keys(
        'dropped'
    )


@pytest.mark.parametrize(
    ('name', 'shape', 'must'),
    [
        ('blocks.1.attn.proj.weight', (20, 19), r'\(20, 20\)'),
        ('blocks.0.mlp.fc2.weight', (80, 20), r'\(20, 80\)'),
        ('norm.weight', (21,), r'\(20,\)'),
        ('time_embed', (1, 3, 21), r'\(1, 3, 20\)'),
        ('head.weight', (7, 21), r'\(7, 20\)'),
    ],
)
def test_a_wrong_shape_is_reported_with_both_shapes(name, shape, must) -> None:
    weights = random_weights()
    weights[name] = torch.zeros(shape)
    has = str(tuple(shape)).replace('(', r'\(').replace(')', r'\)')
    with pytest.raises(CheckpointError, match=f'{name} has shape {has}.*must be {must}'):
        convert_state_dict(_ours(weights))


def test_no_bias_is_written_as_a_bias_of_zero_where_the_system_must_have_one() -> None:
    ours = _ours(random_weights(qkv_bias=False))
    mmaction2, load_report = convert_state_dict(ours, 'mmaction2')
    name = 'backbone.transformer_layers.layers.1.attentions.0.attn.in_proj_bias'
    assert not mmaction2[name].any()
    assert len(load_report.keys('seeded')) == 4
    huggingface, _ = convert_state_dict(ours, 'huggingface')
    assert not [name for name in huggingface if name.endswith('qkv.bias')]


def test_positions_of_a_grid_that_is_not_square_need_its_size() -> None:
    weights = random_weights(head=False)
    weights['pos_embed'] = torch.randn(1, 1 + 2 * 5, 20)
    with pytest.raises(CheckpointError, match='10 patches of 5 pixels, which is not a square grid'):
        convert_state_dict(_ours(weights))
    same, _ = convert_state_dict(_ours(weights), source_size=(10, 25), img_size=(10, 25))
    assert torch.equal(same['backbone.pos_embed'], weights['pos_embed'])
    with pytest.raises(CheckpointError, match='a size of 25 x 25 pixels'):
        convert_state_dict(_ours(weights), source_size=25)


def test_a_size_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match='22 x 20 pixels cannot be cut into whole patches of 5'):
        convert_state_dict(_ours(random_weights()), img_size=(22, 20))


def test_half_precision_stays_half_precision() -> None:
    vit = {name: tensor.bfloat16() for name, tensor in of_images(random_weights()).items()}
    converted, _ = convert_state_dict(vit, num_frames=5, img_size=20)
    assert {tensor.dtype for tensor in converted.values()} == {torch.bfloat16}


def test_the_given_state_dict_is_left_as_it_was() -> None:
    ours = _ours(random_weights('space_only'))
    before = {name: tensor.clone() for name, tensor in ours.items()}
    convert_state_dict(
        ours, attention_type='divided_space_time', change_attention=True, img_size=20
    )
    assert _equal(ours, before)


@pytest.mark.parametrize(
    ('argument', 'value'), [('to', 'keras'), ('attention_type', 'axial'), ('resize', 'linear')]
)
def test_an_unknown_choice_is_answered_with_the_choices(argument: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}='{value}' is not known; give one of "):
        convert_state_dict(_ours(random_weights()), **{argument: value, 'img_size': 20})


def test_weights_of_an_unknown_format_are_refused_with_the_list_of_formats() -> None:
    with pytest.raises(CheckpointError, match='no known format .*layer1.*Google'):
        convert_state_dict({f'layer{i}.conv.weight': torch.zeros(1) for i in range(4)})


def test_hugging_faces_broken_space_only_gives_a_warning() -> None:
    _, load_report = convert_state_dict(_ours(random_weights('space_only')), 'huggingface')
    assert 'space_only is broken' in load_report.warnings[0]


def test_paddle_joint_and_space_only_come_in() -> None:
    for scheme in ('joint_space_time', 'space_only'):
        weights = random_weights(scheme)
        paddle = {
            name: torch.from_numpy(array)
            for name, array in as_paddle(weights).items()
            if not name.endswith('@@')
        }
        read = to_canonical(paddle)
        assert read.attention_type == scheme
        assert _equal(to_format(read, 'mmtimesformer'), _ours(weights))


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('cls_token', lambda w: w.to(torch.int8), 'numbers of torch.int8'),
        ('cls_token', lambda w: w > 0, 'numbers of torch.bool'),
        ('time_embed', lambda w: w.to(torch.complex64), 'numbers of torch.complex64'),
        ('norm.weight', lambda w: w.to('meta'), 'a shape and no content'),
        ('cls_token', lambda w: w.sum(), r'shape \(\)'),
        ('patch_embed.proj.weight', lambda w: w.flatten()[:0], r'shape \(0,\)'),
        ('blocks.0.mlp.fc1.weight', lambda w: w.sum(), r'shape \(\)'),
        ('pos_embed', lambda w: w.flatten(), 'pos_embed has 3 dimensions'),
        ('time_embed', lambda w: w[None], 'time_embed has 3 dimensions'),
    ],
)
def test_a_tensor_that_can_be_no_weight_is_refused(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    weights = random_weights('divided_space_time')
    weights[name] = change(weights[name])
    with pytest.raises(CheckpointError, match=f'{name} has .*{message}'):
        convert_state_dict(_ours(weights), 'official')


def test_names_without_end_are_cut_in_messages() -> None:
    weights = _ours(random_weights('divided_space_time'))
    weights['k' * 4000] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        convert_state_dict(weights, 'official')
    assert len(str(caught.value)) < 600 and 'kkk' in str(caught.value)
    assert max(map(len, caught.value.load_report.table().splitlines())) < 200
