"""Write an interactive HTML page of a clip's attention: one file, no server, no network.

Each row of attention weights (of one query) is stored as 8-bit codes and its largest weight:
``weight = largest * (code / 255) ** 2``. The square spends more codes on small weights, of which
there are many; the error is at most 0.4 % of the row's largest weight. Rows are compressed with
zlib, which browsers since 2023 decompress.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from matplotlib import colormaps

from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.inference.prediction import LONGEST_NAME
from mmtimesformer.models import AttentionMaps
from mmtimesformer.terminal import safe_text
from mmtimesformer.visualization.attention import (
    COLORS,
    METHODS,
    AttentionView,
    check_head,
    describe,
)
from mmtimesformer.visualization.templates import render

TEMPLATE = 'attention_page.html.jinja'
LARGEST_MAP = 2**26  # weights of one head in one layer, for a browser's memory
MEGABYTES = 24.0


@dataclass
class PageReport:
    """The size of a page, and the layers in it, numbered from 0."""

    path: Path
    size: int  # bytes
    layers: list[int]
    with_heads: list[int]  # every head; the other layers have the mean of heads only

    def __str__(self) -> str:
        layers = f'layers {_listed(self.layers)}'
        if self.with_heads == self.layers:
            heads = 'every head'
        elif self.with_heads:
            heads = f'every head of {_listed(self.with_heads)}, the mean of heads of the others'
        else:
            heads = 'the mean of heads'
        return f'{self.path} ({self.size / 1e6:.1f} MB: {layers}, {heads})'


def write_page(
    attention: AttentionView,
    path: str | Path,
    layers: Sequence[int] | None = None,
    megabytes: float = MEGABYTES,
    method: str = 'rollout',
    layer: int = -1,
    head: int | None = None,
) -> PageReport:
    """Write the page of a clip.

    If not all weights fit, the mean of heads of each layer is stored first, from the last layer to
    the first, then the single heads in the same order.

    Args:
        attention: The clip and its attention.
        path: The file.
        layers: Layers to store; all that were kept if not given.
        megabytes: Largest size of the weights in the file; the last layer is always stored.
        method: Overlay that the page opens with.
        layer: Layer that the page opens with.
        head: Head that the page opens with; the mean if not given.

    Raises:
        ValueError: The maps are too large for a page, or there is no such layer.
    """
    maps = attention.maps
    t, h, w = maps.grid
    longest = 1 + h * w * t if maps.attention_type == 'joint_space_time' else 1 + h * w
    largest = longest**2 * (1 if maps.attention_type == 'joint_space_time' else t)
    if largest > LARGEST_MAP:
        raise ValueError(
            f'one head of one layer has {largest:,} weights in this clip, too many for a page '
            f'(at most {LARGEST_MAP:,}); use fewer frames or smaller crops'
        )
    wanted = sorted(maps.layers if layers is None else {_number(maps, one) for one in layers})
    opened = _number(maps, layer)
    check_head(head, maps.layers[opened].space.attention.num_heads)  # type: ignore[union-attr]
    packed, with_heads = _pack_what_fits(maps, wanted, megabytes * 1e6)
    shown = sorted(packed)
    data = {
        'title': safe_text(Path(attention.prediction.video).name),
        'model': describe(maps),
        'scheme': maps.attention_type,
        't': t,
        'h': h,
        'w': w,
        'size': list(attention.frames.shape[1:3]),
        'seconds': None if attention.seconds is None else np.round(attention.seconds, 3).tolist(),
        'prediction': [
            {'name': safe_text(label, LONGEST_NAME), 'score': attention.prediction.shown(rank)}
            for rank, label in enumerate(attention.prediction.labels[:3])
        ],
        'frames': [_jpeg(frame) for frame in attention.frames],
        'colors': _text(_color_table()),
        'summaries': _summaries(attention),
        'method': method,
        'layers': [packed[number] for number in shown],
        'layer': shown.index(opened) if opened in shown else len(shown) - 1,
        'head': head,
        'numLayers': maps.num_layers,
    }
    path = Path(path)
    write_text_atomically(path, render(TEMPLATE, data=data))
    return PageReport(path, path.stat().st_size, shown, with_heads)


def encode(weights: np.ndarray) -> bytes:
    """Store rows of weights (``... n``) as the largest weight of each, then 8-bit codes."""
    rows = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]), dtype='<f4')
    largest = rows.max(axis=1, keepdims=True)
    fractions = rows / np.maximum(largest, np.finfo('f4').tiny)
    codes = np.sqrt(fractions, out=fractions)
    codes *= 255
    return largest.tobytes() + np.rint(codes).astype(np.uint8).tobytes()


def decode(data: bytes, row: int) -> np.ndarray:
    """Return the weights that :func:`encode` stored, ``rows n`` with ``n = row``."""
    count = len(data) // (4 + row)
    largest = np.frombuffer(data, '<f4', count).reshape(-1, 1)
    codes = np.frombuffer(data, np.uint8, count * row, 4 * count).reshape(-1, row)
    return largest * (codes / np.float32(255)) ** 2


def _pack_what_fits(
    maps: AttentionMaps, wanted: list[int], room: float
) -> tuple[dict[int, dict[str, Any]], list[int]]:
    packed: dict[int, dict[str, Any]] = {}
    used = 0
    for number in reversed(wanted):
        mean = _pack(maps, number, heads=False)
        if packed and used + _size(mean) > room:
            break
        packed[number] = mean
        used += _size(mean)
    with_heads = []
    for number in sorted(packed, reverse=True):
        # Single heads compress less than the mean: skip early where they cannot fit.
        count = maps.layers[number].space.attention.num_heads  # type: ignore[union-attr]
        if used + (count - 1) * _size(packed[number]) > room:
            break
        every = _pack(maps, number, heads=True)
        if used + _size(every) - _size(packed[number]) > room:
            break
        used += _size(every) - _size(packed[number])
        packed[number] = every
        with_heads.append(number)
    return packed, sorted(with_heads)


def _pack(maps: AttentionMaps, number: int, heads: bool) -> dict[str, Any]:
    """Pack a layer; rows of the page are head-major, and patches lie frame by frame.

    Shape:
        - space: ``heads t 1+p 1+p``; in joint attention ``heads n n``, tokens ``1 (t p)``
        - time: ``heads p t t``
    """
    layer: dict[str, Any] = {'number': number}
    if maps.attention_type == 'joint_space_time':
        t = maps.grid[0]
        space = maps.joint(number)[0]
        order = rearrange(np.arange(space.shape[-1] - 1) + 1, '(p t) -> (t p)', t=t)
        order = np.concatenate([[0], order])
        space = space[:, order][:, :, order]
    else:
        space = rearrange(maps.spatial(number)[0], 't heads i j -> heads t i j')
    parts = {'space': space}
    if maps.attention_type == 'divided_space_time':
        parts['time'] = rearrange(maps.temporal(number)[0], 'p heads i j -> heads p i j')
    for name, weights in parts.items():
        kept = weights if heads else weights.mean(0, keepdim=True)
        layer['heads'] = len(kept) if heads else 0
        layer[name] = _text(zlib.compress(encode(kept.float().cpu().numpy()), 6))
    return layer


def _summaries(attention: AttentionView) -> dict[str, dict[str, Any]]:
    """Return the heatmap of each method that was computed, for the strip of the whole clip."""
    found = {}
    maps = attention.maps
    complete = len(maps.layers) == maps.num_layers
    for method, meaning in METHODS.items():
        if (method == 'gradient' and maps.score is None) or (method != 'last' and not complete):
            continue
        if method == 'last':
            meaning = 'attention of the class token in the last layer, mean of heads'
        if method == 'gradient':
            meaning = f'gradient relevance for “{safe_text(attention.name, LONGEST_NAME)}”'
        heatmap = attention.heatmap(method, max(maps.layers) if method == 'last' else -1)
        codes = np.rint(255 * heatmap / (heatmap.max() or 1)).astype(np.uint8)
        found[method] = {'meaning': meaning, 'codes': _text(codes.tobytes())}
    return found


def _jpeg(frame: np.ndarray) -> str:
    import cv2

    _, data = cv2.imencode('.jpg', frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return f'data:image/jpeg;base64,{_text(data.tobytes())}'


def _color_table() -> bytes:
    table = colormaps[COLORS](np.linspace(0.3, 1, 256))[:, :3]
    return np.rint(255 * table).astype(np.uint8).tobytes()


def _number(maps: AttentionMaps, layer: int) -> int:
    number = layer + maps.num_layers if layer < 0 else layer
    if number not in maps.layers:
        raise ValueError(
            f'layer {layer} is not stored; choose from {_listed(sorted(maps.layers))}, '
            'or -1 for the last'
        )
    return number


def _listed(numbers: Sequence[int]) -> str:
    return ', '.join(map(str, numbers))


def _size(layer: dict[str, Any]) -> int:
    return sum(len(part) for part in layer.values() if isinstance(part, str))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode('ascii')
