"""Read how to run the model of a Hugging Face folder: preprocessing, frames and class names.

Everything comes from ``config.json`` and ``preprocessor_config.json``. What these files have no
place for, which frames of a video the model was trained on, follows from its data set
(:func:`sampling_of`), and is noted once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtimesformer.checkpoints.convert import Weights
from mmtimesformer.checkpoints.image_processor import (
    FILE,
    VIDEO_FILE,
    ImageProcessor,
    find_processor,
)
from mmtimesformer.checkpoints.metadata import Preprocessing
from mmtimesformer.checkpoints.preprocessing import is_own_folder
from mmtimesformer.class_names import DATA_SETS, class_names_of, stated_data_set
from mmtimesformer.fileio.safe_pickle import shown

#: Frames from one sampled frame to the next, by the number of frames of a clip: those of the
#: official models of Kinetics. For other numbers the clip covers 256 frames, as 8 x 32 and 16 x 16.
INTERVALS = {8: 32, 16: 16, 96: 4}
WINDOW = 256
#: Repositories of weights that were converted from the official ones of Something-Something V2.
#: These take BGR, which their files do not state.
BGR_REPOSITORIES = (
    'facebook/timesformer-base-finetuned-ssv2',
    'facebook/timesformer-hr-finetuned-ssv2',
)
STATE_IT = f'to state it, add "frame_interval": N or "sampling": "segments" to {FILE}'


@dataclass
class HubModel:
    """What the files of a Hugging Face folder state about running its model."""

    processor: ImageProcessor
    preprocessing: Preprocessing
    data_set: str | None
    multi_label: bool
    notes: list[str]

    def pipeline(self, frames: int) -> list[dict[str, Any]]:
        """Return the test pipeline: one clip of the video, and one crop, as the files state."""
        sampling = self.preprocessing
        if sampling.sampling == 'segments':
            sampler = {'type': 'mmtimesformer.SegmentSampleFrames', 'clip_len': frames}
        else:
            sampler = {
                'type': 'mmtimesformer.WindowSampleFrames',
                'clip_len': frames,
                'frame_interval': sampling.frame_interval,
                'num_clips': 1,
                'first': 'start',
                'target_fps': 30,
                'out_of_bound': 'clamp',
            }
        return [
            {'type': 'mmtimesformer.VideoInit'},
            {**sampler, 'test_mode': True},
            {'type': 'mmtimesformer.VideoDecode'},
            *pixel_steps(self.processor),
            {'type': 'mmtimesformer.FormatClips'},
            {'type': 'PackActionInputs'},
        ]


def pixel_steps(processor: ImageProcessor) -> list[dict[str, Any]]:
    """Return the steps that resize and crop frames as a processor does."""
    steps: list[dict[str, Any]] = []
    if processor.resize is not None:
        kind = 'mmtimesformer.ProcessorResize'
        steps.append({'type': kind, 'size': processor.resize, 'resample': processor.resample})
    if processor.crop is not None:
        steps.append({'type': 'mmtimesformer.ProcessorCrop', 'size': processor.crop})
    return steps


def is_hub_folder(extras: Mapping[str, object]) -> bool:
    """Whether weights came with the ``config.json`` of a TimeSformer of transformers."""
    config = extras.get('config')
    return isinstance(config, Mapping) and config.get('model_type') == 'timesformer'


def is_edited(extras: Mapping[str, Any]) -> bool:
    """Whether ``preprocessor_config.json`` is no longer as this package wrote it.

    Then the test pipeline that is stored with the weights is not that of the folder any more.
    """
    meta = extras.get('meta')
    stored = isinstance(meta, Mapping) and 'processor' in meta
    return is_hub_folder(extras) and stored and not is_own_folder(extras)


def read_hub_model(extras: Mapping[str, Any], weights: Weights, source: str) -> HubModel:
    """Read the files of a Hugging Face folder.

    Args:
        extras: The files, as :func:`~mmtimesformer.checkpoints.read_file` gives them.
        weights: The weights of the same folder.
        source: The folder or address, for messages and to find the data set.

    Raises:
        ValueError: A file is missing, or holds a key or value that is not known.
    """
    processor = find_processor(extras, source)
    if processor is None:
        raise ValueError(
            f'{source} has no {FILE}, so its mean, std and size are not known; add the file (from '
            'the folder that the model was fine-tuned from, if it was), or give a config too: '
            'VideoClassifier(config, checkpoint)'
        )
    _check_size(processor, weights, source)
    config = extras['config']
    _check_clip(extras, weights, source)
    _check_problem(config, source)
    check_labels(config, weights.describe().num_classes or 0, source)
    data_set = data_set_of(extras, weights, source)
    notes: list[str] = []
    preprocessing = sampling_of(weights, data_set, source, notes)
    preprocessing.mean, preprocessing.std = list(processor.mean), list(processor.std)
    multi_label = config.get('problem_type') == 'multi_label_classification'
    return HubModel(processor, preprocessing, data_set, multi_label, notes)


def sampling_of(
    weights: Weights, data_set: str | None, source: str, notes: list[str]
) -> Preprocessing:
    """Return which frames the model takes, and in which order of colours.

    Where the files do not state it: Something-Something V2, one frame of each segment of the video;
    any other data set, :data:`INTERVALS`. Each assumption is added to ``notes``.
    """
    found = Preprocessing().updated(weights.metadata.preprocessing)
    frames = weights.num_frames or found.num_frames or 8
    if found.sampling != 'segments' and found.frame_interval is None:
        if data_set == 'sthv2':
            found.sampling, text = 'segments', 'one frame of each segment of the video'
        else:
            interval = INTERVALS.get(frames, max(1, WINDOW // frames))
            found.frame_interval, text = interval, f'{frames} frames, {interval} apart at 30 fps'
        rule = f'of {data_set}' if data_set else 'of Kinetics; its data set is not known'
        notes.append(f'{source} has no frame_interval: {text} (the rule {rule}); {STATE_IT}')
    if found.channel_order is None:
        found.channel_order = 'RGB'
        if data_set == 'sthv2' and any(name in source for name in _spellings(BGR_REPOSITORIES)):
            found.channel_order = 'BGR'
            notes.append(f'{source} was converted from official weights, which take BGR')
        elif data_set == 'sthv2':
            notes.append(
                f'{source} has no channel_order: RGB. Weights converted from the official ones of '
                f'Something-Something V2 take BGR; then add "channel_order": "BGR" to {FILE}'
            )
    return found


def data_set_of(extras: Mapping[str, Any], weights: Weights, source: str) -> str | None:
    """Return the data set of a model, by its class names or by what its files and name state."""
    config, names = extras['config'], tuple(weights.metadata.classes or ())
    count = weights.describe().num_classes or 0
    for data_set, classes in DATA_SETS.items():
        if classes == count and names == class_names_of(data_set):
            return data_set
    texts = [config.get('dataset'), config.get('_name_or_path'), Path(source).name]
    return stated_data_set([text for text in texts if isinstance(text, str)], count)


def check_labels(config: Mapping[str, Any], num_classes: int, source: str) -> None:
    """Refuse labels that are not those of the classifier's rows, in their order.

    Raises:
        ValueError: The keys of ``id2label`` are not 0 to ``num_classes - 1``.
    """
    labels = config.get('id2label')
    if labels is None or not num_classes:
        return
    keys = {str(key) for key in labels} if isinstance(labels, Mapping) else set()
    if keys != {str(i) for i in range(num_classes)}:
        odd = next(iter(sorted(keys - {str(i) for i in range(num_classes)})), None)
        what = f'the key {odd[:40]!a}' if odd is not None else f'{len(keys)} keys'
        what = what if isinstance(labels, Mapping) else f'{shown(labels)} in place of keys'
        raise ValueError(
            f'config.json of {source} has an id2label with {what}, and the classifier has '
            f'{num_classes} classes: its keys must be 0 to {num_classes - 1}; correct it'
        )


def _check_problem(config: Mapping[str, Any], source: str) -> None:
    problem = config.get('problem_type')
    if problem not in (None, 'single_label_classification', 'multi_label_classification'):
        raise ValueError(
            f'config.json of {source} has problem_type={str(problem)[:40]!a}, and a classifier is '
            'single_label_classification or multi_label_classification; give the config of your '
            'model too: VideoClassifier(config, checkpoint)'
        )


def _check_size(processor: ImageProcessor, weights: Weights, source: str) -> None:
    """Refuse frames that are not whole patches, or whose size depends on the video."""
    size, patch = processor.size, weights.patch_size
    if size is None:
        raise ValueError(
            f'{FILE} of {source} neither crops nor resizes to one size, so frames have the size of '
            'the video; set do_center_crop and crop_size'
        )
    if size[0] % patch or size[1] % patch:
        raise ValueError(
            f'{FILE} of {source} gives frames of {size[0]} x {size[1]} pixels, which are not whole '
            f'patches of {patch}; correct crop_size or size'
        )


def _check_clip(extras: Mapping[str, Any], weights: Weights, source: str) -> None:
    """Refuse another number of channels or frames than a video, or the model, has."""
    channels = weights.tensors['patch_embed.proj.weight'].shape[1]
    if channels != 3:
        raise ValueError(
            f'the model of {source} takes {channels} channels, and the frames of a video have 3; '
            'give the config of your model too: VideoClassifier(config, checkpoint)'
        )
    for name in (FILE, VIDEO_FILE):
        given = (extras.get(name.removesuffix('.json')) or {}).get('num_frames')
        if given is not None and weights.num_frames is not None and given != weights.num_frames:
            raise ValueError(
                f'{name} of {source} has num_frames={given}, and its model takes '
                f'{weights.num_frames}; correct it'
            )


def _spellings(repositories: tuple[str, ...]) -> list[str]:
    """Return how a repository is written in an address, and as a folder of the hub's cache."""
    return [*repositories, *(f'models--{re.sub("/", "--", name)}' for name in repositories)]
