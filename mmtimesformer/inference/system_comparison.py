"""Compare three ways to classify the same video with the same weights, and explain differences.

They are this package, transformers' pipeline, and the protocol of the official TimeSformer code.
``tools/analysis_tools/compare_systems.py`` prints the table.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmaction.registry import MODELS
from mmengine.registry import DefaultScope

from mmtimesformer.checkpoints.download import fetch, import_extra, model_address
from mmtimesformer.checkpoints.image_processor import RESAMPLES
from mmtimesformer.checkpoints.readers import FOLDER_FILES, read_file
from mmtimesformer.datasets import Video
from mmtimesformer.heads import FUSIONS
from mmtimesformer.inference.batches import collate
from mmtimesformer.inference.classifier import VideoClassifier
from mmtimesformer.inference.huggingface import is_hub_folder
from mmtimesformer.inference.inference_config import protocol_config
from mmtimesformer.inference.inputs import open_video, videos_of
from mmtimesformer.inference.views import Views

PACKAGE, THEIRS, OFFICIAL = 'mmtimesformer', "transformers' pipeline", 'official protocol'
NOTHING = '–'
PROPERTIES = ('frames', 'resize', 'crop', 'mean', 'std', 'colours', 'fusion')


@dataclass
class System:
    """How one system classifies a video.

    Attributes:
        name: Of the system.
        frames: Numbers of the frames, clip by clip.
        resize: In words, as ``crop``.
        crop: Which part of the frames.
        mean: Of each channel, of pixels from 0 to 1, as ``std``.
        std: Standard deviation.
        colours: ``'RGB'`` or ``'BGR'``.
        fusion: How the scores of several views become one.
        logits: Of each class, the mean over views.
        views: Number of views.
        notes: What is remarkable.
        error: Why the system gives no scores for this video; the other values are empty then.
    """

    name: str
    frames: list[int]
    resize: str
    crop: str
    mean: list[float]
    std: list[float]
    colours: str
    fusion: str
    logits: list[float]
    views: int
    notes: list[str] = field(default_factory=list)
    error: str | None = None

    @classmethod
    def failed(cls, name: str, error: str) -> 'System':
        """Return a system that gives no scores for this video."""
        return cls(name, [], '', '', [], [], '', '', [], 0, [], error)

    def shown(self, name: str) -> str:
        """Return a property as text for a cell of the table; the first cell shows an error."""
        if self.error is not None:
            return self.error if name == PROPERTIES[0] else NOTHING
        value = getattr(self, name)
        if isinstance(value, list):
            return ' '.join(f'{x:g}' for x in value)
        return str(value)

    def logit(self, i: int) -> str:
        """Return the logit of a class as text for a cell of the table."""
        return f'{self.logits[i]:.4f}' if self.logits else NOTHING

    def best(self, classes: Sequence[str]) -> str:
        """Return the name of the best class as text for a cell of the table."""
        return classes[int(np.argmax(self.logits))] if self.logits else NOTHING


@dataclass
class Comparison:
    """The systems, and where each differs from this package, with the reason."""

    video: str
    checkpoint: str
    classes: list[str]
    systems: list[System]
    differences: list[str]

    def rows(self, topk: int = 5) -> list[list[str]]:
        """Return the table: a row for each property, and for the logits of the best classes."""
        rows = [['', *(one.name for one in self.systems)]]
        rows += [[name, *(one.shown(name) for one in self.systems)] for name in PROPERTIES]
        best = np.argsort(self.systems[0].logits)[::-1][:topk]
        for i in best:
            rows.append([f'logit of {self.classes[i]}', *(one.logit(i) for one in self.systems)])
        rows.append(['best class', *(one.best(self.classes) for one in self.systems)])
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def compare_systems(
    video: str | os.PathLike[str], checkpoint: str | os.PathLike[str], device: str | None = None
) -> Comparison:
    """Classify a video by three systems with the same weights.

    Where transformers' pipeline fails, as on a video with fewer frames than a clip, its column has
    the reason, and the other two are complete.

    Args:
        video: A file.
        checkpoint: A Hugging Face folder or repository, or any checkpoint that needs no config;
            transformers then gets the folder that :meth:`VideoClassifier.save_pretrained` writes.
        device: Where this package's model computes, as for ``VideoClassifier``.

    Raises:
        FileNotFoundError: The video or the checkpoint does not exist.
        ValueError: transformers is not installed, or the checkpoint is not enough by itself.
    """
    transformers = import_extra('transformers', 'a comparison with its pipeline')
    import_extra('av', 'a comparison with the pipeline of transformers')
    opened = open_video(video)
    classifier = VideoClassifier.from_pretrained(model_address(checkpoint), device=device)
    ours = _ours(classifier, opened)
    with _folder_of(classifier, checkpoint) as folder:
        theirs = _of_pipeline(transformers, folder, opened)
    official = _official(classifier, opened)
    names = classifier.classes or [str(i) for i in range(classifier.num_classes)]
    return Comparison(
        str(video),
        str(checkpoint),
        names,
        [ours, theirs, official],
        [*_differences(ours, theirs), *_differences(ours, official)],
    )


def _ours(classifier: VideoClassifier, video: Video) -> System:
    config = classifier.inference_config
    fusion = config.model['cls_head'].get('average_clips') or 'prob'
    return _run(
        PACKAGE,
        classifier,
        video,
        config.pipeline,
        config.model['data_preprocessor'],
        FUSIONS[fusion],
    )


def _official(classifier: VideoClassifier, video: Video) -> System:
    """Run the official protocol: that of Something-Something for models of it, else Kinetics'."""
    segments = any('Segment' in str(step['type']) for step in classifier.inference_config.pipeline)
    backbone = classifier.inference_config.model['backbone']
    frames = backbone.get('num_frames', 8)
    interval = next(
        (
            step['frame_interval']
            for step in classifier.inference_config.pipeline
            if step.get('frame_interval')
        ),
        32,
    )
    side = min(n * classifier.model.backbone.patch_size for n in classifier.model.backbone.grid)
    name = 'ssv2_official' if segments else 'kinetics_official'
    pipeline, preprocessor, fusion = protocol_config(name, frames, interval, side)
    return _run(OFFICIAL, classifier, video, pipeline, preprocessor, FUSIONS[fusion])


def _run(
    name: str,
    classifier: VideoClassifier,
    video: Video,
    pipeline: Sequence[Mapping[str, Any]],
    preprocessor: Mapping[str, Any],
    fusion: str,
) -> System:
    """Classify a video by the steps of a config."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        views = Views(pipeline)
        normalise = MODELS.build(dict(preprocessor)).to(classifier.device)
    chosen = views.choose(len(video), video.fps)
    (given,) = videos_of(str(video.path), views.form)
    clips = normalise(collate([views.of(given)]), False)['inputs'][0]
    with torch.inference_mode():
        features = classifier.model.backbone(clips)
        logits = classifier.model.cls_head(features).float().cpu()
    mean, std = (list(map(float, preprocessor[key])) for key in ('mean', 'std'))
    return System(
        name,
        [int(i) for i in np.asarray(chosen['frame_inds']).reshape(-1)],
        *_geometry(pipeline),
        [round(x / 255, 6) for x in mean],
        [round(x / 255, 6) for x in std],
        'BGR' if preprocessor.get('to_rgb') else 'RGB',
        fusion if len(clips) > 1 else 'one view',
        logits.mean(0).tolist(),
        len(clips),
    )


def _geometry(pipeline: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the resize and the crop of a pipeline, in words."""
    resize, crop = 'none', 'none'
    for step in pipeline:
        kind = str(step['type']).rpartition('.')[2]
        if kind == 'ProcessorResize':
            resize = f'{_side(step["size"])}, 8-bit, {step.get("resample", "bilinear")}, antialias'
        elif kind == 'ShortSideResize':
            resize = f'{_side(step["size"])}, float, bilinear'
        elif kind == 'Resize':
            resize = f'{_side(max(step["scale"]))}, 8-bit, bilinear'
        elif kind in ('ProcessorCrop', 'CenterCrop'):
            crop = f'centre {_pixels(step.get("size", step.get("crop_size")))}'
        elif kind in ('UniformCrops', 'ThreeCrop'):
            count = step.get('num_crops', 3)
            crop = f'{count} along the long side, {_pixels(step["crop_size"])}'
    return resize, crop


def _side(size: Any) -> str:
    return f'short side {size}' if isinstance(size, int) else _pixels(size)


def _pixels(size: Any) -> str:
    height, width = (size, size) if isinstance(size, int) else size
    return f'{height} x {width}'


@contextmanager
def _folder_of(classifier: VideoClassifier, checkpoint: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a folder that transformers loads: the checkpoint itself, or a copy in its format."""
    path = fetch(model_address(checkpoint))
    path = path.parent if path.name in FOLDER_FILES else path
    if path.is_dir() and is_hub_folder(read_file(path).extras):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        classifier.save_pretrained(folder)
        yield Path(folder)


def _of_pipeline(transformers: Any, folder: Path, video: Video) -> System:
    """Run the pipeline of transformers, and find which frames of the video it took."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    notes: list[str] = []
    try:
        pipeline = transformers.pipeline('video-classification', model=str(folder), device='cpu')
        with torch.inference_mode():
            pixels = pipeline.preprocess(str(video.path))['pixel_values']
            notes = _short_clip(pixels, pipeline.model.config.num_frames)
            logits = pipeline.model(pixel_values=pixels).logits.float()
    except Exception as error:  # of many libraries
        reason = f'{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}'
        return System.failed(THEIRS, f'fails ({"; ".join([*notes, reason])})')
    processor = pipeline.video_processor or pipeline.image_processor
    if len(logits) > 1:
        notes.append(
            f'its model returns {len(logits)} rows of logits, one a frame, for one video; the '
            'pipeline takes the first row, which is that of frame 0 alone'
        )
    frames = _frames_of(processor, video, pixels[0].float())
    if not frames:
        notes.append('the frames were not found: its decoder gives other pixels')
    return System(
        THEIRS,
        frames,
        _resize_of(processor),
        _centre(processor.crop_size) if processor.do_center_crop else 'none',
        *_mean_and_std(processor),
        'RGB',
        'one view',
        logits[0].tolist(),
        1,
        notes,
    )


def _short_clip(pixels: torch.Tensor, frames: int) -> list[str]:
    """Note a clip with fewer frames than the model was made for."""
    taken = pixels.shape[1]
    if taken == frames:
        return []
    return [f'its clip has {taken} of {frames} frames, since the video is shorter than a clip']


def _resize_of(processor: Any) -> str:
    """Return the resize of a processor in words, as :func:`_geometry` does for a pipeline."""
    if not processor.do_resize:
        return 'none'
    size = processor.size
    side = size.get('shortest_edge') or (size['height'], size['width'])
    return f'{_side(side)}, 8-bit, {_interpolation(processor.resample)}, antialias'


def _mean_and_std(processor: Any) -> tuple[list[float], list[float]]:
    """Return the mean and std that a processor applies, of pixels from 0 to 1.

    It multiplies pixels from 0 to 255 by ``rescale_factor`` (by 1 without ``do_rescale``), then
    normalizes them: (255 f x - mean) / std = (x - mean / 255 f) / (std / 255 f).
    """
    unit = 255 * (processor.rescale_factor if processor.do_rescale else 1)
    mean, std = ([0.0] * 3, [1.0] * 3)
    if processor.do_normalize:
        mean, std = list(processor.image_mean), list(processor.image_std)
    return [round(x / unit, 6) for x in mean], [round(x / unit, 6) for x in std]


def _centre(crop: Mapping[str, Any]) -> str:
    return f'centre {_pixels((crop["height"], crop["width"]))}'


def _interpolation(resample: Any) -> str:
    return RESAMPLES.get(int(resample), str(resample)) if resample is not None else 'bilinear'


def _frames_of(processor: Any, video: Video, pixels: torch.Tensor) -> list[int]:
    """Return the numbers of the frames whose pixels a processor gave; none if they differ."""
    count, total = len(pixels), len(video)
    evenly = [int(i) for i in np.arange(0, total, total / count)][:count]
    for numbers in (list(range(count)), evenly):
        if max(numbers) >= total:
            continue
        taken = [np.asarray(frame) for frame in video.frames(numbers)]
        made = processor(taken, return_tensors='pt')['pixel_values'][0]
        if made.shape == pixels.shape and torch.allclose(made, pixels, atol=0.1):
            return numbers
    return []


REASONS = {
    (THEIRS, 'frames'): (
        'with an image processor the pipeline takes the first frames of the video, one after the '
        'other, whatever the model was trained on; with a video processor (torchvision) it spreads '
        'them over the whole video'
    ),
    (THEIRS, 'crop'): 'transformers has one centre crop; a test here may have several',
    (THEIRS, 'resize'): 'the resize of the config that the folder was saved with is another',
    (THEIRS, 'mean'): 'the processor of the folder states other values',
    (THEIRS, 'std'): 'the processor of the folder states other values',
    (THEIRS, 'colours'): 'transformers always gives RGB; these weights were trained on BGR',
    (THEIRS, 'fusion'): 'transformers runs one view',
    (OFFICIAL, 'frames'): (
        'the official code spreads the frames over its window, from frame 0 to the last'
    ),
    (OFFICIAL, 'crop'): 'the official test averages three crops along the long side',
    (OFFICIAL, 'resize'): (
        'the official code resizes floating-point pixels without antialiasing, to a short side of '
        'the crop'
    ),
    (OFFICIAL, 'mean'): 'the official models were trained with mean 0.45; this checkpoint states '
    'another',
    (OFFICIAL, 'std'): 'the official models were trained with std 0.225; this checkpoint states '
    'another',
    (OFFICIAL, 'colours'): 'the official models of Something-Something take BGR, of Kinetics RGB',
    (OFFICIAL, 'fusion'): 'the official code sums the logits of its views',
}


def _differences(ours: System, other: System) -> list[str]:
    """List where a system differs from this package, and why."""
    if other.error is not None:
        return [f'{other.name}: {other.error}']
    found = [
        f'{other.name}, {name}: {other.shown(name) or "not found"}, here {ours.shown(name)}: '
        f'{REASONS[other.name, name]}'
        for name in PROPERTIES
        if not _same(getattr(ours, name), getattr(other, name))
    ]
    gap = max(abs(a - b) for a, b in zip(ours.logits, other.logits, strict=True))
    found.append(f'{other.name}, logits: the largest difference is {gap:.4g}')
    return [*found, *(f'{other.name}: {note}' for note in other.notes)]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(abs(x - y) < 1e-5 for x, y in zip(a, b, strict=True))
    return bool(a == b)
