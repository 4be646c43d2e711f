"""Pixels become tokens: patches, and where and when they are."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Cut frames into square patches and map each to one token.

    One convolution whose kernel equals its stride, so patches do not overlap (section 3 of the
    paper, "Decomposition into patches" and "Linear embedding").

    Args:
        patch_size: Side of a patch, in pixels.
        in_channels: Channels of a frame; 3 for RGB.
        embed_dims: Width of a token.

    Shape:
        - frames: ``(b t) c H W`` -> ``(b t) p d``
    """

    def __init__(self, patch_size: int, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        return rearrange(self.proj(frames), 'b d h w -> b (h w) d')


def init_temporal(parameter: Tensor, temporal_init: str, std: float = 0.02) -> None:
    """Fill a parameter through which time enters a model that so far knows only space.

    ``'zero'``: time adds nothing at first. A divided model seeded from an image ViT then starts as
    exactly that ViT, and learns time from there (section 4.5 of the paper).

    ``'random'``: a truncated normal of deviation ``std``, for training from scratch. From zero, a
    divided model that has no image features yet can stall: the order of frames is invisible until
    both ``time_embed`` and ``temporal_fc`` have left zero, and each one's gradient is scaled by
    the other.

    Raises:
        ValueError: ``temporal_init`` is neither.
    """
    if temporal_init == 'zero':
        nn.init.zeros_(parameter)
    elif temporal_init == 'random':
        nn.init.trunc_normal_(parameter, std=std)
    else:
        raise ValueError(
            f"temporal_init={temporal_init!r} is not known; set backbone.temporal_init to 'zero' "
            "(weights seeded from images) or 'random' (training from scratch)"
        )


def resize_positions(pos_embed: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Resize position embeddings on the 2-D patch grid; the class token's stays as it is.

    Bicubic with antialias, computed in float32. The same grid gives back the very same tensor.

    Args:
        pos_embed: Embeddings of the class token and, row by row, of the patches.
        grid: Rows and columns that ``pos_embed`` has, in patches.
        new_grid: Rows and columns wanted, in patches.

    Shape:
        - pos_embed: ``1 (1+h*w) d`` -> ``1 (1+new_h*new_w) d``

    Raises:
        ValueError: ``pos_embed`` does not hold ``1 + h * w`` rows.
    """
    h, w = grid
    if pos_embed.shape[1] != 1 + h * w:
        raise ValueError(
            f'pos_embed has {pos_embed.shape[1]} rows, but a class token and a grid of {h} x {w} '
            f'patches need {1 + h * w}; give the grid that the embeddings were made for'
        )
    if new_grid == grid:
        return pos_embed
    cls, patches = pos_embed[:, :1], pos_embed[:, 1:]
    image = rearrange(patches.float(), '1 (h w) d -> 1 d h w', h=h, w=w)
    image = F.interpolate(image, new_grid, mode='bicubic', antialias=True)
    patches = rearrange(image, '1 d h w -> 1 (h w) d').to(patches.dtype)
    return torch.cat([cls, patches], dim=1)


def resize_times(time_embed: Tensor, num_frames: int) -> Tensor:
    """Resize time embeddings to another number of frames, linearly, in float32.

    The same number gives back the very same tensor.

    Shape:
        - time_embed: ``1 t d`` -> ``1 num_frames d``
    """
    if num_frames == time_embed.shape[1]:
        return time_embed
    line = rearrange(time_embed.float(), '1 t d -> 1 d t')
    line = F.interpolate(line, num_frames, mode='linear')
    return rearrange(line, '1 d t -> 1 t d').to(time_embed.dtype)
