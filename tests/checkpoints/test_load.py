import re
from pathlib import Path

import pytest
import torch
from torch import nn

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints import (
    CheckpointError,
    adapt_checkpoint,
    load_checkpoint,
    read_checkpoint,
    read_model_checkpoint,
    save_checkpoint,
)
from mmtimesformer.checkpoints.convert import WRITABLE

from .conftest import (
    FRAMES,
    GRID,
    IMAGE_FILES,
    PATCH,
    SCHEMES,
    VIDEO_FILES,
    Recognizer,
    as_mmaction2,
    of_images,
    random_weights,
    toy,
)

VIDEO = torch.randn(2, 3, FRAMES, PATCH * GRID, PATCH * GRID)


def _expected(scheme: str, video: torch.Tensor = VIDEO, **changes) -> torch.Tensor:
    """The same numbers by loading the official names directly."""
    weights = random_weights(scheme)
    model = Recognizer(attention_type=scheme, **changes).eval()
    head = {name[5:]: weights.pop(name) for name in ('head.weight', 'head.bias')}
    model.backbone.load_state_dict(weights)
    model.cls_head.fc_cls.load_state_dict(head)
    return model(video)


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('kind', [k for k in VIDEO_FILES if 'without' not in k])
def test_a_recogniser_takes_every_timesformer_file(kind, scheme, tmp_path) -> None:
    VIDEO_FILES[kind](random_weights(scheme), tmp_path / 'a')
    model = Recognizer(attention_type=scheme).eval()
    load_report = load_checkpoint(model, tmp_path / 'a')
    assert load_report.complete
    torch.testing.assert_close(model(VIDEO), _expected(scheme), rtol=0, atol=0)


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('kind', IMAGE_FILES)
def test_a_backbone_takes_every_image_vit(kind, scheme, tmp_path) -> None:
    weights = random_weights('space_only')
    if 'big_vision' in kind:
        weights['pos_embed'][:, 0] = 0
    IMAGE_FILES[kind](weights, tmp_path / 'a')
    model = TimeSformer(**toy(attention_type=scheme))
    load_checkpoint(model, tmp_path / 'a')
    loaded = model.state_dict()
    for name, tensor in of_images(weights).items():
        if not name.startswith('head.'):
            assert torch.equal(loaded[name], tensor), name
    assert not loaded.get('time_embed', torch.zeros(1)).any()


def test_a_model_of_another_size_and_length_gets_resized_embeddings(tmp_path) -> None:
    VIDEO_FILES['official'](random_weights(), tmp_path / 'a')
    model = Recognizer(num_frames=5, img_size=(20, 35))
    load_report = load_checkpoint(model, tmp_path / 'a')
    assert sorted(load_report.keys('resized')) == ['pos_embed', 'time_embed']
    converted = read_checkpoint(tmp_path / 'a', num_frames=5, img_size=(20, 35))
    assert torch.equal(model.backbone.pos_embed, converted.tensors['pos_embed'])
    assert torch.equal(model.backbone.time_embed, converted.tensors['time_embed'])


def test_our_own_file_keeps_its_grid_that_is_not_square(tmp_path) -> None:
    model = Recognizer(img_size=(10, 25))
    save_checkpoint(model, tmp_path / 'a.pth')
    again = Recognizer(img_size=(10, 25))
    load_report = load_checkpoint(again, tmp_path / 'a.pth')
    assert not load_report.keys('resized')
    assert torch.equal(again.backbone.pos_embed, model.backbone.pos_embed)


def test_another_number_of_classes_leaves_a_newly_initialized_classifier_in_the_report(
    tmp_path,
) -> None:
    VIDEO_FILES['mmaction2'](random_weights(), tmp_path / 'a')
    model = Recognizer(num_classes=4)
    before = model.cls_head.fc_cls.weight.clone()
    load_report = load_checkpoint(model, tmp_path / 'a')
    assert torch.equal(model.cls_head.fc_cls.weight, before)
    assert 'a classifier of 7 classes, the model has 4' in load_report.table()
    assert load_report.keys('newly initialized') == [
        'cls_head.fc_cls.weight',
        'cls_head.fc_cls.bias',
    ]


def test_a_backbone_alone_drops_the_classifier_and_reports_it(tmp_path) -> None:
    VIDEO_FILES['huggingface'](random_weights(), tmp_path / 'a')
    load_report = load_checkpoint(TimeSformer(**toy()), tmp_path / 'a')
    assert load_report.keys('dropped') == ['classifier.bias', 'classifier.weight']
    assert 'the model has no classifier' in load_report.table()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'attention_type': 'space_only'},
            'is divided_space_time, but space_only is wanted.*--change-attention',
        ),
        ({'num_layers': 3}, r'lacks .*backbone\.blocks\.2\.'),
        ({'num_layers': 1}, 'has 2 blocks, the model 1; set backbone.num_layers to 2'),
        (
            {'embed_dims': 24},
            r'cls_token has shape \(1, 1, 20\) in the checkpoint and \(1, 1, 24\) in the model; '
            'set backbone.embed_dims',
        ),
        (
            {'patch_size': 3},
            r'proj.weight has shape \(20, 3, 5, 5\) .* and \(20, 3, 3, 3\).*backbone.patch_size',
        ),
        ({'mlp_ratio': 3.0}, r'\(80, 20\) in the checkpoint and \(60, 20\).*mlp_ratio'),
        ({'qkv_bias': False}, 'no place for .*qkv.bias.*set backbone.qkv_bias to True'),
    ],
)
def test_the_error_for_a_model_that_does_not_fit_names_the_key_to_change(
    changes, message, tmp_path
) -> None:
    VIDEO_FILES['mmaction2'](random_weights(), tmp_path / 'a')
    model = Recognizer(**changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, tmp_path / 'a')
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())  # untouched


def test_another_number_of_heads_fits_every_shape_and_is_refused(tmp_path) -> None:
    save_checkpoint(Recognizer(num_heads=4), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='4 attention heads, the model 5.*backbone.num_heads'):
        load_checkpoint(Recognizer(num_heads=5), tmp_path / 'a.pth')


def test_another_epsilon_is_a_warning_with_both(tmp_path) -> None:
    save_checkpoint(Recognizer(norm_eps=1e-12), tmp_path / 'a.pth')
    with pytest.warns(UserWarning, match='trained with 1e-12, the model has 1e-06'):
        load_checkpoint(Recognizer(), tmp_path / 'a.pth')


def test_weights_without_a_bias_of_queries_fit_a_model_with_one(tmp_path) -> None:
    VIDEO_FILES['paddle'](random_weights(qkv_bias=False), tmp_path / 'a')
    with_bias, without = Recognizer(), Recognizer(qkv_bias=False)
    load_report = load_checkpoint(with_bias, tmp_path / 'a')
    assert len(load_report.keys('seeded')) == 4
    load_checkpoint(without, tmp_path / 'a')
    torch.testing.assert_close(with_bias.eval()(VIDEO), without.eval()(VIDEO), rtol=0, atol=0)


@pytest.mark.parametrize('to', WRITABLE)
@pytest.mark.parametrize('scheme', SCHEMES)
def test_a_saved_model_gives_the_same_numbers_in_every_format(to, scheme, tmp_path) -> None:
    model = Recognizer(attention_type=scheme).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    for path in (tmp_path / 'a.pth', tmp_path / 'b.safetensors', tmp_path / 'folder'):
        if path.suffix or to == 'huggingface':
            save_checkpoint(model, path, to)
            again = Recognizer(attention_type=scheme).eval()
            load_checkpoint(again, path)
            torch.testing.assert_close(again(VIDEO), model(VIDEO), rtol=0, atol=0)


def test_a_path_without_an_ending_is_refused_before_anything_is_written(tmp_path) -> None:
    with pytest.raises(ValueError, match=r'end it with \.pth or \.safetensors'):
        save_checkpoint(Recognizer(), tmp_path / 'weights')
    assert not list(tmp_path.iterdir())


# -- parts of the user's own -----------------------------------------------------------------------


class WithAdapter(Recognizer):
    def __init__(self, **backbone) -> None:
        super().__init__(**backbone)
        for block in self.backbone.blocks:
            block.adapter = nn.Linear(3, 3)


def test_a_part_of_ones_own_is_missing_unless_allowed_by_name(tmp_path) -> None:
    VIDEO_FILES['official'](random_weights(), tmp_path / 'a')
    with pytest.raises(CheckpointError, match='lacks backbone.blocks.0.adapter.weight'):
        load_checkpoint(WithAdapter(), tmp_path / 'a')
    allow = ['blocks.0.adapter', 'backbone.blocks.1.adapter']
    load_report = load_checkpoint(WithAdapter(), tmp_path / 'a', allow_missing=allow)
    assert len(load_report.keys('newly initialized')) == 4


def test_a_checkpoint_of_a_model_with_ones_own_modules_is_loaded_completely(tmp_path) -> None:
    model = WithAdapter()
    torch.save({'meta': {}, 'state_dict': model.state_dict()}, tmp_path / 'a.pth')
    again = WithAdapter()
    load_report = load_checkpoint(again, tmp_path / 'a.pth')
    assert load_report.complete
    assert all(torch.equal(model.state_dict()[k], v) for k, v in again.state_dict().items())
    with_other_head = WithAdapter(num_classes=4)
    assert load_checkpoint(with_other_head, tmp_path / 'a.pth').keys('newly initialized')
    with pytest.raises(CheckpointError, match=r'adapter.weight'):
        load_checkpoint(Recognizer(), tmp_path / 'a.pth')


def test_parts_that_the_model_does_not_have_are_unknown(tmp_path) -> None:
    weights = {**WithAdapter().state_dict(), 'backbone.blocks.0.gate.weight': torch.zeros(3)}
    torch.save({'meta': {}, 'state_dict': weights}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'has backbone\.blocks\.0\.gate\.weight'):
        load_checkpoint(WithAdapter(), tmp_path / 'a.pth')


def test_a_model_that_is_not_ours_is_refused(tmp_path) -> None:
    VIDEO_FILES['official'](random_weights(), tmp_path / 'a')
    with pytest.raises(TypeError, match='Linear has no TimeSformer of ours inside'):
        load_checkpoint(nn.Linear(3, 3), tmp_path / 'a')


# -- for MMEngine ----------------------------------------------------------------------------------


def test_a_training_checkpoint_passes_untouched(tmp_path) -> None:
    training = {
        'meta': {'epoch': 3, 'cfg': 'x = 1'},
        'state_dict': Recognizer().state_dict(),
        'optimizer': {'state': {0: {'momentum_buffer': torch.ones(2)}}, 'param_groups': []},
        'message_hub': {'runtime_info': {'iter': 5}},
    }
    torch.save(training, tmp_path / 'a.pth')
    read = read_model_checkpoint(tmp_path / 'a.pth')
    assert list(read) == list(training)
    assert list(read['state_dict']) == list(training['state_dict'])
    assert read['optimizer']['state'][0]['momentum_buffer'].tolist() == [1, 1]


@pytest.mark.parametrize('bare', [True, False])
def test_weights_of_other_models_pass_untouched(bare, tmp_path) -> None:
    weights = {f'backbone.layer{i}.conv.weight': torch.zeros(2) for i in range(3)}
    torch.save(weights if bare else {'state_dict': weights}, tmp_path / 'a.pth')
    read = read_model_checkpoint(tmp_path / 'a.pth')
    assert list(read if bare else read['state_dict']) == list(weights)
    torch.save({'state_dict': as_mmaction2(random_weights())}, tmp_path / 'b.pth')
    assert list(read_model_checkpoint(tmp_path / 'b.pth')['state_dict']) == list(
        as_mmaction2(random_weights())  # they may be for MMAction2's own TimeSformer
    )


@pytest.mark.parametrize('kind', ['official', 'huggingface', 'huggingface bin', 'paddle'])
def test_what_mmengine_cannot_read_becomes_ours(kind, tmp_path) -> None:
    VIDEO_FILES[kind](random_weights(), tmp_path / 'a')
    read = read_model_checkpoint(tmp_path / 'a', map_location=None)
    model = Recognizer()
    assert set(read['state_dict']) == set(model.state_dict())
    assert read['meta']['mmtimesformer']['source'] == kind.split()[0]


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('kind', [*VIDEO_FILES, *IMAGE_FILES])
def test_every_file_that_mmengine_hands_over_is_made_to_fit(kind, scheme, tmp_path) -> None:
    is_video = kind in VIDEO_FILES
    weights = random_weights(scheme if is_video else 'space_only')
    ({**VIDEO_FILES, **IMAGE_FILES})[kind](weights, tmp_path / 'a')
    model = Recognizer(attention_type=scheme)
    checkpoint = read_model_checkpoint(tmp_path / 'a')
    load_report = adapt_checkpoint(checkpoint, model)
    assert load_report is not None
    assert load_report.complete
    assert set(checkpoint['state_dict']) == set(model.state_dict())  # nothing for strict=False
    model.load_state_dict(checkpoint['state_dict'])
    space = 'blocks.1.attn.proj.weight'
    assert torch.equal(model.backbone.state_dict()[space], weights[space])
    if not is_video and scheme == 'divided_space_time':
        name = 'blocks.1.temporal_attn.proj.weight'
        assert torch.equal(model.backbone.state_dict()[name], weights[space])


def test_a_wrong_scheme_is_refused_also_there(tmp_path) -> None:
    VIDEO_FILES['mmtimesformer'](random_weights('space_only'), tmp_path / 'a')
    with pytest.raises(CheckpointError, match='is space_only, but divided_space_time is wanted'):
        adapt_checkpoint(read_model_checkpoint(tmp_path / 'a'), Recognizer())


def test_a_model_without_our_backbone_is_left_alone() -> None:
    checkpoint = {'state_dict': {'weight': torch.zeros(1)}}
    assert adapt_checkpoint(checkpoint, nn.Linear(1, 1)) is None
    assert list(checkpoint['state_dict']) == ['weight']


def test_the_package_never_imports_the_models() -> None:
    folder = Path(read_checkpoint.__code__.co_filename).parent
    for file in folder.glob('*.py'):
        imports = re.findall(r'^\s*(?:from|import) +(\S+)', file.read_text(), re.MULTILINE)
        foreign = [m for m in imports if m.startswith(('mmengine', 'mmaction', 'mmcv'))]
        ours = [m for m in imports if m.startswith('mmtimesformer')]
        allowed = (
            'checkpoints', 'class_names', 'cli', 'fileio', 'non_finite', 'resize', 'terminal',
        )  # fmt: skip
        foreign += [m for m in ours if m.split('.')[1] not in allowed]
        assert not foreign, file


def test_each_option_of_loading_has_its_effect(tmp_path) -> None:
    path = tmp_path / 'a'
    VIDEO_FILES['mmaction2'](random_weights(), path)

    with pytest.raises(CheckpointError, match='allow exactly that with change_attention'):
        load_checkpoint(Recognizer(attention_type='space_only'), path)
    space = load_checkpoint(Recognizer(attention_type='space_only'), path, change_attention=True)
    assert 'time_embed' in [entry.key.rpartition('.')[2] for entry in space.entries]

    model = Recognizer()
    load_report = load_checkpoint(model, path, keep_head=False)
    assert len(load_report.keys('newly initialized')) == 2

    larger = [Recognizer(img_size=PATCH * 5) for _ in range(2)]
    for one, resize in zip(larger, ('grid', 'legacy-1d-nearest'), strict=True):
        load_checkpoint(one, path, resize=resize)
    assert not torch.equal(larger[0].backbone.pos_embed, larger[1].backbone.pos_embed)

    with pytest.raises(CheckpointError, match='is not a size of 10 x 10 pixels'):
        load_checkpoint(Recognizer(), path, source_size=10)
