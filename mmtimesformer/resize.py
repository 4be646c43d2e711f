"""Resize position and time embeddings for another frame size or clip length."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

MODES = ('grid', 'legacy-1d-nearest')


def resize_positions(
    pos_embed: Tensor, grid: tuple[int, int], new_grid: tuple[int, int], mode: str = 'grid'
) -> Tensor:
    """Resize position embeddings on the patch grid; the class token's stays as it is.

    Bicubic with antialias, computed in float32. For the same grid it returns the same tensor.

    NOTE: ``mode='legacy-1d-nearest'`` lays the rows of the grid end to end and takes the nearest
    along that line, as the official code does when it starts its 448-pixel model from 224 pixels.
    Only 7 % of the patches then get the position of their own place. Use it only to reproduce this
    start.

    Args:
        pos_embed: Embeddings of the class token and, row by row, of the patches.
        grid: Rows and columns that ``pos_embed`` has, in patches.
        new_grid: Rows and columns wanted, in patches.
        mode: ``'grid'``, or ``'legacy-1d-nearest'``.

    Shape:
        - pos_embed: ``1 (1+h*w) d`` -> ``1 (1+new_h*new_w) d``

    Raises:
        ValueError: ``pos_embed`` does not hold ``1 + h * w`` rows, or the mode is not known.
    """
    _check_mode(mode)
    h, w = grid
    if pos_embed.shape[1] != 1 + h * w:
        raise ValueError(
            f'pos_embed has {pos_embed.shape[1]} rows, but a class token and a grid of {h} x {w} '
            f'patches need {1 + h * w}; give the size that the checkpoint was made for'
        )
    if tuple(new_grid) == (h, w):
        return pos_embed
    cls, patches = pos_embed[:, :1], pos_embed[:, 1:]
    if mode == 'grid':
        image = rearrange(patches.float(), '1 (h w) d -> 1 d h w', h=h)
        image = F.interpolate(image, tuple(new_grid), mode='bicubic', antialias=True)
        resized = rearrange(image, '1 d h w -> 1 (h w) d')
    else:
        resized = _resize_line(patches, new_grid[0] * new_grid[1], 'nearest')
    return torch.cat([cls, resized.to(cls.dtype)], dim=1)


def resize_times(time_embed: Tensor, num_frames: int, mode: str = 'grid') -> Tensor:
    """Resize time embeddings to another number of frames, linearly, in float32.

    For the same number it returns the same tensor. ``mode='legacy-1d-nearest'`` takes the
    nearest, as the official code does.

    Shape:
        - time_embed: ``1 t d`` -> ``1 num_frames d``
    """
    _check_mode(mode)
    if num_frames == time_embed.shape[1]:
        return time_embed
    how = 'linear' if mode == 'grid' else 'nearest'
    return _resize_line(time_embed, num_frames, how).to(time_embed.dtype)


def _resize_line(embed: Tensor, length: int, how: str) -> Tensor:
    line = rearrange(embed.float(), '1 n d -> 1 d n')
    return rearrange(F.interpolate(line, length, mode=how), '1 d n -> 1 n d')


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f'resize={mode!r} is not known; give one of {", ".join(MODES)}')
