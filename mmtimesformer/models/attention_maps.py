"""Who looked at whom, and how much: the attention of a forward pass, and what follows from it.

The forward pass never forms attention weights (one fused kernel goes from queries, keys and values
to the answer). So the tokens that *enter* each attention are kept, and its weights are computed
from these when somebody asks: a pass costs what it always costs, and no more memory than one
tensor of tokens for each attention.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from mmtimesformer.models.attention import SelfAttention

CHUNK = 2**26  # weights in memory at a time while layers are multiplied: 256 MB in float32
Weigh = Callable[['Look', slice], Tensor]


@dataclass(eq=False)
class Look:
    """One attention during one forward pass.

    Attributes:
        attention: The module.
        tokens: What entered it, ``rows n d``; a row is what may see each other (a track, a frame,
            a video).
        seen: What each token gathered, heads side by side, ``rows n d``; for gradients only.
        seen_grad: How the score changes with it, ``rows n d``.
    """

    attention: SelfAttention
    tokens: Tensor
    seen: Tensor | None = None
    seen_grad: Tensor | None = None

    @torch.no_grad()
    def weights(self, queries: slice = slice(None)) -> Tensor:
        """Return the weights.

        Shape:
            - weights: ``rows heads queries n``; the last axis sums to one
        """
        return self.attention.weights(self.tokens, queries)

    @torch.no_grad()
    def gradients(self, queries: slice = slice(None)) -> Tensor:
        """Return how the score would change with each weight, were the weights free.

        A token gathers ``seen = weights @ values``, so the gradient of a weight is
        ``seen_grad @ values^T``. No other forward pass is needed for it.

        Shape:
            - gradients: ``rows heads queries n``
        """
        if self.seen_grad is None:
            raise ValueError(
                'gradients of the attention need a score; ask with '
                'model.attention_maps(video, score=lambda cls: head.fc_cls(cls)[:, label])'
            )
        values = self.attention.project(self.tokens)[2]
        grads = rearrange(
            self.seen_grad[:, queries], 'b n (heads c) -> b heads n c', heads=values.shape[1]
        )
        return grads.to(values.dtype) @ values.mT  # autocast leaves gradients in its own type


@dataclass(eq=False)
class LayerRecords:
    """What was looked at in one block: ``time`` is there in divided attention alone."""

    space: Look | None = None
    time: Look | None = None


@dataclass(eq=False)
class AttentionMaps:
    """The attention of one forward pass, layer by layer; weights are computed when asked for.

    They follow from the tokens of the pass and the weights of the model, so ask before the model
    is trained further. A negative layer counts from the last.

    Attributes:
        attention_type: The scheme: ``'divided_space_time'``, ``'joint_space_time'`` or
            ``'space_only'``.
        batch: Videos ``b``.
        grid: ``(t, h, w)``: frames, patch rows, patch columns.
        num_layers: Blocks of the model.
        layers: What was kept, by the number of the block.
        output: What the model returned in this pass.
        score: What the score was, if one was given.
    """

    attention_type: str
    batch: int
    grid: tuple[int, int, int]
    num_layers: int
    layers: dict[int, LayerRecords] = field(repr=False)
    output: Any = field(default=None, repr=False)
    score: Tensor | None = None

    def spatial(self, layer: int = -1) -> Tensor:
        """Return who looks at whom within each frame (divided and space-only attention).

        Token 0 of a frame is the class token, token ``1 + row * w + column`` a patch. In divided
        attention the class token is lent to every frame, so it looks ``t`` times.

        Shape:
            - weights: ``b t heads 1+p 1+p``, who looks, then at whom; the last axis sums to one
        """
        self._need('spatial', 'divided_space_time', 'space_only')
        weights = self._look(layer).weights()
        return rearrange(weights, '(b t) heads i j -> b t heads i j', b=self.batch)

    def temporal(self, layer: int = -1) -> Tensor:
        """Return which frames each patch looks at, along its track (divided attention).

        Shape:
            - weights: ``b p heads t t``, who looks, then at whom; the last axis sums to one
        """
        self._need('temporal', 'divided_space_time')
        weights = self._look(layer, time=True).weights()
        return rearrange(weights, '(b p) heads i j -> b p heads i j', b=self.batch)

    def joint(self, layer: int = -1) -> Tensor:
        """Return who looks at whom in the whole video (joint attention).

        Token 0 is the class token, token ``1 + (row * w + column) * t + frame`` a patch. For
        long videos this is large: 16 GB a layer for 96 frames of 224 x 224 pixels.

        Shape:
            - weights: ``b heads 1+p*t 1+p*t``, who looks, then at whom; the last axis sums to one
        """
        self._need('joint', 'joint_space_time')
        return self._look(layer).weights()

    def from_class(self, layer: int = -1) -> Tensor:
        """Return what the class token looks at in one layer.

        Shape:
            - weights: ``b heads t h w``. In joint attention they sum to one over all frames, else
              over each frame; what is missing to one is the class token's look at itself.
        """
        _, h, w = self.grid
        weights = self._look(layer).weights(slice(0, 1))[:, :, 0, 1:]
        if self.attention_type == 'joint_space_time':
            return rearrange(weights, 'b heads (h w t) -> b heads t h w', h=h, w=w)
        return rearrange(weights, '(b t) heads (h w) -> b heads t h w', b=self.batch, h=h, w=w)

    def rollout(self) -> Tensor:
        """Follow the class token's attention back through all layers to the video.

        After Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (arXiv 2005.00928):
        with ``A`` a layer's weights, averaged over its heads, a token after the layer is taken for
        half itself and half what it looked at, and the layers multiply::

            R = M_L ... M_2 M_1,      M = (I + A) / 2,      out comes R[class]

        A divided block looks twice, with a residual each time. First time, which the class token
        sits out (``T`` is along the tracks), then space (``S_f`` is within frame ``f``), for which
        the class token is lent to every frame and the mean of what comes back goes on::

            M = S~ T~       T~[patch]      = (I + T) / 2,   T~[class] = I[class]
                            S~[patch in f] = (I + S_f) / 2
                            S~[class]      = (I + mean_f S_f[class]) / 2

        In space-only attention each frame rolls out by itself, and the mean over the frames' class
        tokens goes out. Rows of ``M``, and so of ``R``, sum to one. MLPs and the size of what is
        carried are not seen by it.

        Only the row of the class token is carried, from the last layer to the first, so that no
        two maps are ever multiplied.

        Shape:
            - share of each patch: ``b t h w``; what is missing to one stays in the class token
        """
        return self._patches(self.carry(self.class_row(), _mean_weights, residual=0.5))

    def relevance(self) -> Tensor:
        """Return which patches spoke *for* the score: attention, weighted with its gradient.

        After Chefer, Gur and Wolf (arXiv 2103.15679), section 3.1: a layer adds the positive part
        of gradient x attention, averaged over its heads::

            R = (I + A_L) ... (I + A_1),      A = mean_heads (dscore/dA * A)+

        with a divided block as two factors, space after time, as in :meth:`rollout`. Where that
        takes the mean of what the lent class tokens saw, this takes the sum: their gradients are
        those of a mean already. The scale of the result has no meaning.

        Shape:
            - relevance of each patch: ``b t h w``, not negative

        Raises:
            ValueError: No score was given to ``model.attention_maps``.
        """
        rows = self.carry(self.class_row(), _positive_part, residual=1.0, lend=1.0)
        return self._patches(rows)

    def class_row(self) -> Tensor:
        """Return the row that is one at the class token; in space-only, the mean of the frames'.

        Shape:
            - row: ``b 1 n``, see :meth:`carry`
        """
        t, h, w = self.grid
        like = next(iter(self.layers.values())).space.tokens  # type: ignore[union-attr]
        dtype = torch.promote_types(like.dtype, torch.float32)  # half loses small shares
        if self.attention_type == 'space_only':
            row = like.new_zeros(self.batch, 1, t, 1 + h * w, dtype=dtype)
            row[..., 0] = 1 / t
            return rearrange(row, 'b 1 t n -> b 1 (t n)')
        row = like.new_zeros(self.batch, 1, 1 + h * w * t, dtype=dtype)
        row[..., 0] = 1
        return row

    def carry(
        self, rows: Tensor, weigh: Weigh, residual: float, lend: float | None = None
    ) -> Tensor:
        """Carry rows from the last layer back to the first: ``rows @ M_L @ ... @ M_1``.

        ``M`` is ``residual * I + look * A``, where ``look`` is what makes rows of weights sum to
        one (``1 - residual``), or one if the residual is whole.

        Args:
            rows: Shares of the tokens that leave the last block.
            weigh: Makes ``A``, without heads, of a look: ``rows queries n``.
            residual: Share of a token that is the token itself, at each look.
            lend: Share of the class token that each frame gets; ``1 / t`` if not given.

        Shape:
            - rows: ``b r n`` -> the same; tokens as ``TimeSformer.embed`` lays them out, frames of
              space-only attention one after the other
        """
        t = self.grid[0]
        look = 1 - residual if residual < 1 else 1.0
        for layer in sorted(self.layers, reverse=True):
            looks = self.layers[layer]
            space = self._look(layer)
            if self.attention_type == 'joint_space_time':
                rows = residual * rows + look * _through(rows, space, weigh)
            elif self.attention_type == 'space_only':
                frames = rearrange(rows, 'b r (t n) -> (b t) r n', t=t)
                frames = residual * frames + look * _through(frames, space, weigh)
                rows = rearrange(frames, '(b t) r n -> b r (t n)', t=t)
            else:
                rows = residual * rows + look * _through_frames(rows, space, weigh, t, lend)
                cls, patches = rows[..., :1], rows[..., 1:]
                tracks = rearrange(patches, 'b r (p t) -> (b p) r t', t=t)
                assert looks.time is not None
                tracks = residual * tracks + look * _through(tracks, looks.time, weigh)
                patches = rearrange(tracks, '(b p) r t -> b r (p t)', b=self.batch)
                rows = torch.cat([cls, patches], dim=-1)
        return rows

    def _patches(self, rows: Tensor) -> Tensor:
        t, h, w = self.grid
        if self.attention_type == 'space_only':
            frames = rearrange(rows, 'b 1 (t n) -> b t n', t=t)[..., 1:]
            return rearrange(frames, 'b t (h w) -> b t h w', h=h)
        return rearrange(rows[..., 1:], 'b 1 (h w t) -> b t h w', h=h, w=w)

    def _look(self, layer: int, time: bool = False) -> Look:
        (number,) = _choose_layers([layer], self.num_layers)
        if number not in self.layers:
            kept = ', '.join(map(str, sorted(self.layers)))
            raise ValueError(
                f'layer {layer} was not kept; these were: {kept}. Ask for one of them, or name it '
                'in attention_maps(video, layers=...)'
            )
        look = self.layers[number].time if time else self.layers[number].space
        assert look is not None
        return look

    def _need(self, what: str, *schemes: str) -> None:
        if self.attention_type not in schemes:
            instead = {
                'divided_space_time': 'spatial and temporal',
                'joint_space_time': 'joint',
                'space_only': 'spatial',
            }[self.attention_type]
            raise ValueError(
                f'{self.attention_type} attention has no {what} maps; ask for its {instead} maps'
            )


def watch(
    model: Any,
    video: Tensor,
    layers: Sequence[int] | None = None,
    score: Callable[[Any], Tensor] | None = None,
) -> AttentionMaps:
    """Run a TimeSformer once and keep what enters its attention; see ``attention_maps`` there."""
    if model.training:
        raise ValueError(
            'the model is in training mode, where dropout changes what is seen; '
            'call model.eval() first'
        )
    scheme = scheme_of(model)
    chosen = _choose_layers(layers, len(model.blocks))
    looks = {number: LayerRecords() for number in chosen}
    with ExitStack() as stack:
        for number in chosen:
            block = model.blocks[number]
            keep = _keeper(looks[number], 'space', number)
            stack.enter_context(_watching(getattr(block, 'attn', None), keep, score is not None))
            if scheme == 'divided_space_time':
                keep = _keeper(looks[number], 'time', number)
                stack.enter_context(_watching(block.temporal_attn, keep, score is not None))
        if score is None:
            with torch.no_grad():
                output, result = model(video), None
        else:
            with torch.inference_mode(False), torch.enable_grad():
                output = model(video.clone().requires_grad_(video.is_floating_point()))
                result = score(output)
                _differentiate(result, looks)
    b, _, t, height, width = video.shape
    grid = t, height // model.patch_size, width // model.patch_size
    _check_rows(looks, scheme, b, grid)
    reached = None if result is None else result.detach()
    return AttentionMaps(scheme, b, grid, len(model.blocks), looks, _detached(output), reached)


def _differentiate(score: Tensor, layers: dict[int, LayerRecords]) -> None:
    """Keep how the score changes with what each attention gathered, and let the graph go."""
    looks = [look for layer in layers.values() for look in (layer.space, layer.time) if look]
    seen = [look.seen for look in looks if look.seen is not None]
    gradients = torch.autograd.grad(score.sum(), seen, materialize_grads=True)
    for look, gradient in zip(looks, gradients, strict=True):
        look.seen_grad, look.seen = gradient, None


def scheme_of(model: Any) -> str:
    """Return the attention type of a model, by what its blocks have."""
    if model.time_embed is None:
        return 'space_only'
    divided = all(hasattr(block, 'temporal_attn') for block in model.blocks)
    return 'divided_space_time' if divided else 'joint_space_time'


def _through(rows: Tensor, look: Look, weigh: Weigh) -> Tensor:
    """Return ``rows @ A``, for a part of the queries at a time.

    Shape:
        - rows: ``b r n`` -> ``b r n``
    """
    b, n, _ = look.tokens.shape
    size = max(1, CHUNK // (b * look.attention.num_heads * n))
    chunks = (slice(start, min(start + size, n)) for start in range(0, n, size))
    return sum(rows[..., chunk] @ weigh(look, chunk).to(rows.dtype) for chunk in chunks)  # type: ignore[return-value]


def _through_frames(rows: Tensor, look: Look, weigh: Weigh, t: int, lend: float | None) -> Tensor:
    """Return ``rows @ A`` for frames to which the class token is lent.

    Shape:
        - rows: ``b r (1+p*t)`` -> the same
    """
    cls = repeat(rows[..., :1], 'b r 1 -> (b t) r 1', t=t) * (1 / t if lend is None else lend)
    patches = rearrange(rows[..., 1:], 'b r (p t) -> (b t) r p', t=t)
    frames = _through(torch.cat([cls, patches], dim=-1), look, weigh)
    cls = reduce(frames[..., :1], '(b t) r 1 -> b r 1', 'sum', t=t)
    patches = rearrange(frames[..., 1:], '(b t) r p -> b r (p t)', t=t)
    return torch.cat([cls, patches], dim=-1)


def _mean_weights(look: Look, queries: slice) -> Tensor:
    return look.weights(queries).mean(1)  # over heads


def _positive_part(look: Look, queries: slice) -> Tensor:
    return (look.weights(queries) * look.gradients(queries)).clamp(min=0).mean(1)  # over heads


def _keeper(looks: LayerRecords, kind: str, number: int) -> Callable[[Look], None]:
    def keep(look: Look) -> None:
        if getattr(looks, kind) is not None:
            raise ValueError(
                f'block {number} calls its attention over {kind} more than once in a pass; '
                'maps are made for blocks that call it once'
            )
        setattr(looks, kind, look)

    return keep


@contextmanager
def _watching(
    attention: nn.Module | None, keep: Callable[[Look], None], with_seen: bool
) -> Iterator[None]:
    """Keep what enters an attention, and for gradients what it gathered, while inside."""
    _check_attention(attention)
    assert isinstance(attention, SelfAttention)
    kept: list[Look] = []

    def enters(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        kept.append(Look(attention, args[0].detach()))
        keep(kept[-1])

    def leaves(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        kept[-1].seen = args[0]

    handles = [attention.register_forward_pre_hook(enters)]
    if with_seen:
        handles.append(attention.proj.register_forward_pre_hook(leaves))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_attention(attention: nn.Module | None) -> None:
    """See that the weights of an attention are known: an own way to look tells its own weights."""
    name = type(attention).__name__
    if not isinstance(attention, SelfAttention):
        raise TypeError(
            f'{name} is not a SelfAttention, so its weights are not known; '
            'derive it from mmtimesformer.models.SelfAttention'
        )
    for base in type(attention).__mro__:
        own = vars(base)
        if 'weights' in own:
            return
        if 'look' in own or 'forward' in own:
            raise TypeError(
                f'{name} looks in its own way, so the weights of SelfAttention may not be its; '
                f'give {name} a method weights(tokens, queries=slice(None)) that returns them, '
                'or say `weights = SelfAttention.weights` in it if they are the same'
            )


def _choose_layers(layers: Sequence[int] | None, count: int) -> list[int]:
    if layers is None:
        return list(range(count))
    for layer in layers:
        if not -count <= layer < count:
            raise ValueError(
                f'layer {layer} is not one of the {count} of the model; '
                f'choose from 0 to {count - 1}, or -1 for the last'
            )
    if not layers:
        raise ValueError('no layer was chosen; name at least one, or leave layers out for all')
    return sorted({layer % count for layer in layers})


def _check_rows(
    looks: dict[int, LayerRecords], scheme: str, b: int, grid: tuple[int, int, int]
) -> None:
    """See that blocks of the user's own hand in tracks and frames (or videos) as ours do."""
    t, h, w = grid
    n = 1 + h * w
    space = (b, 1 + t * h * w) if scheme == 'joint_space_time' else (b * t, n)
    for number, layer in looks.items():
        expected = [('attn', layer.space, space)]
        if scheme == 'divided_space_time':
            expected.append(('temporal_attn', layer.time, (b * h * w, t)))
        for name, look, shape in expected:
            found = None if look is None else tuple(look.tokens.shape[:2])
            if found != shape:
                raise ValueError(
                    f'blocks.{number}.{name} was given {found} rows and tokens where {scheme} '
                    f'attention has {shape}; maps are made for blocks that group tokens as ours do'
                )


def _detached(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    return tuple(_detached(part) for part in output)
