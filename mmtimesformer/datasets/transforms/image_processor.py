"""Resize and crop frames as the image processors of transformers do, bit for bit.

They resize 8-bit frames by Pillow: with antialiasing, and rounded to whole colours. The official
code and MMAction2 resize otherwise, so the pixels of a Hugging Face folder need these transforms.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmtimesformer.datasets.transforms.transform import Transform, check_choice
from mmtimesformer.registry import TRANSFORMS

RESAMPLES = {one.name.lower(): one for one in Image.Resampling}


@TRANSFORMS.register_module()
class ProcessorResize(Transform):
    """Resize frames by Pillow.

    Required and changed keys: ``imgs`` (8-bit RGB), ``img_shape``.

    Args:
        size: Pixels of the short side (the long side is cut down), or ``(height, width)``.
        resample: Pillow's name of the interpolation: ``'bilinear'``, ``'bicubic'`` and so on.

    Raises:
        ValueError: An argument is out of range, or frames are not 8-bit RGB.

    Example:
        >>> frames = [np.zeros((120, 161, 3), np.uint8)]
        >>> ProcessorResize(60)({'imgs': frames})['img_shape']
        (60, 80)
    """

    def __init__(self, size: int | Sequence[int], resample: str = 'bilinear') -> None:
        sides = (size,) if isinstance(size, int) else tuple(size)
        if len(sides) not in (1, 2) or not all(isinstance(n, int) and n > 0 for n in sides):
            raise ValueError(f'size={size!r} is not the short side, or height and width, in pixels')
        check_choice('resample', resample, tuple(RESAMPLES))
        self.size = size
        self.resample = resample

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        frame = results['imgs'][0]
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(
                f'frames of shape {frame.shape} and type {frame.dtype}: ProcessorResize takes '
                '8-bit RGB; use mmtimesformer.ShortSideResize for others'
            )
        height, width = self._target(*frame.shape[:2])
        how = RESAMPLES[self.resample]
        results['imgs'] = [
            np.asarray(Image.fromarray(one).resize((width, height), how)) for one in results['imgs']
        ]
        results['img_shape'] = height, width
        return results

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return int(self.size[0]), int(self.size[1])
        short, long = sorted((height, width))
        longer = int(self.size * long / short)
        return (self.size, longer) if height <= width else (longer, self.size)


@TRANSFORMS.register_module()
class ProcessorCrop(Transform):
    """Cut a rectangle from the centre of each frame.

    NOTE: transformers fills a smaller frame with black. Here that is an error: no model was trained
    on black borders.

    Required and changed keys: ``imgs``, ``img_shape``.

    Args:
        size: ``(height, width)`` in pixels.

    Raises:
        ValueError: A frame is smaller.
    """

    def __init__(self, size: Sequence[int]) -> None:
        if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
            raise ValueError(f'size={size!r} is not (height, width) in pixels')
        self.size = tuple(size)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        height, width = results['imgs'][0].shape[:2]
        rows, columns = self.size
        if height < rows or width < columns:
            raise ValueError(
                f'a frame of {width} x {height} pixels is smaller than the crop of {columns} x '
                f'{rows}; turn do_resize on in preprocessor_config.json, or take larger videos'
            )
        top, left = (height - rows) // 2, (width - columns) // 2
        results['imgs'] = [f[top : top + rows, left : left + columns] for f in results['imgs']]
        results['img_shape'] = rows, columns
        return results
