"""Which pixels of a frame become a crop, by the rules that published weights were trained with.

The official code divides by the standard deviation first and resizes then, on floating-point
pixels, by bilinear interpolation without antialiasing. Bilinear interpolation is a weighted mean,
and a mean commutes with subtracting and dividing by constants: so normalisation stays where
MMAction2 has it, in the model's data preprocessor. What must not come in between is rounding to
integer colours; after these transforms frames are ``float32`` from 0 to 255.

Random numbers come from NumPy's global state, which MMEngine seeds in each data-loading process.
MMAction2's ``RandomCrop`` draws corners as the official code does and works on such frames, as do
its ``Flip``, ``ThreeCrop`` and ``FormatShape``.
"""
# ruff: noqa: NPY002  (the global state is what is seeded)

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mmtimesformer.datasets.transforms.transform import Transform, check_choice
from mmtimesformer.registry import TRANSFORMS

ROUNDINGS: dict[str, Callable[[float], int]] = {'up': math.ceil, 'half-even': round}


def resize_short_side(frames: list[np.ndarray], size: int) -> list[np.ndarray]:
    """Resize frames of one size so that the short side is ``size``; the long side is cut down.

    Returns:
        New arrays, none a view of another: a frame may stand in a clip twice, and MMAction2
        flips in place.

    Shape:
        - frames: each ``H W c``, 8-bit or floating-point -> ``H' W' c`` of ``float32``
    """
    height, width = frames[0].shape[:2]
    pixels = torch.from_numpy(np.stack(frames)).float()  # t H W c
    if min(height, width) != size:
        new_height = math.floor(height / width * size) if width < height else size
        new_width = size if width < height else math.floor(width / height * size)
        # Channels stay last in memory, before and after.
        pixels = F.interpolate(
            pixels.permute(0, 3, 1, 2), (new_height, new_width), mode='bilinear'
        ).permute(0, 2, 3, 1)
    return list(pixels.contiguous().numpy())


@TRANSFORMS.register_module()
class ShortSideResize(Transform):
    """Resize frames so that their short side has a given number of pixels.

    Required and changed keys: ``imgs`` (then ``float32``), ``img_shape``.

    Args:
        size: Pixels of the short side.

    Raises:
        ValueError: ``size`` is not positive.
    """

    def __init__(self, size: int) -> None:
        _check_size('size', size)
        self.size = size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results['imgs'] = resize_short_side(results['imgs'], self.size)
        results['img_shape'] = results['imgs'][0].shape[:2]
        return results


@TRANSFORMS.register_module()
class ShortSideJitter(Transform):
    """Resize the frames of a clip so that their short side has a random number of pixels.

    MMAction2's ``RandomRescale`` draws integers and resizes 8-bit colours; this one draws
    fractions and rounds them, so that the two ends of the range come half as often as the rest.

    Required and changed keys: ``imgs`` (then ``float32``), ``img_shape``. Added key:
    ``short_edge``, the pixels drawn.

    Args:
        scale_range: The fewest and the most pixels of the short side.
        inverse_uniform: Draw ``1 / pixels`` uniformly, not ``pixels``: small sides come more
            often, as the official models of Something-Something were trained.

    Raises:
        ValueError: The range is empty or not positive.
    """

    def __init__(
        self, scale_range: tuple[int, int] = (256, 320), inverse_uniform: bool = False
    ) -> None:
        shortest, longest = scale_range
        _check_size('scale_range', shortest)
        if longest < shortest:
            raise ValueError(
                f'scale_range={tuple(scale_range)} ends before it begins; set (fewest, most) pixels'
            )
        self.scale_range = (shortest, longest)
        self.inverse_uniform = inverse_uniform

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        shortest, longest = self.scale_range
        if self.inverse_uniform:
            size = round(1 / np.random.uniform(1 / longest, 1 / shortest))
        else:
            size = round(np.random.uniform(shortest, longest))
        results['imgs'] = resize_short_side(results['imgs'], size)
        results['img_shape'] = results['imgs'][0].shape[:2]
        results['short_edge'] = size
        return results


@TRANSFORMS.register_module()
class UniformCrops(Transform):
    """Cut square crops along the long side: its beginning, middle and end.

    That is left, centre and right of a landscape frame (and of a square one), top, centre and
    bottom of a portrait one.

    MMAction2's ``ThreeCrop``, and PaddleVideo with it, gives an odd pixel away: its steps are
    rounded down, its last crop may end one pixel before the frame does. Its order is first, last,
    middle.

    Required and changed keys: ``imgs`` (crop after crop, each with all its frames), ``img_shape``.
    Added key: ``crop_bbox``, for each frame ``(left, top, right, bottom)``.

    Args:
        crop_size: Pixels of a crop's side.
        num_crops: 3, or 1 for the middle alone.
        rounding: Where the middle crop starts if its two margins cannot be equal: ``'up'`` makes
            the left or top one a pixel wider, ``'half-even'`` rounds half a pixel to the even
            neighbour, as PaddleVideo's ``CenterCrop`` does.

    Raises:
        ValueError: ``num_crops`` or ``rounding`` is none of these, or a frame is smaller than the
            crop.
    """

    def __init__(self, crop_size: int, num_crops: int = 3, rounding: str = 'up') -> None:
        _check_size('crop_size', crop_size)
        if num_crops not in (1, 3):
            raise ValueError(f'num_crops={num_crops!r} is neither 1 nor 3; set num_crops')
        check_choice('rounding', rounding, tuple(ROUNDINGS))
        self.crop_size = crop_size
        self.num_crops = num_crops
        self.rounding = rounding

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        frames, size = results['imgs'], self.crop_size
        height, width = frames[0].shape[:2]
        if min(height, width) < size:
            raise ValueError(
                f'a frame of {width} x {height} pixels is smaller than crop_size={size}; '
                f'put dict(type="mmtimesformer.ShortSideResize", size={size}) before UniformCrops'
            )
        middle = ROUNDINGS[self.rounding]
        top, left = middle((height - size) / 2), middle((width - size) / 2)
        corners = [(top, left)]
        if self.num_crops == 3 and height > width:
            corners = [(0, left), (top, left), (height - size, left)]
        elif self.num_crops == 3:
            corners = [(top, 0), (top, left), (top, width - size)]
        results['imgs'] = [
            frame[y : y + size, x : x + size] for y, x in corners for frame in frames
        ]
        results['crop_bbox'] = np.array(
            [(x, y, x + size, y + size) for y, x in corners for _ in frames]
        )
        results['img_shape'] = (size, size)
        return results


def _check_size(name: str, pixels: int) -> None:
    if not isinstance(pixels, int) or pixels < 1:
        raise ValueError(
            f'{name}={pixels!r} is not a number of pixels; set it to a positive whole number'
        )
