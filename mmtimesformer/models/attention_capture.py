"""Record the attention of a forward pass: hooks that keep the tokens entering each attention.

The forward pass never forms attention weights, because one fused kernel computes their product
with the values. So the tokens that *enter* each attention are kept, and the weights are computed
from them on request. The pass costs no extra time, and the memory of one tensor of tokens for each
attention.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from mmtimesformer.models.attention import SelfAttention


@dataclass(eq=False)
class AttentionRecord:
    """One attention during one forward pass.

    Attributes:
        attention: The module.
        tokens: Its input, ``rows n d``. A row is one sequence: a track, a frame or a video.
        gathered: The weighted values of each token, heads side by side, ``rows n d``; only where
            gradients are wanted.
        gathered_grad: Gradient of the score with respect to ``gathered``, ``rows n d``.
    """

    attention: SelfAttention
    tokens: Tensor
    gathered: Tensor | None = None
    gathered_grad: Tensor | None = None

    @torch.no_grad()
    def weights(self, queries: slice = slice(None)) -> Tensor:
        """Return the attention weights.

        Shape:
            - weights: ``rows heads queries n``; the last axis sums to one
        """
        return self.attention.attention_weights(self.tokens, queries)

    @torch.no_grad()
    def gradients(self, queries: slice = slice(None)) -> Tensor:
        """Return the gradient of the score with respect to each weight.

        As ``gathered = weights @ values``, it is ``gathered_grad @ values^T``; no other forward
        pass is needed.

        Shape:
            - gradients: ``rows heads queries n``
        """
        if self.gathered_grad is None:
            raise ValueError(
                'gradients of the attention need a score; call '
                'model.attention_maps(video, score=lambda cls: head.fc_cls(cls)[:, label])'
            )
        values = self.attention.qkv_heads(self.tokens)[2]
        grads = rearrange(
            self.gathered_grad[:, queries], 'b n (heads c) -> b heads n c', heads=values.shape[1]
        )
        return grads.to(values.dtype) @ values.mT  # autocast leaves gradients in its own type


@dataclass(eq=False)
class LayerRecords:
    """The attention of one block; only divided attention has ``time``."""

    space: AttentionRecord | None = None
    time: AttentionRecord | None = None


def capture_attention(
    model: Any, video: Tensor, layers: Sequence[int] | None, score: Callable[[Any], Tensor] | None
) -> tuple[dict[int, LayerRecords], Any, Tensor | None]:
    """Run a TimeSformer once and record its attention.

    Arguments and errors are those of
    :meth:`~mmtimesformer.models.timesformer.TimeSformer.attention_maps`.

    Returns:
        The records by number of the block, the output of the model, and the score.
    """
    if model.training:
        raise ValueError(
            'the model is in training mode, where dropout changes the attention; '
            'call model.eval() first'
        )
    if model.merging is not None:
        raise ValueError(
            f'the model merges {model.merging.r} tracks after each of some blocks, so its '
            'attention has fewer tokens than the video patches; call set_merge(model, 0) of '
            'mmtimesformer.models first'
        )
    is_divided = scheme_of(model) == 'divided_space_time'
    chosen = choose_layers(layers, len(model.blocks))
    records = {number: LayerRecords() for number in chosen}
    with ExitStack() as stack:
        for number in chosen:
            parts = {'space': 'attn', 'time': 'temporal_attn'} if is_divided else {'space': 'attn'}
            for kind, name in parts.items():
                attention = getattr(model.blocks[number], name, None)
                into = records[number], kind, number
                stack.enter_context(_recording(attention, *into, with_gathered=score is not None))
        if score is None:
            with torch.no_grad():
                output, result = model(video), None
        else:
            with torch.inference_mode(False), torch.enable_grad():
                output = model(video.clone().requires_grad_(video.is_floating_point()))
                result = score(output)
                _differentiate(result, records)
    _check_rows(model, video, records)
    return records, _detached(output), None if result is None else result.detach()


def scheme_of(model: Any) -> str:
    """Return the attention type of a model, by the modules of its blocks."""
    if model.time_embed is None:
        return 'space_only'
    divided = all(hasattr(block, 'temporal_attn') for block in model.blocks)
    return 'divided_space_time' if divided else 'joint_space_time'


def grid_of(model: Any, video: Tensor) -> tuple[int, int, int]:
    """Return ``(t, h, w)`` of a video: frames, patch rows, patch columns."""
    t, height, width = video.shape[2:]
    return t, height // model.patch_size, width // model.patch_size


def choose_layers(layers: Sequence[int] | None, count: int) -> list[int]:
    """Return the chosen blocks counted from 0, in order; all of them for ``None``.

    Raises:
        ValueError: There is no such block, or none was chosen.
    """
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


def _differentiate(score: Tensor, layers: dict[int, LayerRecords]) -> None:
    """Keep the gradient of the score at each attention, and free the graph."""
    records = [
        record for layer in layers.values() for record in (layer.space, layer.time) if record
    ]
    gathered = [record.gathered for record in records if record.gathered is not None]
    gradients = torch.autograd.grad(score.sum(), gathered, materialize_grads=True)
    for record, gradient in zip(records, gradients, strict=True):
        record.gathered_grad, record.gathered = gradient, None


@contextmanager
def _recording(
    attention: nn.Module | None, layer: LayerRecords, kind: str, number: int, with_gathered: bool
) -> Iterator[None]:
    """Record the input of an attention, and for gradients the weighted values too."""
    _check_attention(attention)
    assert isinstance(attention, SelfAttention)

    def before_attention(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if getattr(layer, kind) is not None:
            raise ValueError(
                f'block {number} calls its attention over {kind} more than once in a pass; '
                'maps are made for blocks that call it once'
            )
        setattr(layer, kind, AttentionRecord(attention, args[0].detach()))

    def before_projection(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        getattr(layer, kind).gathered = args[0]

    handles = [attention.register_forward_pre_hook(before_attention)]
    if with_gathered:
        handles.append(attention.proj.register_forward_pre_hook(before_projection))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_attention(attention: nn.Module | None) -> None:
    """Refuse an attention that overrides its forward pass and not its weights."""
    name = type(attention).__name__
    if not isinstance(attention, SelfAttention):
        raise TypeError(
            f'{name} is not a SelfAttention, so its weights are not known; '
            'derive it from mmtimesformer.models.SelfAttention'
        )
    for base in type(attention).__mro__:
        own = vars(base)
        if 'attention_weights' in own:
            return
        if 'gather' in own or 'forward' in own:
            raise TypeError(
                f'{name} overrides gather or forward, so the weights of SelfAttention may not be '
                f'its own; give {name} a method attention_weights(tokens, queries=slice(None)) '
                'that returns them, or set `attention_weights = SelfAttention.attention_weights` '
                'in it if they are the same'
            )


def _check_rows(model: Any, video: Tensor, records: dict[int, LayerRecords]) -> None:
    """Check that custom blocks pass tracks and frames (or videos) to their attention as ours do."""
    scheme, b, (t, h, w) = scheme_of(model), len(video), grid_of(model, video)
    space = (b, 1 + t * h * w) if scheme == 'joint_space_time' else (b * t, 1 + h * w)
    for number, layer in records.items():
        expected = [('attn', layer.space, space)]
        if scheme == 'divided_space_time':
            expected.append(('temporal_attn', layer.time, (b * h * w, t)))
        for name, record, shape in expected:
            found = None if record is None else tuple(record.tokens.shape[:2])
            if found != shape:
                raise ValueError(
                    f'blocks.{number}.{name} was given {found} rows and tokens where {scheme} '
                    f'attention has {shape}; maps are made for blocks that group tokens as ours do'
                )


def _detached(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    return tuple(_detached(part) for part in output)
