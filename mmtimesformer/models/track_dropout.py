"""Track dropout: train on a random part of the tracks, for less time and memory per step.

Whole tracks are dropped, the same places in every frame. So what remains is again a video of whole
tracks and whole frames, and divided attention stays exact on it: each patch attends to its complete
track, and each frame has the same patches. The same holds for masked pre-training (VideoMAE, arXiv
2203.12602, calls it tube masking). In evaluation nothing is dropped.

==========  =======================================================================
mode        the places that are kept are drawn
==========  =======================================================================
``track``   once for the video
``tube``    for every two frames
``frame``   for every frame
==========  =======================================================================

The last two are for comparison: in divided attention, "time" then mixes patches of different
places.
"""

import torch
from torch import Tensor

TUBE = 2  # frames, as a tubelet of VideoMAE
MODES = ('track', 'tube', 'frame')


def draw_kept(
    b: int, t: int, p: int, keep: float, mode: str = 'track', device: torch.device | None = None
) -> Tensor:
    """Draw the places that are kept, from torch's random numbers of the device.

    Args:
        b: Videos.
        t: Frames of a video.
        p: Patches of a frame.
        keep: Share of the patches that are kept; at least one patch of a frame is.
        mode: One of :data:`MODES`.
        device: Where to draw.

    Shape:
        - kept: ``b t k``, numbers of places in ascending order
    """
    length = {'track': t, 'tube': TUBE, 'frame': 1}[mode]
    k = max(1, round(keep * p))
    draws = torch.rand(b, -(-t // length), p, device=device)
    kept = draws.argsort(-1)[..., :k].sort(-1).values
    return kept.repeat_interleave(length, dim=1)[:, :t]


def mask_of(kept: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return which patches are kept, as a map.

    Shape:
        - kept: ``b t k`` -> ``b t h w``, true for a patch that is kept
    """
    b, t, _ = kept.shape
    h, w = grid
    mask = torch.zeros(b, t, h * w, dtype=torch.bool, device=kept.device)
    return mask.scatter(-1, kept, True).view(b, t, h, w)


def check_dropout(keep: float, mode: str) -> None:
    """Check the arguments of a backbone.

    Raises:
        ValueError: One is out of its range.
    """
    if not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise ValueError(
            f'token_keep={keep!r} is not a share of the tracks; set backbone.token_keep to more '
            'than 0 and at most 1 (all)'
        )
    if mode not in MODES:
        raise ValueError(
            f'token_drop_mode={mode!r} is not known; set backbone.token_drop_mode to one of '
            f'{", ".join(MODES)}'
        )
