from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmtimesformer.checkpoints import save_checkpoint
from mmtimesformer.checkpoints.convert import to_canonical
from mmtimesformer.config.validate import check_config
from mmtimesformer.finetuning.configs import (
    make_config,
    pretrained,
    scratch,
    set_interval,
    train_pipeline,
    write_config,
)
from mmtimesformer.finetuning.inspection import Sizes, inspect_videos
from mmtimesformer.finetuning.recipes import Start, choose
from tests.checkpoints.conftest import random_weights
from tests.inference.conftest import CONFIG

SIZES = Sizes(frames=300, fps=30.0, short_side=240)
NAMES = ['wave', 'jump']


@pytest.fixture
def base() -> Start:
    """TimeSformer-B with pretrained weights; nothing is loaded."""
    backbone = {'num_layers': 12, 'embed_dims': 768}
    return Start({'backbone': backbone, 'cls_head': {}}, [], 'TimeSformer-B', 'k400.pth')


def chosen(start: Start, number: int, **options: Any) -> Any:
    return choose(start, number, NAMES, **{'memory': 64 << 30, **options})


@pytest.mark.parametrize(
    ('number', 'kind', 'frozen'),
    [(40, 'probe', 12), (299, 'probe', 12), (300, 'last-blocks', 8), (1999, 'last-blocks', 8),
     (2000, 'full', -1)],
)  # fmt: skip
def test_the_recipe_follows_the_number_of_videos(
    base: Start, number: int, kind: str, frozen: int
) -> None:
    recipe = chosen(base, number)
    assert (recipe.kind, recipe.frozen) == (kind, frozen)


def test_flags_win(base: Start) -> None:
    recipe = chosen(base, 40, recipe='full', freeze=3, flip=False, epochs=7)
    assert (recipe.kind, recipe.frozen, recipe.flip, recipe.epochs) == ('full', 3, 0, 7)


def test_batch_and_accumulation_follow_the_memory(base: Start) -> None:
    sizes = {gib: chosen(base, 5000, recipe='full', memory=gib << 30) for gib in (8, 12, 64)}
    found = {gib: (recipe.batch_size, recipe.accumulate) for gib, recipe in sizes.items()}
    assert found == {8: (2, 4), 12: (4, 2), 64: (8, 1)}


def test_little_memory_trains_the_last_blocks_alone_or_is_an_error(base: Start) -> None:
    recipe = chosen(base, 5000, memory=3 << 30)
    assert recipe.kind == 'last-blocks' and 'a clip of the whole model needs more' in recipe.why
    with pytest.raises(ValueError, match=r'needs about .* GiB .*set --freeze to more blocks'):
        chosen(base, 5000, memory=1 << 28)


def test_augmentation_and_averages_follow_the_size_of_the_data(base: Start) -> None:
    few, many = chosen(base, 400), chosen(base, 20_000)
    assert (few.mixup, few.ema) == (False, False)
    assert (many.mixup, many.ema) == (True, True)
    assert not chosen(base, 20_000, multi_label=True).mixup


def config_of(start: Start, recipe: Any, multi_label: bool = False) -> dict[str, Any]:
    data = {'train': 'train.txt', 'val': 'val.txt', 'classes': 'classes.txt'}
    return make_config(
        start, recipe, data=data, root='.', delimiter=' ', num_classes=2, multi_label=multi_label,
        work_dir='work', seed=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ('counts', 'sampler', 'best'),
    [
        ({'wave': 380, 'jump': 38}, 'mmtimesformer.ClassBalancedSampler', 'acc/mean1'),
        ({'wave': 379, 'jump': 38}, 'DefaultSampler', 'acc/top1'),
    ],
)
def test_classes_are_balanced_where_the_largest_has_10_times_the_smallest(
    base: Start, counts: dict[str, int], sampler: str, best: str
) -> None:
    recipe = chosen(base, 418, counts=counts)
    config = config_of(base, recipe)
    assert config['train_dataloader']['sampler'] == {'type': sampler, 'shuffle': True}
    assert config['val_dataloader']['sampler'] == {'type': 'DefaultSampler', 'shuffle': False}
    assert config['default_hooks']['checkpoint']['save_best'] == best
    words = (
        "balanced sampler: 'wave' has 380 training videos, 10 times or more those of 'jump' (38)"
    )
    assert recipe.balanced == (words if 'Balanced' in sampler else '')
    assert chosen(base, 40, counts={'wave': 38, 'jump': 2}).balanced.startswith('class weights: ')
    several = config_of(base, chosen(base, 418, counts=counts, multi_label=True), True)
    assert several['default_hooks']['checkpoint']['save_best'] == 'acc/mean_average_precision'


@pytest.mark.parametrize(('number', 'stops'), [(300, True), (1999, True), (2000, False)])
def test_pretrained_weights_on_few_videos_stop_early_at_the_best_checkpoint(
    base: Start, number: int, stops: bool
) -> None:
    recipe = chosen(base, number)
    hooks = config_of(base, recipe).get('custom_hooks', [])
    found = [hook for hook in hooks if hook['type'] == 'mmtimesformer.EarlyStoppingHook']
    assert len(found) == stops
    assert any('early stopping after 5' in note for note in recipe.notes) == stops
    for hook in found:
        assert (hook['monitor'], hook['rule'], hook['min_delta']) == ('acc/top1', 'greater', 0.001)
    assert chosen(scratch(SIZES), number).patience is None
    assert chosen(base, 40).patience is None  # a probe


@pytest.mark.parametrize(
    ('classes', 'flip'),
    [
        (['wave', 'jump'], 0.5),
        (['turn left', 'turn'], 0.0),
        (['Counter-Clockwise', 'x'], 0.0),
        (['leftovers', 'bright'], 0.5),
    ],
)
def test_clips_are_not_mirrored_where_a_class_has_a_direction(
    base: Start, classes: list[str], flip: float
) -> None:
    assert choose(base, 400, classes, memory=64 << 30).flip == flip


def test_random_weights_are_not_frozen() -> None:
    start = scratch(SIZES)
    assert chosen(start, 40).kind == 'full'
    for options in ({'recipe': 'probe'}, {'recipe': 'last-blocks'}, {'freeze': 1}):
        with pytest.raises(ValueError, match='random'):
            chosen(start, 40, **options)


def test_more_blocks_than_there_are_cannot_be_frozen(base: Start) -> None:
    with pytest.raises(ValueError, match='--freeze 13 is more than the 12 blocks'):
        chosen(base, 40, freeze=13)


@pytest.mark.parametrize(('side', 'size'), [(64, 64), (127, 64), (128, 112), (720, 112)])
def test_the_model_from_scratch_follows_the_size_of_the_videos(side: int, size: int) -> None:
    start = scratch(Sizes(21, 10.0, side))
    assert start.model['backbone']['img_size'] == size
    set_interval(start, Sizes(21, 10.0, side))
    assert start.interval == 2  # 8 frames, 2 apart, of 21


def test_a_pretrained_interval_is_shortened_for_short_videos_alone(tmp_path: Path) -> None:
    for frames, interval in ((16, 2), (24, 2), (7, 1)):
        start = pretrained(str(trained(tmp_path)))
        set_interval(start, Sizes(frames, 30.0, 240))
        assert start.interval == interval


def trained(folder: Path) -> Path:
    """A checkpoint as a training writes it."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules
    from mmengine.registry import DefaultScope

    path = folder / 'tiny.py'
    path.write_text(CONFIG.replace('{videos}', 'nowhere'))
    cfg = Config.fromfile(path)
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
    file = folder / 'trained.pth'
    torch.save({'meta': {'cfg': cfg.pretty_text}, 'state_dict': model.state_dict()}, file)
    return file


def test_a_training_pipeline_is_that_of_the_test_with_random_parts() -> None:
    test = [
        {'type': 'SampleFrames', 'clip_len': 8, 'num_clips': 1, 'test_mode': True},
        {'type': 'mmtimesformer.ShortSideResize', 'size': 224},
        {'type': 'mmtimesformer.UniformCrops', 'crop_size': 224, 'num_crops': 3},
    ]
    assert train_pipeline(test, 0.5, jitter=True) == [
        {'type': 'SampleFrames', 'clip_len': 8},
        {'type': 'RandomRescale', 'scale_range': (256, 320)},
        {'type': 'RandomCrop', 'size': 224},
        {'type': 'Flip', 'flip_ratio': 0.5},
    ]


@pytest.mark.parametrize(
    ('kind', 'multi_label'),
    [
        ('scratch', False),
        ('training checkpoint', True),
        ('training checkpoint', False),
        ('image ViT', False),
    ],
)
def test_every_config_passes_the_check_of_the_training_tool(
    tmp_path: Path, tiny_videos: Path, kind: str, multi_label: bool
) -> None:
    if kind == 'scratch':
        start = scratch(SIZES)
    elif kind == 'training checkpoint':
        start = pretrained(str(trained(tmp_path)))
    else:
        weights = random_weights('space_only', head=False, width=192, depth=1, patch=16, grid=14)
        save_checkpoint(to_canonical(weights), tmp_path / 'vit.pth')
        start = pretrained(str(tmp_path / 'vit.pth'))
    set_interval(start, SIZES)
    few = kind == 'training checkpoint' and not multi_label
    counts = {'wave': 390, 'jump': 10} if few else None
    recipe = chosen(start, 400 if few else 6000, counts=counts, multi_label=multi_label)
    assert (bool(recipe.balanced), recipe.patience) == ((True, 5) if few else (False, None))
    data = {name: str(tmp_path / f'{name}.txt') for name in ('train', 'val', 'classes')}
    for name, labels in (('train', '0 1' if multi_label else '1'), ('val', '0')):
        Path(data[name]).write_text(f'0.mp4 {labels}\n1.mp4 {labels}\n')
    Path(data['classes']).write_text('wave\njump\n')
    config = make_config(
        start, recipe, data=data, root=str(tiny_videos), delimiter=' ', num_classes=2,
        multi_label=multi_label, work_dir=str(tmp_path / 'work'), seed=0,
    )  # fmt: skip
    path = tmp_path / 'config.py'
    write_config(config, path, 'a heading with """quotes""" and \\n')
    cfg = Config.fromfile(path)
    import mmtimesformer.heads  # noqa: F401

    for purpose in ('train', 'test'):
        notes = check_config(cfg, purpose)
        assert not [note for note in notes if 'average_clips' in note]
    assert cfg.train_dataloader.dataset.get('multi_class', False) is multi_label


def test_videos_are_measured_and_bad_ones_are_listed(tiny_videos: Path, tmp_path: Path) -> None:
    bad = tmp_path / 'bad.mp4'
    bad.write_bytes(b'no video')
    paths = ['0.mp4', '1.mp4', str(bad)]
    sizes, left_out = inspect_videos(tiny_videos, paths, 2, quick=True)
    assert list(left_out) == [str(bad)] and left_out[str(bad)]
    assert sizes.frames > 8 and sizes.short_side > 16
