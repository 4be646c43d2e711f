"""What the backbone knows of a video, before the classifier: a vector, or a map in space and time.

==============  ========================================  ======================
``out``         what it is                                shape
==============  ========================================  ======================
``cls``         the class token, which the classifier     ``views d``
                reads
``patch_mean``  the mean of all patches                   ``views d``
``frames``      the mean of the patches of each frame     ``views t d``
``tokens``      every patch                               ``views t h w d``
==============  ========================================  ======================

Without ``layers`` this is what leaves the backbone, after its final norm. With them it is the
hidden state after a layer, before that norm; 0 is the embedded video, -1 the last layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor

from mmtimesformer.models import TimeSformer

OUTS = ('cls', 'patch_mean', 'frames', 'tokens')


def extract(backbone: TimeSformer, video: Tensor, out: str, layers: Sequence[int] | None) -> Tensor:
    """Run a backbone and keep what is asked for.

    Args:
        backbone: The model.
        video: Normalised.
        out: One of the table above.
        layers: Hidden states, or ``None`` for what leaves the backbone.

    Shape:
        - video: ``b c t H W`` -> ``b …`` by the table; first ``layers`` if these are given
    """
    if layers is None:
        with _giving(backbone, 'cls_token' if out == 'cls' else 'tokens'):
            given = backbone(video)
        return given if out == 'cls' else _pool(given, out)
    with _giving(backbone, 'hidden_states'):
        states = backbone(video)
    return torch.stack([_pool(states[layer], out) for layer in layers])


def check(out: str, layers: Sequence[int] | None, depth: int) -> None:
    """Refuse what there is not.

    Raises:
        ValueError: ``out`` is unknown, or a layer is not there.
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
    cls, patches = tokens
    if out == 'cls':
        return cls
    if out == 'patch_mean':
        return reduce(patches, 'b t h w d -> b d', 'mean')
    if out == 'frames':
        return reduce(patches, 'b t h w d -> b t d', 'mean')
    return patches


def by_video(features: Tensor, videos: int, has_layers: bool) -> list[Tensor]:
    """Part the features of a batch into videos.

    Shape:
        - features: ``(layers) (videos views) …`` -> of each video ``(layers) views …``
    """
    if not has_layers:
        return list(rearrange(features, '(videos views) ... -> videos views ...', videos=videos))
    return list(rearrange(features, 'l (videos views) ... -> videos l views ...', videos=videos))


@contextmanager
def _giving(backbone: Any, out_type: str) -> Iterator[None]:
    """Let a backbone give another ``out_type`` for a while."""
    before = backbone.out_type
    backbone.out_type = out_type
    try:
        yield
    finally:
        backbone.out_type = before
