"""W12: recipes of other systems give the numbers that their own source computes.

What each system computes is written down here a second time, as formulas and values.
"""

import copy
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope

CONFIGS = Path(__file__).parents[2] / 'configs' / 'timesformer'
PP = 'pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb'
PP_MODELS = [PP, f'{PP}_distill', f'{PP.replace("8x32", "16x32")}_distill']
DIVIDED = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb'
# Learning rate 0.005, a tenth from the first epoch on and a hundredth from the second
STEPS = {
    f'{DIVIDED}_paddle': (11, 14),
    f'{DIVIDED}_official': (11, 14),
    'timesformer_divST_8xb8-u8-15e_sthv2-rgb_official': (11, 14),
    'timesformer_divST_8xb8-8x32x1-15e_kinetics600-rgb_official': (11, 14),
    DIVIDED: (5, 10),
}


@cache
def read(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


@pytest.fixture(autouse=True)
def _mmaction_scope() -> Iterator[None]:
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        yield


def rates(cfg: Config, steps_per_epoch: int) -> np.ndarray:
    """The learning rate of every step of a training, by MMEngine: (epochs, steps_per_epoch)."""
    wrapper = build_optim_wrapper(
        torch.nn.Linear(2, 2), {'optimizer': copy.deepcopy(cfg.optim_wrapper.optimizer)}
    )
    schedulers = []
    for scheduler in cfg.param_scheduler:
        given = {'optimizer': wrapper.optimizer, 'epoch_length': steps_per_epoch}
        if not scheduler.get('convert_to_iter_based'):
            del given['epoch_length']
        schedulers.append(PARAM_SCHEDULERS.build({**scheduler, **given}))
    found = np.empty((cfg.train_cfg.max_epochs, steps_per_epoch))
    for epoch in range(cfg.train_cfg.max_epochs):
        for step in range(steps_per_epoch):
            found[epoch, step] = wrapper.optimizer.param_groups[0]['lr']
            wrapper.optimizer.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return found


def rate_of_paddle(epoch: float) -> float:
    """PaddleVideo's cosine from 0 to 20, below epoch 2 a line to it; epochs have fractions."""

    def cosine(epoch: float) -> float:
        return 0.0025 * (math.cos(math.pi * epoch / 20) + 1) * 0.5

    if epoch < 2:
        return 0.00025 + epoch * (cosine(2) - 0.00025) / 2
    return cosine(epoch)


@pytest.mark.parametrize('name', PP_MODELS)
@pytest.mark.parametrize('steps', [1, 7, 52])
def test_pp_timesformer_has_the_learning_rate_of_paddle_at_every_step(
    name: str, steps: int
) -> None:
    theirs = [[rate_of_paddle(e + s / steps) for s in range(steps)] for e in range(20)]
    np.testing.assert_allclose(rates(read(name), steps), theirs, rtol=1e-10)


def test_the_warm_up_of_pp_timesformer_ends_below_the_base_rate() -> None:
    found = rates(read(PP), 5)
    assert found[0, 0] == pytest.approx(0.00025)
    assert found[2, 0] == pytest.approx(0.002439, abs=5e-7)
    assert found[10, 0] == pytest.approx(0.00125)
    assert found.max() == found[2, 0]


@pytest.mark.parametrize('name', STEPS)
def test_the_other_recipes_step_at_their_epochs(name: str) -> None:
    first, second = STEPS[name]
    theirs = [0.005 * 0.1 ** ((epoch >= first) + (epoch >= second)) for epoch in range(15)]
    np.testing.assert_allclose(rates(read(name), 3), np.repeat([theirs], 3, axis=0).T, rtol=1e-10)


def decay_of_parameters(cfg: Config) -> dict[str, float]:
    """The weight decay that MMEngine's optimiser applies to each parameter of the model."""
    from mmaction.registry import MODELS

    small = copy.deepcopy(cfg.model)
    small.backbone.update(embed_dims=12, num_layers=2, num_heads=2, img_size=32, init_cfg=None)
    small.cls_head.in_channels = 12
    model = MODELS.build(small)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper)).optimizer
    found = {
        names[id(parameter)]: group['weight_decay']
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    assert found.keys() == set(names.values())
    return found


@pytest.mark.parametrize('name', PP_MODELS)
def test_pp_timesformer_spares_four_parameters_weight_decay(name: str) -> None:
    found = decay_of_parameters(read(name))
    assert {name for name, decay in found.items() if decay == 0} == {
        'backbone.cls_token',
        'backbone.pos_embed',
        'backbone.time_embed',
        'cls_head.fc_cls.bias',
    }
    assert {decay for decay in found.values() if decay} == {7e-5}


@pytest.mark.parametrize('name', STEPS)
def test_the_other_recipes_decay_every_parameter(name: str) -> None:
    assert set(decay_of_parameters(read(name)).values()) == {1e-4}


@pytest.mark.parametrize(
    ('name', 'norm', 'smoothing'),
    [*((name, 40, 0.1) for name in PP_MODELS), *((name, None, 0) for name in STEPS if '_' in name)],
)
def test_gradients_are_clipped_and_labels_smoothed_as_there(
    name: str, norm: int | None, smoothing: float
) -> None:
    cfg = read(name)
    norm = 40 if name == DIVIDED else norm
    clip = cfg.optim_wrapper.get('clip_grad')
    assert clip == (None if norm is None else {'max_norm': norm, 'norm_type': 2})
    assert cfg.model.cls_head.get('label_smooth_eps', 0) == smoothing
    assert cfg.optim_wrapper.optimizer.momentum == 0.9
    assert cfg.optim_wrapper.optimizer.nesterov


def test_smoothed_and_mixed_labels_are_those_of_paddle() -> None:
    """There: the loss of both labels, each smoothed, weighted by their shares."""
    from mmaction.registry import MODELS
    from mmaction.structures import ActionDataSample

    head = MODELS.build(dict(read(PP).model.cls_head))
    scores = torch.randn(3, 400)
    first, second = torch.tensor([[3, 7, 399], [0, 7, 12]])
    share = 0.3

    def smoothed_loss(labels: torch.Tensor) -> torch.Tensor:
        target = torch.nn.functional.one_hot(labels, 400) * 0.9 + 0.1 / 400
        return -(target * scores.log_softmax(1)).sum(1).mean()

    theirs = share * smoothed_loss(first) + (1 - share) * smoothed_loss(second)
    one_hot = torch.nn.functional.one_hot
    mixed = share * one_hot(first, 400) + (1 - share) * one_hot(second, 400)
    samples = []
    for label in mixed:
        sample = ActionDataSample()
        getattr(sample, 'set_gt_label', getattr(sample, 'set_gt_labels', None))(label)
        samples.append(sample)
    ours = head.loss_by_feat(scores, samples)['loss_cls']
    torch.testing.assert_close(ours, theirs)


def steps_of(cfg: Config, stage: str) -> dict[str, dict[str, Any]]:
    pipeline = cfg[f'{stage}_dataloader'].dataset.pipeline
    return {step['type'].rpartition('.')[2]: step for step in pipeline}


@pytest.mark.parametrize('name', PP_MODELS)
def test_the_validation_of_pp_timesformer_takes_a_random_window(name: str) -> None:
    from mmaction.registry import TRANSFORMS

    cfg = read(name)
    sample = TRANSFORMS.build(dict(steps_of(cfg, 'val')['WindowSampleFrames']))
    video = {'total_frames': 2000, 'avg_fps': 30.0}
    firsts = {int(sample(dict(video))['frame_inds'][0]) for _ in range(20)}
    assert len(firsts) > 10
    assert cfg.default_hooks.checkpoint.save_best is None, 'the luckiest epoch would be the best'


def test_the_centre_crop_of_pp_timesformer_rounds_as_paddle() -> None:
    from mmaction.registry import TRANSFORMS

    crop = TRANSFORMS.build(dict(steps_of(read(PP), 'val')['UniformCrops']))
    for width in (*range(224, 300), 341, 455):
        for shape in ((256, width), (width, 256)):
            corner = crop({'imgs': [np.zeros((*shape, 3), np.float32)]})['crop_bbox'][0][:2]
            rows, columns = (int(round((pixels - 224) / 2)) for pixels in shape)  # noqa: RUF046
            assert corner.tolist() == [columns, rows], shape


def test_sixteen_frames_lie_in_a_window_of_sixteen_times_32() -> None:
    """In 10 seconds of 30 frames the last frame stands for all beyond it."""
    from mmaction.registry import TRANSFORMS

    sample = TRANSFORMS.build(dict(steps_of(read(PP_MODELS[2]), 'test')['WindowSampleFrames']))
    found = sample({'total_frames': 300, 'avg_fps': 30.0})['frame_inds']
    theirs = np.linspace(0, 16 * 32 - 1, 16).clip(0, 299).astype(int)
    assert found.tolist() == theirs.tolist()
    assert found.tolist()[8:] == [272] + [299] * 7


def test_cutmix_cuts_height_times_width_and_the_headers_name_the_difference() -> None:
    """PaddleVideo's cuts time x height, and mixes labels by that number over height x width."""
    from mmaction.registry import MODELS

    blending = read(PP).model.data_preprocessor.blending
    (settings,) = (dict(a) for a in blending.augments if a.type == 'mmaction.CutmixBlending')
    cutmix = MODELS.build(settings)
    videos = torch.zeros(2, 3, 5, 12, 16)
    videos[1] = 1
    for _ in range(20):
        mixed, labels = cutmix.do_blending(videos.clone(), torch.eye(400)[:2])
        changed = (mixed[0, 0] != videos[0, 0]).float()  # t H W
        assert torch.equal(changed, changed[:1].expand_as(changed)), 'the same box in all frames'
        area = changed[0].mean().item()
        assert labels[0, 1].item() == pytest.approx(area, abs=1e-6)
    for path in (CONFIGS / f'{PP}.py', CONFIGS.parent / '_base_/protocols/kinetics_pp-paddle.py'):
        header = ' '.join(path.read_text().replace('#', ' ').split())
        assert 'cuts time x height' in header
        assert 'a bug of theirs' in header


def test_augmentations_are_drawn_as_often_as_in_paddle() -> None:
    blending = read(PP).model.data_preprocessor.blending
    alphas = {augment.type: augment.alpha for augment in blending.augments}
    assert alphas == {'mmaction.CutmixBlending': 1.0, 'mmaction.MixupBlending': 0.2}
    assert blending.probs == [0.5, 0.5]


# Of the published YAML files and the defaults of that code
KINETICS = {'mean': 0.45, 'std': 0.225, 'flip': True, 'inverse': False, 'classes': 400}
SSV2 = {**KINETICS, 'flip': False, 'inverse': True, 'classes': 174}
OFFICIAL = {
    f'{DIVIDED}_official': ('divided', 8, 32, (256, 320), 224, KINETICS),
    'timesformer_jointST_8xb8-8x32x1-15e_kinetics400-rgb_official': (
        'joint', 8, 32, (256, 320), 224, KINETICS,
    ),
    'timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb_official': (
        'space', 8, 32, (256, 320), 224, KINETICS,
    ),
    'timesformer_divST-HR_8xb1-16x16x1-15e_kinetics400-rgb_official': (
        'divided', 16, 16, (448, 512), 448, KINETICS,
    ),
    'timesformer_divST-L_8xb1-96x4x1-15e_kinetics400-rgb_official': (
        'divided', 96, 4, (256, 320), 224, KINETICS,
    ),
    'timesformer_divST_8xb8-u8-15e_sthv2-rgb_official': (
        'divided', 8, None, (256, 320), 224, SSV2,
    ),
    'timesformer_divST-HR_8xb1-u16-15e_sthv2-rgb_official': (
        'divided', 16, None, (448, 512), 448, SSV2,
    ),
    'timesformer_divST-L_8xb1-u64-15e_sthv2-rgb_official': (
        'divided', 64, None, (256, 320), 224, SSV2,
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', OFFICIAL)
def test_the_official_configs_hold_what_the_published_files_say(name: str) -> None:
    scheme, frames, interval, jitter, crop, more = OFFICIAL[name]
    cfg = read(name)
    assert cfg.model.backbone.attention_type.startswith(scheme)
    assert cfg.model.backbone.num_frames == frames
    assert cfg.model.cls_head.num_classes == more['classes']
    assert cfg.model.cls_head.average_clips == 'sum'
    assert cfg.model.data_preprocessor.mean == [255 * more['mean']] * 3
    assert cfg.model.data_preprocessor.std == [255 * more['std']] * 3
    assert cfg.model.data_preprocessor.to_rgb is (more['classes'] == 174)  # then BGR
    for stage in ('train', 'val', 'test'):
        steps = steps_of(cfg, stage)
        (sample,) = (step for kind, step in steps.items() if kind.endswith('SampleFrames'))
        assert (sample.clip_len, sample.get('frame_interval')) == (frames, interval)
        if interval is not None:
            assert (sample.target_fps, sample.out_of_bound) == (30, 'clamp')
        if stage == 'test':
            assert steps['ShortSideResize']['size'] == crop
            assert (steps['UniformCrops'].crop_size, steps['UniformCrops'].num_crops) == (crop, 3)
            continue
        assert tuple(steps['ShortSideJitter'].scale_range) == jitter
        assert steps['ShortSideJitter'].get('inverse_uniform', False) is more['inverse']
        assert steps['RandomCrop'].size == crop
        assert ('Flip' in steps) is more['flip']
    test_mode = steps_of(cfg, 'val')[sample.type.rpartition('.')[2]].get('test_mode', False)
    assert test_mode is (interval is None)  # Kinetics: random windows; SSv2: middle frames
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    assert 8 * cfg.train_dataloader.batch_size * accumulated == 64
    assert cfg.train_cfg.max_epochs == 15
    assert 'blending' not in cfg.model.data_preprocessor
