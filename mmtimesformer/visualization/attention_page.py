"""One HTML file in which a clip's attention can be walked through: no server, no other files.

The weights ride inside. Each row of weights (all that one token looks at) is stored as 8-bit codes
beside its largest weight: ``weight = largest * (code / 255) ** 2``. The square spends more codes on
small weights, of which there are many; the error is at most 0.4 % of the row's largest weight. Rows
are compressed with zlib, which every browser since 2023 undoes by itself.
"""

import base64
import json
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

TEMPLATE = Path(__file__).with_name('attention_page.html')
LARGEST_MAP = 2**26  # weights of one head in one layer; more no browser should be asked to hold
MEGABYTES = 24.0


@dataclass
class PageReport:
    """What became of a page.

    Attributes:
        path: The file.
        size: In bytes.
        layers: Those in it, numbered from 0.
        with_heads: Those of them whose every head is in it; of the others only the mean.
    """

    path: Path
    size: int
    layers: list[int]
    with_heads: list[int]

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
    sight: AttentionView,
    path: str | Path,
    layers: Sequence[int] | None = None,
    megabytes: float = MEGABYTES,
    method: str = 'rollout',
    layer: int = -1,
    head: int | None = None,
) -> PageReport:
    """Write the page of a clip.

    Where not all weights fit, the mean over heads of every layer comes first, from the last layer
    to the first, then the single heads of as many layers as there is room for, likewise.

    Args:
        sight: The clip and its attention.
        path: The file.
        layers: Which layers may be in it; all that were kept, if not given.
        megabytes: Size that the weights may have in the file; the last layer is always there.
        method: What the page shows first.
        layer: Which layer the page opens with.
        head: Which head; the mean, if not given.

    Raises:
        ValueError: The maps are too large for any page, or there is no such layer.
    """
    maps = sight.maps
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
        'title': safe_text(Path(sight.prediction.video).name),
        'model': describe(maps),
        'scheme': maps.attention_type,
        't': t,
        'h': h,
        'w': w,
        'size': list(sight.frames.shape[1:3]),
        'seconds': None if sight.seconds is None else np.round(sight.seconds, 3).tolist(),
        'said': [
            {'name': safe_text(label, LONGEST_NAME), 'score': sight.prediction.shown(rank)}
            for rank, label in enumerate(sight.prediction.labels[:3])
        ],
        'frames': [_jpeg(frame) for frame in sight.frames],
        'colors': _text(_color_table()),
        'summaries': _summaries(sight),
        'method': method,
        'layers': [packed[number] for number in shown],
        'layer': shown.index(opened) if opened in shown else len(shown) - 1,
        'head': head,
        'numLayers': maps.num_layers,
    }
    text = json.dumps(data, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')
    page = TEMPLATE.read_text(encoding='utf-8').replace('/*DATA*/null', text, 1)
    path = Path(path)
    write_text_atomically(path, page)
    return PageReport(path, path.stat().st_size, shown, with_heads)


def encode(weights: np.ndarray) -> bytes:
    """Store rows of weights as 8-bit codes: all the rows' largest weights, then all the codes.

    Shape:
        - weights: ``... n``, not negative
    """
    rows = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]), dtype='<f4')
    largest = rows.max(axis=1, keepdims=True)
    shares = rows / np.maximum(largest, np.finfo('f4').tiny)
    codes = np.sqrt(shares, out=shares)
    codes *= 255
    return largest.tobytes() + np.rint(codes).astype(np.uint8).tobytes()


def decode(data: bytes, row: int) -> np.ndarray:
    """Return the rows that :func:`encode` stored, as the page does.

    Shape:
        - weights: ``rows n`` with ``n = row``
    """
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
        # Heads are less alike than their means and compress less: skip where they surely will not
        # fit, before the work is done.
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


def _summaries(sight: AttentionView) -> dict[str, dict[str, Any]]:
    """Return the maps of the whole model that the page shows in a strip: of each way to tell."""
    found = {}
    for method, meaning in METHODS.items():
        kept = len(sight.maps.layers) == sight.maps.num_layers
        if (method == 'gradient' and sight.maps.score is None) or (method != 'last' and not kept):
            continue
        if method == 'last':
            meaning = 'what the class token looks at in the last layer, the mean of its heads'
        if method == 'gradient':
            meaning = (
                f'attention that spoke for “{safe_text(sight.name, LONGEST_NAME)}”, by its gradient'
            )
        heat = sight.heat(method, max(sight.maps.layers) if method == 'last' else -1)
        codes = np.rint(255 * heat / (heat.max() or 1)).astype(np.uint8)
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
            f'layer {layer} is not there; choose from {_listed(sorted(maps.layers))}, '
            'or -1 for the last'
        )
    return number


def _listed(numbers: Sequence[int]) -> str:
    return ', '.join(map(str, numbers))


def _size(layer: dict[str, Any]) -> int:
    return sum(len(part) for part in layer.values() if isinstance(part, str))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode('ascii')
