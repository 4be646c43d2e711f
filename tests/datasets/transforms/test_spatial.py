"""Resizing and cropping against statements of their own, pixel for pixel."""
# ruff: noqa: NPY002  (the global state is what is seeded)

import math
from typing import Any

import numpy as np
import pytest
import torch
from mmaction.datasets.transforms import Flip, FormatShape, RandomCrop, ThreeCrop
from mmaction.models import ActionDataPreprocessor

from mmtimesformer.datasets import ShortSideJitter, ShortSideResize, UniformCrops
from mmtimesformer.registry import TRANSFORMS

# (width, height): landscape, portrait, square, sides that do not divide
SIZES = [(64, 48), (48, 64), (53, 53), (71, 37), (37, 71), (97, 31)]


def video(width: int, height: int, frames: int = 3, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    imgs = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(frames)]
    return {'imgs': imgs, 'img_shape': (height, width), 'modality': 'RGB'}


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear between pixel centres, written as a matrix for each axis."""

    def weights(new: int, old: int) -> np.ndarray:
        matrix = np.zeros((new, old))
        for i in range(new):
            at = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
            low = math.floor(at)
            matrix[i, low] += 1 - (at - low)
            matrix[i, min(low + 1, old - 1)] += at - low
        return matrix

    rows, columns = weights(height, image.shape[0]), weights(width, image.shape[1])
    return np.einsum('Hh,hwc,Ww->HWc', rows, image.astype(float), columns)


@pytest.mark.parametrize(('width', 'height'), SIZES)
@pytest.mark.parametrize('size', [23, 48, 80])
def test_frames_are_resized_in_fractions_of_a_colour(width: int, height: int, size: int) -> None:
    before = video(width, height)
    frames = [frame.copy() for frame in before['imgs']]
    after = ShortSideResize(size)(before)
    # The long side is cut down to whole pixels.
    expected = (size * width // height, size) if width >= height else (size, size * height // width)
    for frame, got in zip(frames, after['imgs'], strict=True):
        assert got.dtype == np.float32
        assert got.shape == (*reversed(expected), 3) == (*after['img_shape'], 3)
        assert np.allclose(got, resized(frame, *expected), atol=2e-3)


def test_resizing_to_the_same_size_changes_no_colour() -> None:
    before = video(64, 48)
    frames = [frame.copy() for frame in before['imgs']]
    assert all(
        (a == b).all() for a, b in zip(ShortSideResize(48)(before)['imgs'], frames, strict=True)
    )


@pytest.mark.parametrize('size', [48, 40])
def test_a_repeated_frame_is_flipped_once(size: int) -> None:
    """A short video's last frame stands in a clip several times; Flip works in place."""
    shared = video(64, 48, frames=1)
    shared['imgs'] *= 4
    seen = ShortSideResize(size)(shared)
    before = [frame.copy() for frame in seen['imgs']]
    flipped = Flip(flip_ratio=1.0)(RandomCrop(size=size)(seen))['imgs']
    left = next(
        x for x in range(before[0].shape[1])
        if (before[0][:, x : x + size][:, ::-1] == flipped[0]).all()
    )  # fmt: skip
    for frame, got in zip(before, flipped, strict=True):
        assert (frame[:, left : left + size][:, ::-1] == got).all()


def test_normalising_after_resizing_is_normalising_before_it() -> None:
    """The official order is the other one; a mean does not mind, rounding to colours would."""
    before = video(71, 37)
    frames = [resized((frame / 255 - 0.45) / 0.225, 44, 23) for frame in before['imgs']]
    official = np.stack(frames)[:, :, :23]
    clip = ShortSideResize(23)(before)
    clip['imgs'] = [frame[:, :23] for frame in clip['imgs']]
    clip = FormatShape(input_format='NCTHW')({**clip, 'num_clips': 1, 'clip_len': 3})
    preprocess = ActionDataPreprocessor(mean=[114.75] * 3, std=[57.375] * 3, format_shape='NCTHW')
    ours = preprocess({'inputs': [torch.from_numpy(clip['imgs'])], 'data_samples': None})['inputs']
    assert np.allclose(ours[0, 0].permute(1, 2, 3, 0), official, atol=1e-4)


def drawn(jitter: ShortSideJitter, times: int = 6000) -> np.ndarray:
    np.random.seed(0)
    one = video(8, 8, frames=1)
    return np.array([jitter(dict(one))['short_edge'] for _ in range(times)])


def test_the_jitter_draws_fractions_and_rounds_them() -> None:
    sizes = drawn(ShortSideJitter((16, 20)))
    counts = np.bincount(sizes, minlength=21)[16:]
    assert counts.sum() == 6000
    # The ends are reached from one side only.
    assert np.allclose(counts / 6000, [1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], atol=0.03)


def test_the_inverse_jitter_prefers_small_sides() -> None:
    sizes = drawn(ShortSideJitter((10, 40), inverse_uniform=True))
    assert sizes.min() == 10 and sizes.max() == 40
    for edge in (12.5, 15.5, 20.5, 30.5):
        expected = (1 / 10 - 1 / edge) / (1 / 10 - 1 / 40)
        assert (sizes < edge).mean() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize('inverse', [False, True])
@pytest.mark.parametrize('seed', range(5))
def test_numpys_seed_decides_the_size(inverse: bool, seed: int) -> None:
    np.random.seed(seed)
    one = ShortSideJitter((256, 320), inverse)(video(64, 48, 1))
    share = np.random.RandomState(seed).random_sample()
    side = 1 / (1 / 320 + share * (1 / 256 - 1 / 320)) if inverse else 256 + share * 64
    assert one['short_edge'] == math.floor(side + 0.5) == min(one['img_shape'])


def place(width: int, height: int) -> dict[str, Any]:
    """A picture whose colours show where a pixel was."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    frames = [np.stack([x, y, np.full_like(x, t)], axis=-1).astype(np.float32) for t in range(2)]
    return {'imgs': frames, 'img_shape': (height, width)}


@pytest.mark.parametrize(('width', 'height'), [*SIZES, (60, 31), (31, 60), (31, 31), (32, 31)])
def test_crops_lie_at_the_ends_and_in_the_middle(width: int, height: int) -> None:
    size = 31
    crops = UniformCrops(size)(place(width, height))
    along, across = (0, 1) if width >= height else (1, 0)
    long, short = max(width, height), min(width, height)
    for number, first in enumerate((0, -((size - long) // 2), long - size)):
        for t in range(2):
            crop = crops['imgs'][2 * number + t]
            assert crop.shape == (size, size, 3)
            corner = crop[0, 0]
            assert corner[along] == first
            assert corner[across] == -((size - short) // 2)
            assert corner[2] == t, 'crop after crop, each with its frames in order'
            left, top, right, bottom = crops['crop_bbox'][2 * number + t]
            assert (left, top) == (corner[0], corner[1])
            assert (right, bottom) == (left + size, top + size)
    (middle, _) = UniformCrops(size, num_crops=1)(place(width, height))['imgs']
    assert (middle == crops['imgs'][2]).all()


def test_mmaction2s_crops_stop_one_pixel_short_of_an_odd_margin() -> None:
    """The reason why the official protocol needs its own."""
    first = lambda step: [int(frame[0, 0, 0]) for frame in step(place(60, 31))['imgs'][::2]]  # noqa: E731
    assert first(ThreeCrop(crop_size=31)) == [0, 28, 14]
    assert first(UniformCrops(31)) == [0, 15, 29]


@pytest.mark.parametrize(
    ('rounding', 'width', 'left'),
    [('up', 31, 6), ('half-even', 31, 6), ('up', 29, 5), ('half-even', 29, 4)],
)
def test_half_a_pixel_is_rounded_as_asked(rounding: str, width: int, left: int) -> None:
    corner = UniformCrops(20, 1, rounding)(place(width, 20))['crop_bbox'][0]
    assert corner.tolist() == [left, 0, left + 20, 20]


def test_views_reach_the_model_crop_by_crop() -> None:
    crops = UniformCrops(31)(place(60, 31))
    inputs = FormatShape(input_format='NCTHW')({**crops, 'num_clips': 1, 'clip_len': 2})['imgs']
    assert inputs.shape == (3, 3, 2, 31, 31)
    assert inputs.dtype == np.float32
    assert inputs[:, 0, 0, 0, 0].tolist() == [0, 15, 29]
    assert inputs[:, 2, :, 0, 0].tolist() == [[0, 1]] * 3


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (
            lambda: ShortSideResize(0),
            'size=0 is not a number of pixels; set it to a positive whole number',
        ),
        (lambda: ShortSideJitter((320, 256)), r'scale_range=\(320, 256\) ends before it begins'),
        (lambda: ShortSideJitter((0, 256)), 'scale_range=0 is not a number of pixels'),
        (lambda: UniformCrops(224, 5), 'num_crops=5 is neither 1 nor 3; set num_crops'),
        (lambda: UniformCrops(2.5), 'crop_size=2.5 is not a number of pixels'),
        (lambda: UniformCrops(8, 1, 'down'), "rounding='down' is not known; set it to one of up"),
        (
            lambda: UniformCrops(40)(place(60, 31)),
            'a frame of 60 x 31 pixels is smaller than crop_size=40; put .*ShortSideResize',
        ),
    ],
)
def test_a_wrong_argument_is_named(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_config_finds_them_by_name(default_scope: str | None) -> None:
    for cfg in (
        dict(type='mmtimesformer.ShortSideJitter', scale_range=[256, 320]),
        dict(type='mmtimesformer.ShortSideResize', size=224),
        dict(type='mmtimesformer.UniformCrops', crop_size=224),
    ):
        name = cfg['type'].partition('.')[2]
        assert repr(TRANSFORMS.build(cfg)).startswith(f'{name}(')
