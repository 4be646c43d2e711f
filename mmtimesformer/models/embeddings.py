"""Patch embedding, and the start values of the temporal parameters.

For clips of another length or frames of another size, positions and times are resized by
:mod:`mmtimesformer.resize`, at run time as at load.
"""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmtimesformer.models.fused_linear import is_plain


class PatchEmbed(nn.Module):
    """Cut frames into square patches and map each to one token.

    Patches do not overlap (section 3 of the paper, "Decomposition into patches" and "Linear
    embedding"). The weights are kept as those of a convolution, whose kernel equals its stride, and
    used as those of the linear map that this is, unless the layer is not a plain convolution (LoRA,
    quantised weights, a hook), which is then run itself.

    Args: those of :class:`~mmtimesformer.models.TimeSformer` with the same names.

    Shape:
        - frames: ``(b t) c H W`` -> ``(b t) p d``
    """

    def __init__(self, patch_size: int, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        if not is_plain(self.proj, nn.Conv2d):
            output: Tensor = rearrange(self.proj(frames), 'b d h w -> b (h w) d')
            return output
        size = self.proj.kernel_size[0]
        patches = rearrange(frames, 'b c (h p) (w q) -> b (h w) (c p q)', p=size, q=size)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


def init_temporal(parameter: Tensor, temporal_init: str, std: float = 0.02) -> None:
    """Initialize a parameter through which time enters the model.

    ``'zero'``: time has no effect at first. A divided model seeded from an image ViT then starts as
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
