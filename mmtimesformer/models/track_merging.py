"""Merge similar tokens between blocks, whole tracks at a time, for less time per video.

Token merging (Bolya et al., arXiv 2210.09461) halves the tokens into two sets, finds for each token
of the first the most similar one of the second, and merges the ``r`` most similar pairs into their
mean. A merged token counts in attention as often as the patches in it: the logarithm of its size is
added to its scores.

Published token merging matches tokens. In a video, each frame then merges other places, and after
that the ``k``-th tokens of two frames are no longer one place: attention over time, in a divided
model, mixes places. Here *tracks* are matched, by the similarity of all their frames together, and
merged in every frame alike. So tracks stay tracks, and attention over time needs no sizes: all
tokens of a track have the same.

The class token is never merged. Numbers of tokens do not depend on the video, so batches work as
before. Matching is not differentiated; merging is.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmtimesformer.models.attention import SelfAttention
from mmtimesformer.models.fused_linear import without_autocast
from mmtimesformer.models.track_selection import TokenOrder, flat, take

MATCHINGS = ('track', 'frame')


@dataclass(frozen=True)
class Merging:
    """How a backbone merges tokens.

    Attributes:
        r: Tracks that are merged into others after each of the blocks; of each frame's patches with
            ``matching='frame'``.
        layers: The blocks after which tokens are merged, counted from 0.
        matching: ``'track'`` or ``'frame'``.
    """

    r: int
    layers: tuple[int, ...]
    matching: str


def set_merge(
    backbone: Any, r: int, layers: Sequence[int] | None = None, matching: str | None = None
) -> None:
    """Let a backbone merge tokens from now on, in evaluation and in training; 0 turns it off.

    Args:
        backbone: A :class:`~mmtimesformer.models.TimeSformer`.
        r: Tracks that are merged into others after each block: at most half of those there are, so
            of 196 patches at most 16 after each of 11 blocks.
        layers: The blocks after which tokens are merged, counted from 0, or from -1 backwards; all
            but the last, if not given.
        matching: ``'track'``: one matching for all frames. ``'frame'``: one for each frame, as
            published; in divided attention only for comparison. Not given: ``'track'``, and in
            space-only attention, whose frames do not interact, ``'frame'``.

    Raises:
        ValueError: An argument is out of its range.
        TypeError: A custom block or attention takes no ``key_bias``.

    Example:
        >>> set_merge(model, r=8)
    """
    if not isinstance(r, int) or r < 0:
        raise ValueError(
            f'r={r!r} is not a number of tracks; set backbone.merge.r to a whole number, 0 for none'
        )
    backbone.merging = None
    if r == 0:
        return
    is_space_only = backbone.attention_type == 'space_only'
    matching = matching or ('frame' if is_space_only else 'track')
    _check_matching(matching, is_space_only)
    chosen = _check_layers(layers, len(backbone.blocks))
    for number, block in enumerate(backbone.blocks[chosen[0] + 1 :], chosen[0] + 1):
        _check_block(number, block)
    backbone.merging = Merging(r, chosen, matching)


def merge_arguments(merge: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of :func:`set_merge` that ``backbone.merge`` gives.

    Raises:
        ValueError: ``merge`` lacks ``r``, or has a key of another name.
    """
    if merge is None:
        return {'r': 0}
    unknown = set(merge) - {'r', 'layers', 'matching'}
    if unknown or 'r' not in merge:
        raise ValueError(
            f'merge={dict(merge)} is not r with or without layers and matching; '
            'set backbone.merge to dict(r=8), for example'
        )
    return dict(merge)


@dataclass(frozen=True)
class MergedTokens:
    """Tokens of a pass, and which patches each of them stands for.

    Attributes:
        tokens: As blocks take them, with ``k`` places instead of ``p``.
        order: Their order.
        place: The place of the token that each patch has become part of, ``b f p``.
        sizes: Patches (of one frame) in each token, ``b f k``. They sum to ``p``.
    """

    tokens: Tensor
    order: TokenOrder
    place: Tensor
    sizes: Tensor

    @classmethod
    def single(cls, tokens: Tensor, order: TokenOrder, b: int, matching: str) -> 'MergedTokens':
        """Return the state before any merging: each patch is a token of its own."""
        f, p = 1 if matching == 'track' else order.t, order.frames(tokens, b).shape[2]
        place = torch.arange(p, device=tokens.device).expand(b, f, -1)
        return cls(tokens, order, place, torch.ones_like(place))

    def key_bias(self) -> tuple[Tensor, ...]:
        """Return the logarithms of the sizes for each sequence; nothing, if all sizes are 1.

        Shape:
            - bias: ``(b t) 1+k``; joint: ``b 1+k*t``; 0 for the class token
        """
        if self.sizes.shape == self.place.shape:
            return ()
        return (F.pad(self.order.spread(self.sizes.float().log()), (1, 0)),)

    def merge(self, r: int) -> 'MergedTokens':
        """Merge the ``r`` most similar pairs of tracks, or of patches of each frame."""
        b, f, k = self.sizes.shape
        source, target = match(self.order.frames(self.tokens.detach(), b), r, f == 1)
        stays = torch.ones_like(self.sizes, dtype=torch.bool).scatter(-1, source, False)
        joined = torch.arange(k, device=source.device).expand_as(self.sizes)
        number = (stays.cumsum(-1) - 1).gather(-1, joined.scatter(-1, source, target))
        kept = stays.int().argsort(stable=True, descending=True)[..., : k - r]
        sizes = self.sizes.new_zeros(b, f, k - r).scatter_add(-1, number, self.sizes)

        into = number.gather(-1, target)
        share = self.sizes.gather(-1, source) / sizes.gather(-1, into)
        tokens = self._add(kept, source, target, into, share)
        return MergedTokens(tokens, self.order, number.gather(-1, self.place), sizes)

    def unmerge(self) -> Tensor:
        """Return tokens for all places: patches that were merged have the same.

        Shape:
            - tokens: as :meth:`~mmtimesformer.models.TimeSformer.embed` returns them
        """
        return self.order.select(self.tokens, self.place)

    def size_map(self, grid: tuple[int, int]) -> Tensor:
        """Return, for each patch, the number of patches of its frame in its token.

        Shape:
            - sizes: ``b t h w``
        """
        sizes = self.sizes.gather(-1, self.place).expand(-1, self.order.t, -1)
        return rearrange(sizes, 'b t (h w) -> b t h w', h=grid[0])

    def _add(
        self, kept: Tensor, source: Tensor, target: Tensor, into: Tensor, share: Tensor
    ) -> Tensor:
        """Return the tokens that are kept, moved towards those merged into them.

        The mean of two tokens of sizes ``m`` and ``n`` is ``x + n / (m + n) * (y - x)``. So tokens
        without a partner, and equal ones, do not change at all.
        """
        tokens, order = self.tokens, self.order
        moved = take(tokens, order.positions(source)) - take(tokens, order.positions(target))
        moved = moved.flatten(0, -2) * order.spread(share).flatten()[:, None].to(moved.dtype)
        merged = order.select(tokens, kept)
        *_, n, d = merged.shape
        positions = flat(order.positions(into), n)
        output: Tensor = merged.view(-1, d).index_add(0, positions, moved).view_as(merged)
        return output


def match(frames: Tensor, r: int, is_shared: bool) -> tuple[Tensor, Tensor]:
    """Return the ``r`` most similar pairs of places: the one to merge, and the one it joins.

    Places take turns in two sets, and each of the first is paired with the most similar of the
    second (bipartite soft matching). Similar is the cosine: of tracks, or of the patches of a
    frame. Several may join the same one.

    Args:
        frames: The patches.
        r: Pairs.
        is_shared: Whether all frames have the same pairs.

    Shape:
        - frames: ``b t p d`` -> two times ``b f r``, with ``f = 1`` if shared, else ``f = t``
    """
    with without_autocast(frames.device.type):
        first, second = frames[:, :, ::2].float(), frames[:, :, 1::2].float()
        products = first @ second.mT
    squares = [tokens.square().sum(-1) for tokens in (first, second)]
    if is_shared:
        products, *squares = (part.sum(1, keepdim=True) for part in (products, *squares))
    one, other = (square.rsqrt() for square in squares)
    cosine = products * one[..., None] * other[..., None, :]
    best, partner = cosine.max(-1)
    source = best.argsort(stable=True, descending=True)[..., :r]
    return 2 * source, 2 * partner.gather(-1, source) + 1


def check_number(merging: Merging, p: int) -> None:
    """Check that there are enough tracks to merge.

    Raises:
        ValueError: A merging would have to merge more than half of the tracks.
    """
    most = p // (len(merging.layers) + 1)
    if merging.r > most:
        raise ValueError(
            f'merge.r={merging.r} after each of {len(merging.layers)} blocks is too many for '
            f'{p} tracks, of which at most half can be merged at a time; set backbone.merge.r to '
            f'at most {most}, or name fewer blocks in backbone.merge.layers'
        )


def _check_matching(matching: str, is_space_only: bool) -> None:
    if matching not in MATCHINGS:
        raise ValueError(
            f"merge.matching={matching!r} is not known; set backbone.merge.matching to 'track' or "
            "'frame'"
        )
    if is_space_only and matching == 'track':
        raise ValueError(
            "merge.matching='track' matches over all frames, and frames of space-only attention do "
            "not interact; leave backbone.merge.matching out, or set it to 'frame'"
        )


def _check_layers(layers: Sequence[int] | None, count: int) -> tuple[int, ...]:
    if layers is None:
        layers = range(count - 1)
    for layer in layers:
        if layer not in range(-count, count) or layer % count == count - 1:
            raise ValueError(
                f'merge.layers has block {layer!r}, after which no other follows; set '
                f'backbone.merge.layers to numbers from 0 to {count - 2}'
            )
    if not layers:
        raise ValueError(
            f'there is no block to merge after: merge.layers is empty, or the model has {count} '
            'block; leave backbone.merge out'
        )
    return tuple(sorted({layer % count for layer in layers}))


def _check_block(number: int, block: nn.Module) -> None:
    """Check that a block and its attention take the sizes of merged tokens."""
    attention: Any = getattr(block, 'attn', None)
    attend: list[tuple[Any, int]] = [(block.forward, 2), (getattr(block, 'attend_space', None), 1)]
    if not isinstance(attention, SelfAttention):
        _refuse(number, attention)
    attend += [(attention.forward, 1), (attention.gather, 1)]
    for method, given in attend:
        if method is not None and not _takes(method, given + 1):
            _refuse(number, method.__self__)


def _takes(method: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    return True


def _refuse(number: int, module: Any) -> None:
    raise TypeError(
        f'blocks.{number} of a backbone that merges tokens: {type(module).__name__} takes no '
        'key_bias, the sizes of merged tokens; use our blocks and attention, or give forward and '
        'gather of yours this argument as ours have it'
    )
