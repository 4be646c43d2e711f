"""Features of a video from the backbone: vectors, or maps in space and time.

==============  ========================================  ======================
``out``         what it is                                shape
==============  ========================================  ======================
``cls``         the class token, which the classifier     ``views d``
                reads
``patch_mean``  the mean of all patches                   ``views d``
``frames``      the mean of the patches of each frame     ``views t d``
``tokens``      every patch                               ``views t h w d``
==============  ========================================  ======================

Without ``layers`` this is the output of the backbone, after its final norm. With them it is the
hidden state after a layer, before that norm; 0 is the embedded video, -1 the last layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from mmtimesformer.models import TimeSformer

OUTS = ('cls', 'patch_mean', 'frames', 'tokens')


def extract(
    backbone: TimeSformer, views: Tensor, out: str, layers: int | Sequence[int] | None
) -> list[np.ndarray]:
    """Run a backbone on normalised views and return the features of each video, as float32.

    Shape:
        - views: ``videos views c t H W`` -> of each video ``views …`` by the table; with a list of
          ``layers`` they are the first axis
    """
    video = views.flatten(0, 1)
    if layers is None:
        with _out_type(backbone, 'cls_token' if out == 'cls' else 'tokens'):
            output = backbone(video)
        features = output if out == 'cls' else _pool(output, out)
    else:
        with _out_type(backbone, 'hidden_states'):
            states = backbone(video)
        if isinstance(layers, int):
            features = _pool(states[layers], out)
        else:
            features = torch.stack([_pool(states[layer], out) for layer in layers], dim=1)
    by_video = rearrange(features, '(videos views) ... -> videos views ...', videos=len(views))
    if isinstance(layers, Sequence):
        by_video = rearrange(by_video, 'videos views l ... -> videos l views ...')
    return list(by_video.float().cpu().numpy())


def check_features(out: str, layers: Sequence[int] | None, depth: int) -> None:
    """Check the arguments of :func:`extract`.

    Raises:
        ValueError: ``out`` is unknown, or there is no such layer.
    """
    if out not in OUTS:
        raise ValueError(f'out={out!r} is not known; give one of {", ".join(OUTS)}')
    for layer in layers or ():
        if not -depth - 1 <= layer <= depth:
            raise ValueError(
                f'layers: there is no layer {layer}; the model has {depth} (0 is the embedded '
                f'video, {depth} or -1 the last)'
            )


def _pool(tokens: tuple[Tensor, Tensor], out: str) -> Tensor:
    cls, patches = tokens[:2]  # of merged tokens also their sizes
    if out == 'cls':
        return cls
    if out == 'patch_mean':
        return reduce(patches, 'b t h w d -> b d', 'mean')
    if out == 'frames':
        return reduce(patches, 'b t h w d -> b t d', 'mean')
    return patches


@contextmanager
def _out_type(backbone: Any, out_type: str) -> Iterator[None]:
    """Set another ``out_type`` of a backbone inside the context."""
    before = backbone.out_type
    backbone.out_type = out_type
    try:
        yield
    finally:
        backbone.out_type = before
