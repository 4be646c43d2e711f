"""Compute attention maps of a video, and draw them over its frames."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from mmtimesformer.cli import near_name
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.fileio.atomic import write_atomically
from mmtimesformer.inference import Prediction, VideoClassifier
from mmtimesformer.inference.inputs import is_many
from mmtimesformer.models import AttentionMaps
from mmtimesformer.non_finite import NonFiniteError
from mmtimesformer.terminal import safe_text
from mmtimesformer.visualization.figures import GREY, picture, shown_name

METHODS = {
    'rollout': 'attention rollout of the class token, through all layers',
    'last': 'attention of the class token in one layer',
    'gradient': 'gradient relevance for the label',
}
COLORS = 'inferno'
SHORT = 4096  # tokens; 8 frames of 224 x 224 pixels have 1,569, 96 have 18,817


@dataclass
class AttentionView:
    """The frames, the attention maps and the prediction of a clip.

    Attributes:
        frames: The input of the model, ``t H W 3`` of uint8.
        seconds: Time of each frame in the video; ``None`` if not known.
        maps: The attention.
        prediction: Of the whole video, all views fused.
        label: Index of the class of the gradients.
        name: Of that class.
    """

    frames: np.ndarray
    seconds: np.ndarray | None
    maps: AttentionMaps
    prediction: Prediction
    label: int
    name: str

    def heatmap(
        self, method: str = 'rollout', layer: int = -1, head: int | None = None
    ) -> np.ndarray:
        """Return the attention to, or the relevance of, each patch: ``t h w``, 0 or more.

        Args:
            method: One of :data:`METHODS`.
            layer: For ``'last'``; -1 is the last layer.
            head: For ``'last'``; the mean of all heads if not given.

        Raises:
            NonFiniteError: A value is NaN or infinite.
            ValueError: There is no such method, layer or head.
        """
        if method == 'rollout':
            heatmap = self.maps.rollout()
        elif method == 'gradient':
            heatmap = self.maps.relevance()
        elif method == 'last':
            heads = self.maps.from_class(layer)
            check_head(head, heads.shape[1])
            heatmap = heads.mean(1) if head is None else heads[:, head]
        else:
            raise ValueError(f'method={method!r} is not one of {", ".join(METHODS)}; choose one')
        if not bool(heatmap.isfinite().all()):
            raise NonFiniteError(
                f'the attention map of {self.prediction.video} by the method {method!r} holds NaN '
                'or infinite values; choose another method, or give a checkpoint from before the '
                'training diverged'
            )
        return heatmap[0].float().cpu().numpy()


def compute_attention(
    classifier: VideoClassifier,
    video: str | os.PathLike[str],
    label: int | str | None = None,
    view: int | None = None,
    layers: Sequence[int] | None = None,
    gradients: bool | None = None,
    fps: float | None = None,
) -> AttentionView:
    """Classify a video, and compute the attention maps of one of its views.

    Args:
        classifier: The model.
        video: A file, or a folder of frames.
        label: Class of the gradients, a name or an index; the best class if not given.
        view: Index of the crop or clip, of those of the config's test; the middle one if not given.
        layers: Layers to keep; all if not given.
        gradients: Compute what ``'gradient'`` needs, with the memory of a training step; if not
            given, for clips of at most :data:`SHORT` tokens.
        fps: Frames per second of a folder of frames.

    Raises:
        ValueError: The video cannot be read, or there is no such class or view.
    """
    if is_many(video):
        raise ValueError(f'{video} is a folder; give one video')
    classifier.need_exact('attention maps')
    prediction = classifier(video, topk=5, fps=fps)
    number = prediction.indices[0] if label is None else find_class(classifier, label)
    pixels: Tensor = classifier.views.of_file(Path(video), fps)['inputs']  # views c t H W
    view = _check_view(view, len(pixels))
    clip = classifier.clips(video, fps)[view : view + 1]

    patch = classifier.model.backbone.patch_size
    tokens = clip.shape[2] * (clip.shape[3] // patch) * (clip.shape[4] // patch)
    if gradients is None:
        gradients = tokens <= SHORT

    def score(cls: Tensor) -> Tensor:
        logits: Tensor = classifier.model.cls_head(cls)
        return logits[:, number]

    maps = classifier.model.backbone.attention_maps(clip, layers, score if gradients else None)
    frames = np.ascontiguousarray(pixels[view].permute(1, 2, 3, 0).numpy())
    seconds = _seconds(classifier, Path(video), view, len(frames), fps)
    name = classifier.classes[number] if classifier.classes else str(number)
    return AttentionView(frames, seconds, maps, prediction, number, name)


def check_head(head: int | None, heads: int) -> None:
    """Raise ``ValueError`` if there is no such head; ``None`` is the mean of all."""
    if head is not None and not 0 <= head < heads:
        raise ValueError(
            f'head {head} is not one of {heads}; choose from 0 to {heads - 1}, or leave --head out '
            'for their mean'
        )


def find_class(classifier: VideoClassifier, label: int | str) -> int:
    """Return the index of a class, given its index or its name.

    Raises:
        ValueError: There is no such class; the message lists the nearest names.
    """
    names = classifier.classes or []
    if label in names:
        return names.index(str(label))
    if str(label).isdecimal() and int(label) < classifier.num_classes:
        return int(label)
    raise ValueError(
        f'there is no class {label}; give a name, or a number from 0 to '
        f'{classifier.num_classes - 1}' + near_name(str(label), names, 0.3, 3)
    )


def overlay(frames: np.ndarray, heatmap: np.ndarray, peak: float | None = None) -> np.ndarray:
    """Draw a heatmap over frames: patches with a low value are dark, with a high value bright.

    Args:
        frames: ``t H W 3`` of uint8, as the result.
        heatmap: ``t h w``, with one scale, so that frames can be compared.
        peak: The value drawn brightest; the largest if not given.
    """
    import cv2

    height, width = frames.shape[1:3]
    peak = peak or float(heatmap.max()) or 1.0
    drawn = []
    for frame, cells in zip(frames, heatmap, strict=True):
        glow = cv2.resize(
            (cells / peak).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        glow = glow.clip(0, 1)[..., None]
        dark = 0.45 * frame
        colors = 255 * colormaps[COLORS](0.3 + 0.7 * glow[..., 0])[..., :3]
        lit = 0.6 * frame + 0.55 * colors
        drawn.append(dark + (lit - dark) * glow**0.8)
    return np.stack(drawn).round().clip(0, 255).astype(np.uint8)


def draw_attention(
    frames: np.ndarray,
    rows: dict[str, np.ndarray],
    path: str | Path,
    title: str = '',
    seconds: np.ndarray | None = None,
    columns: int = 8,
) -> None:
    """Draw frames, and below them a row of overlays for each heatmap, as a PNG.

    Args:
        frames: ``t H W 3`` of uint8.
        rows: Name and heatmap (``t h w``) of each row of overlays.
        path: The picture.
        title: Stands above the frames.
        seconds: Time of each frame, which stands above it.
        columns: Evenly spaced frames of a row, at most.
    """
    height, width = frames.shape[1:3]
    count = min(columns, len(frames))
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    large = [enlarge(frames)[chosen]]
    large += [overlay(enlarge(frames), heatmap)[chosen] for heatmap in rows.values()]
    side = 1.35
    top = 0.34 if title else 0.0  # inches
    size = 1.0 + side * count, 0.3 + top + len(large) * side * height / width
    grid_of = {'nrows': len(large), 'ncols': count, 'squeeze': False}
    with picture(path, *size, gap=0.015, **grid_of) as (figure, grid):
        for axes_row, pictures, name in zip(grid, large, ['frames', *rows], strict=True):
            for axes, one in zip(axes_row, pictures, strict=True):
                axes.imshow(one, interpolation='nearest', aspect='auto')
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
            name = shown_name(name)
            axes_row[0].set_ylabel(name, rotation=0, ha='right', va='center', labelpad=8)
        for axes, number in zip(grid[0], chosen, strict=True):
            when = f'frame {number}' if seconds is None else f'{seconds[number]:.2f} s'
            axes.set_title(when, fontsize=8, color=GREY, loc='center', pad=4)
        if title:
            layout = figure.get_layout_engine()
            assert isinstance(layout, ConstrainedLayoutEngine)
            layout.set(rect=(0, 0, 1, 1 - top / size[1]))
            title = safe_text(title, round(10 * size[0]))
            figure.text(0.008, 1 - 0.1 / size[1], title, va='top', fontsize=11)


def write_attention_video(
    frames: np.ndarray, heatmap: np.ndarray, path: str | Path, seconds: np.ndarray | None = None
) -> None:
    """Write an mp4: frames on the left, overlays on the right.

    Each frame is shown until the time of the next one, so the clip plays at its own speed; where
    the times are not known, for a quarter of a second.

    Args:
        frames: ``t H W 3`` of uint8.
        heatmap: ``t h w``.
        path: The video.
        seconds: Time of each frame in the video.
    """
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = enlarge(frames)
    pair = np.concatenate([frames, overlay(frames, heatmap)], axis=2)
    pair = pair[:, : pair.shape[1] // 2 * 2, : pair.shape[2] // 2 * 2]  # yuv420p wants even sides
    rate = 24
    steps = np.full(len(frames), 0.25)
    if seconds is not None and len(frames) > 1 and (np.diff(seconds) > 0).all():
        steps = np.append(np.diff(seconds), np.diff(seconds)[-1])
    with write_atomically(path) as partial, av.open(str(partial), 'w', 'mp4') as container:
        stream = container.add_stream('libx264', rate=Fraction(rate), options={'crf': '18'})
        stream.height, stream.width = pair.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        ends = (np.cumsum(steps) * rate).round().astype(int)
        for one, start, end in zip(pair, [0, *ends[:-1]], ends, strict=True):
            for _ in range(max(1, end - start)):
                shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(one), format='rgb24')
                container.mux(stream.encode(shown))
        container.mux(stream.encode())


def enlarge(frames: np.ndarray, side: int = 224) -> np.ndarray:
    """Scale small frames up by a whole number, so that their short side is near ``side`` pixels."""
    times = max(1, round(side / min(frames.shape[1:3])))
    return frames.repeat(times, axis=1).repeat(times, axis=2)


def describe(maps: AttentionMaps) -> str:
    """Describe a model in one line: attention, layers, heads, frames and patches."""
    t, h, w = maps.grid
    scheme = {
        'divided_space_time': 'divided space-time attention',
        'joint_space_time': 'joint space-time attention',
        'space_only': 'space-only attention',
    }[maps.attention_type]
    heads = next(iter(maps.layers.values())).space.attention.num_heads  # type: ignore[union-attr]
    layers = f'{maps.num_layers} layer{"s" * (maps.num_layers > 1)}'
    return f'{scheme}, {layers} of {heads} heads, {t} frames of {h} × {w} patches'


def _check_view(view: int | None, views: int) -> int:
    if view is None:
        return views // 2
    if not 0 <= view < views:
        raise ValueError(
            f'view {view} is not one of {views}; choose from 0 to {views - 1}, or leave --view out '
            'for the middle one'
        )
    return view


def _seconds(
    classifier: VideoClassifier, path: Path, view: int, count: int, fps: float | None
) -> np.ndarray | None:
    """Return the times of a view's frames; ``None`` if the config's sampling takes many clips."""
    video = Video(path, fps=fps)
    if not video.fps:
        return None
    chosen: dict[str, Any] = classifier.views.choose(len(video), video.fps)
    numbers = np.asarray(chosen['frame_inds']).reshape(-1, count)
    return numbers[min(view, len(numbers) - 1)] / video.fps if len(numbers) == 1 else None
