"""Attention maps of a forward pass: weights per layer and head, rollout, gradient relevance."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from mmtimesformer.models.attention_capture import (
    AttentionRecord,
    LayerRecords,
    choose_layers,
)

CHUNK = 2**26  # weights in memory at a time while layers are multiplied: 256 MB in float32
Weigh = Callable[[AttentionRecord, slice], Tensor]


@dataclass(eq=False)
class AttentionMaps:
    """The attention of one forward pass, layer by layer; weights are computed on request.

    They are computed from the tokens of the pass and the weights of the model, so use them before
    the model is trained further. A negative layer counts from the last.

    Attributes:
        attention_type: The scheme: ``'divided_space_time'``, ``'joint_space_time'`` or
            ``'space_only'``.
        batch: Videos ``b``.
        grid: ``(t, h, w)``: frames, patch rows, patch columns.
        num_layers: Blocks of the model.
        layers: The records, by number of the block.
        output: What the model returned in this pass.
        score: The score, if one was given.
    """

    attention_type: str
    batch: int
    grid: tuple[int, int, int]
    num_layers: int
    layers: dict[int, LayerRecords] = field(repr=False)
    output: Any = field(default=None, repr=False)
    score: Tensor | None = None

    def spatial(self, layer: int = -1) -> Tensor:
        """Return the attention within each frame (divided and space-only attention).

        Token 0 of a frame is the class token, token ``1 + row * w + column`` a patch. In divided
        attention every frame has a copy of the class token, so there are ``t`` rows for it.

        Shape:
            - weights: ``b t heads 1+p 1+p``, query, then key; the last axis sums to one
        """
        self._need('spatial', 'divided_space_time', 'space_only')
        weights = self._record(layer).weights()
        return rearrange(weights, '(b t) heads i j -> b t heads i j', b=self.batch)

    def temporal(self, layer: int = -1) -> Tensor:
        """Return the attention of each patch to the frames of its track (divided attention).

        Shape:
            - weights: ``b p heads t t``, query, then key; the last axis sums to one
        """
        self._need('temporal', 'divided_space_time')
        weights = self._record(layer, time=True).weights()
        return rearrange(weights, '(b p) heads i j -> b p heads i j', b=self.batch)

    def joint(self, layer: int = -1) -> Tensor:
        """Return the attention within the whole video (joint attention).

        Token 0 is the class token, token ``1 + (row * w + column) * t + frame`` a patch. For
        long videos this is large: 16 GB a layer for 96 frames of 224 x 224 pixels.

        Shape:
            - weights: ``b heads 1+p*t 1+p*t``, query, then key; the last axis sums to one
        """
        self._need('joint', 'joint_space_time')
        return self._record(layer).weights()

    def from_class(self, layer: int = -1) -> Tensor:
        """Return the attention of the class token to all patches in one layer.

        Shape:
            - weights: ``b heads t h w``. In joint attention they sum to one over all frames, else
              over each frame, less the class token's attention to itself.
        """
        _, h, w = self.grid
        weights = self._record(layer).weights(slice(0, 1))[:, :, 0, 1:]
        if self.attention_type == 'joint_space_time':
            return rearrange(weights, 'b heads (h w t) -> b heads t h w', h=h, w=w)
        return rearrange(weights, '(b t) heads (h w) -> b heads t h w', b=self.batch, h=h, w=w)

    def rollout(self) -> Tensor:
        """Return attention rollout: the class token's attention through all layers to the video.

        After Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (arXiv 2005.00928).
        With ``A`` the weights of a layer, averaged over heads, a token after the layer counts as
        half itself and half what it attends to, and the layers multiply::

            R = M_L ... M_2 M_1,      M = (I + A) / 2,      the result is R[class]

        A divided block attends twice, with a residual each time: first over time, without the class
        token (``T`` is along the tracks), then over space (``S_f`` is within frame ``f``), where
        every frame has a copy of the class token, and the mean of the copies is the new one::

            M = S~ T~       T~[patch]      = (I + T) / 2,   T~[class] = I[class]
                            S~[patch in f] = (I + S_f) / 2
                            S~[class]      = (I + mean_f S_f[class]) / 2

        Space-only attention rolls out each frame by itself; the result starts from the mean of the
        frames' class tokens. Rows of ``M``, and so of ``R``, sum to one. MLPs and the norm of the
        values are ignored.

        Only the row of the class token is carried, from the last layer to the first, so that no
        two maps are ever multiplied.

        Shape:
            - rollout: ``b t h w``; sums to one, less the part that stays in the class token
        """
        return self._patches(self.carry(self.class_row(), mean_weights, residual=0.5))

    def relevance(self) -> Tensor:
        """Return gradient-weighted relevance: which patches raise the score.

        After Chefer, Gur and Wolf (arXiv 2103.15679), section 3.1: a layer adds the positive part
        of gradient x attention, averaged over its heads::

            R = (I + A_L) ... (I + A_1),      A = mean_heads (dscore/dA * A)+

        with a divided block as two factors, space after time, as in :meth:`rollout`. Rollout takes
        the mean over the copies of the class token; this takes the sum, because their gradients
        are those of a mean already. The scale of the result has no meaning.

        Shape:
            - relevance of each patch: ``b t h w``, not negative

        Raises:
            ValueError: No score was given to ``model.attention_maps``.
        """
        rows = self.carry(self.class_row(), positive_relevance, residual=1.0, copy_weight=1.0)
        return self._patches(rows)

    def class_row(self) -> Tensor:
        """Return the row that is one at the class token; in space-only, the mean of the frames'.

        Shape:
            - row: ``b 1 n``, see :meth:`carry`
        """
        t, h, w = self.grid
        like = self._record(min(self.layers)).tokens
        dtype = torch.promote_types(like.dtype, torch.float32)  # half loses small values
        if self.attention_type == 'space_only':
            row = like.new_zeros(self.batch, 1, t, 1 + h * w, dtype=dtype)
            row[..., 0] = 1 / t
            return rearrange(row, 'b 1 t n -> b 1 (t n)')
        row = like.new_zeros(self.batch, 1, 1 + h * w * t, dtype=dtype)
        row[..., 0] = 1
        return row

    def carry(
        self, rows: Tensor, weigh: Weigh, residual: float, copy_weight: float | None = None
    ) -> Tensor:
        """Carry rows from the last layer back to the first: ``rows @ M_L @ ... @ M_1``.

        ``M`` is ``residual * I + scale * A`` with ``scale = 1 - residual``, so that rows sum to
        one, or ``scale = 1`` for ``residual=1``.

        Args:
            rows: Weights of the tokens that leave the last block.
            weigh: Computes ``A``, without heads, from a record: ``rows queries n``.
            residual: Weight of a token itself, at each attention.
            copy_weight: Weight of each frame's copy of the class token; ``1 / t`` if not given.

        Shape:
            - rows: ``b r n`` -> the same; tokens as ``TimeSformer.embed`` orders them, frames of
              space-only attention one after the other
        """
        t = self.grid[0]
        scale = 1 - residual if residual < 1 else 1.0
        for layer in sorted(self.layers, reverse=True):
            space = self._record(layer)
            if self.attention_type == 'joint_space_time':
                rows = residual * rows + scale * _through(rows, space, weigh)
            elif self.attention_type == 'space_only':
                frames = rearrange(rows, 'b r (t n) -> (b t) r n', t=t)
                frames = residual * frames + scale * _through(frames, space, weigh)
                rows = rearrange(frames, '(b t) r n -> b r (t n)', t=t)
            else:
                rows = residual * rows + scale * _through_frames(rows, space, weigh, t, copy_weight)
                cls, patches = rows[..., :1], rows[..., 1:]
                tracks = rearrange(patches, 'b r (p t) -> (b p) r t', t=t)
                time = self._record(layer, time=True)
                tracks = residual * tracks + scale * _through(tracks, time, weigh)
                patches = rearrange(tracks, '(b p) r t -> b r (p t)', b=self.batch)
                rows = torch.cat([cls, patches], dim=-1)
        return rows

    def _patches(self, rows: Tensor) -> Tensor:
        t, h, w = self.grid
        if self.attention_type == 'space_only':
            frames = rearrange(rows, 'b 1 (t n) -> b t n', t=t)[..., 1:]
            return rearrange(frames, 'b t (h w) -> b t h w', h=h)
        return rearrange(rows[..., 1:], 'b 1 (h w t) -> b t h w', h=h, w=w)

    def _record(self, layer: int, time: bool = False) -> AttentionRecord:
        (number,) = choose_layers([layer], self.num_layers)
        if number not in self.layers:
            kept = ', '.join(map(str, sorted(self.layers)))
            raise ValueError(
                f'layer {layer} was not recorded; these were: {kept}. Choose one of them, or name '
                'it in attention_maps(video, layers=...)'
            )
        record = self.layers[number].time if time else self.layers[number].space
        assert record is not None
        return record

    def _need(self, what: str, *schemes: str) -> None:
        if self.attention_type not in schemes:
            instead = {
                'divided_space_time': 'spatial and temporal',
                'joint_space_time': 'joint',
                'space_only': 'spatial',
            }[self.attention_type]
            raise ValueError(
                f'{self.attention_type} attention has no {what} maps; use its {instead} maps'
            )


def mean_weights(record: AttentionRecord, queries: slice) -> Tensor:
    """Return the weights, averaged over heads: ``rows queries n``."""
    return record.weights(queries).mean(1)


def positive_relevance(record: AttentionRecord, queries: slice) -> Tensor:
    """Return the positive part of gradient x weight, averaged over heads: ``rows queries n``."""
    return (record.weights(queries) * record.gradients(queries)).clamp(min=0).mean(1)


def _through(rows: Tensor, record: AttentionRecord, weigh: Weigh) -> Tensor:
    """Return ``rows @ A``, for a part of the queries at a time.

    Shape:
        - rows: ``b r n`` -> ``b r n``
    """
    b, n, _ = record.tokens.shape
    size = max(1, CHUNK // (b * record.attention.num_heads * n))
    result = torch.zeros_like(rows)
    for start in range(0, n, size):
        chunk = slice(start, min(start + size, n))
        result = result + rows[..., chunk] @ weigh(record, chunk).to(rows.dtype)
    return result


def _through_frames(
    rows: Tensor, record: AttentionRecord, weigh: Weigh, t: int, copy_weight: float | None
) -> Tensor:
    """Return ``rows @ A`` for frames that each have a copy of the class token.

    Shape:
        - rows: ``b r (1+p*t)`` -> the same
    """
    weight = 1 / t if copy_weight is None else copy_weight
    cls = repeat(rows[..., :1], 'b r 1 -> (b t) r 1', t=t) * weight
    patches = rearrange(rows[..., 1:], 'b r (p t) -> (b t) r p', t=t)
    frames = _through(torch.cat([cls, patches], dim=-1), record, weigh)
    cls = reduce(frames[..., :1], '(b t) r 1 -> b r 1', 'sum', t=t)
    patches = rearrange(frames[..., 1:], '(b t) r p -> b r (p t)', t=t)
    return torch.cat([cls, patches], dim=-1)
