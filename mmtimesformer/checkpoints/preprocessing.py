"""Compare the preprocessing that a checkpoint states with a config's, and put it into the config.

A checkpoint states it in the config of its training, in the metadata of a conversion, or in the
files of a Hugging Face folder. What is known only from the system that weights come from is not
stated, and never changes a config.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmtimesformer.checkpoints.image_processor import ImageProcessor, find_processor
from mmtimesformer.checkpoints.metadata import (
    CROPS,
    RESIZES,
    SAMPLERS,
    ModelMetadata,
    Preprocessing,
    differences,
    find_metadata,
    metadata_of_config,
)

CHOICES = ('checkpoint', 'config')


@dataclass
class Stated:
    """The preprocessing that a checkpoint states.

    Attributes:
        metadata: Of the checkpoint.
        processor: Of a Hugging Face folder that another program wrote.
    """

    metadata: ModelMetadata
    processor: ImageProcessor | None = None

    @classmethod
    def by(cls, extras: Mapping[str, Any], source: str) -> 'Stated':
        """Read it from the other entries of a file or folder.

        Raises:
            ValueError: A file of a Hugging Face folder has a key or value that is not known.
        """
        metadata = replace(find_metadata(extras, {}), norm_eps=None)
        config = extras.get('config')
        is_folder = isinstance(config, Mapping) and config.get('model_type') == 'timesformer'
        processor = find_processor(extras, source) if is_folder else None
        return cls(metadata, None if is_own_folder(extras) else processor)

    def differences(self, config: Mapping[str, Any]) -> list[str]:
        """List where it and a config's differ, with both values."""
        found = differences(self.metadata, metadata_of_config(config))
        theirs = self.processor.resize if self.processor else None
        ours = short_side(pipeline_of(config))
        if isinstance(theirs, int) and ours is not None and theirs != ours:
            found.append(
                f'short side: the checkpoint was trained with {theirs}, the config gives {ours}'
            )
        return found

    def apply_to(self, model: MutableMapping[str, Any], pipeline: Sequence[Any]) -> list[Any]:
        """Put it into a config's data preprocessor, and return its test pipeline with it.

        Frames and size stay the config's where its model is built for others than the checkpoint
        was trained with: these were changed on purpose.

        Raises:
            ValueError: The config normalises in another way than by ``data_preprocessor``.
        """
        config = {'model': model, 'test_pipeline': pipeline}
        own = metadata_of_config(config)
        seen, had = self.metadata.preprocessing, own.preprocessing
        self._normalise(model, seen, had)
        steps = [dict(step) for step in pipeline]
        frames = seen.num_frames or self.metadata.num_frames
        if frames is None or own.num_frames in (None, frames):
            steps = [_sampled(step, seen, had) for step in steps]
        size = self.metadata.img_size
        if size is None or own.img_size in (None, size):
            steps = self._resized(steps, seen, had)
        return steps

    def _resized(
        self, steps: list[dict[str, Any]], seen: Preprocessing, had: Preprocessing
    ) -> list[dict[str, Any]]:
        if self.processor is not None and self.processor.resize is not None:
            resize = {
                'type': 'mmtimesformer.ProcessorResize',
                'size': self.processor.resize,
                'resample': self.processor.resample,
            }
            steps = [resize if kind_of(step) in RESIZES else _any_crop(step) for step in steps]
        if not isinstance(seen.size, int) or not isinstance(had.size, int):
            return steps
        return [_scaled(step, seen.size, had.size) for step in steps]

    @staticmethod
    def _normalise(
        model: MutableMapping[str, Any], seen: Preprocessing, had: Preprocessing
    ) -> None:
        given = model.get('data_preprocessor')
        if not isinstance(given, Mapping) or kind_of(given) != 'ActionDataPreprocessor':
            if seen.mean is None and seen.channel_order is None:
                return
            raise ValueError(
                'the config has no data_preprocessor of the type ActionDataPreprocessor, into '
                "which the checkpoint's mean and std could be put; add one, or take the config's "
                'preprocessing (--preprocessing config)'
            )
        changed = dict(given)
        for key in ('mean', 'std'):
            if (values := getattr(seen, key)) and not _close(values, getattr(had, key)):
                changed[key] = [255 * x for x in values]
        if seen.channel_order is not None:
            changed['to_rgb'] = seen.channel_order == 'BGR'
        model['data_preprocessor'] = changed


def is_own_folder(extras: Mapping[str, Any]) -> bool:
    """Whether this package wrote a Hugging Face folder, and nobody changed its preprocessing."""
    meta = extras.get('meta')
    written = meta.get('processor') if isinstance(meta, Mapping) else None
    return (
        written is not None
        and written == extras.get('preprocessor_config')
        and 'video_preprocessor_config' not in extras
    )


def kind_of(step: Mapping[str, Any]) -> str:
    """Return the name of a component without its scope."""
    return str(step.get('type', '')).rpartition('.')[2]


def pipeline_of(config: Mapping[str, Any]) -> Sequence[Any]:
    """Return the steps by which a config's model is tested."""
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    return dataset.get('pipeline') or config.get('test_pipeline') or ()


def short_side(pipeline: Sequence[Any]) -> int | None:
    """Return the pixels of the short side after the resize of a pipeline; None if not given."""
    for step in pipeline:
        key = {'Resize': 'scale', 'ShortSideResize': 'size', 'ProcessorResize': 'size'}.get(
            kind_of(step)
        )
        value = step.get(key) if key else None
        if isinstance(value, list | tuple) and len(value) == 2 and -1 in value:
            value = max(value)
        if isinstance(value, int):
            return value
    return None


def _sampled(step: dict[str, Any], seen: Preprocessing, had: Preprocessing) -> dict[str, Any]:
    """Return a sampler that takes the checkpoint's frames; other steps as they are."""
    if kind_of(step) not in SAMPLERS:
        return step
    frames = seen.num_frames or step.get('clip_len')
    if seen.sampling == 'segments' and had.sampling != 'segments':
        kind = 'mmtimesformer.SegmentSampleFrames'
        return {'type': kind, 'clip_len': frames, 'test_mode': True}
    if seen.frame_interval is not None and had.sampling == 'segments':
        return {
            'type': 'mmtimesformer.WindowSampleFrames',
            'clip_len': frames,
            'frame_interval': seen.frame_interval,
            'test_mode': True,
        }
    changed = {**step, 'clip_len': frames}
    if seen.frame_interval is not None and SAMPLERS[kind_of(step)] is not None:
        changed['frame_interval'] = seen.frame_interval
    return changed


def _scaled(step: dict[str, Any], size: int, before: int) -> dict[str, Any]:
    """Return a crop of another size, or a resize before it by the same factor."""
    kind = kind_of(step)
    if size == before:
        return step
    if kind in CROPS:
        return {**step, CROPS[kind]: (size, size) if kind == 'ProcessorCrop' else size}
    if kind in ('Resize', 'ShortSideResize'):
        key = 'scale' if kind == 'Resize' else 'size'
        value = step.get(key)
        numbers = list(value) if isinstance(value, list | tuple) else [value]
        whole = [n for n in numbers if isinstance(n, int)]
        if len(whole) == len(numbers):
            scaled = [n if n < 0 else round(n * size / before) for n in whole]
            return {**step, key: tuple(scaled) if isinstance(value, list | tuple) else scaled[0]}
    return step


def _any_crop(step: dict[str, Any]) -> dict[str, Any]:
    """Return a crop that takes frames of any size; ThreeCrop needs one side that fits."""
    if kind_of(step) != 'ThreeCrop':
        return step
    return {'type': 'mmtimesformer.UniformCrops', 'crop_size': step['crop_size']}


def _close(a: Sequence[float] | None, b: Sequence[float] | None) -> bool:
    if a is None or b is None or len(a) != len(b):
        return False
    return all(abs(x - y) < 1e-6 for x, y in zip(a, b, strict=True))
