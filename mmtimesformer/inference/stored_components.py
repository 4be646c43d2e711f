"""Allowlist of components, and limits of numbers, for a config stored in a checkpoint.

A checkpoint from elsewhere is not trusted. MMAction2 registers components that create folders, load
other files or models, and steps that read a complete video at once; a stored config may name only
those that a test of TimeSformer needs. Components that users registered are allowed.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmtimesformer.fileio.safe_pickle import shown

LIBRARIES = ('mmaction', 'mmcv', 'mmengine', 'torch')
PARTS = {  # of these libraries, in a model
    'Recognizer3D', 'ActionDataPreprocessor', 'TimeSformerHead', 'I3DHead', 'CrossEntropyLoss',
    'BCELossWithLogits', 'CBFocalLoss', 'NLLLoss', 'MixupBlending', 'CutmixBlending',
    'RandomBatchAugment', 'LN', 'GELU', 'ReLU', 'Dropout', 'DropPath',
}  # fmt: skip
STEPS = {  # and in a pipeline
    'SampleFrames', 'UniformSample', 'UniformSampleFrames', 'DenseSampleFrames', 'PyAVInit',
    'PyAVDecode', 'DecordInit', 'DecordDecode', 'OpenCVInit', 'OpenCVDecode', 'Resize',
    'RandomRescale', 'RandomCrop', 'RandomResizedCrop', 'MultiScaleCrop', 'CenterCrop', 'ThreeCrop',
    'TenCrop', 'Flip', 'ColorJitter', 'FormatShape', 'PackActionInputs',
}  # fmt: skip
COUNTS = (
    'clip_len', 'num_clips', 'num_segments', 'num_sample_positions', 'clips_per_video',
    'frame_interval', 'sample_range', 'num_crops', 'num_threads',
)  # fmt: skip
SIZES = ('crop_size', 'size', 'input_size')
MOST_THREADS = 64


def is_allowed(kind: Any, registries: Mapping[str, Any], allowed: Iterable[str]) -> bool:
    """Whether a stored config may name a part: a registered one, if of a library an allowed one.

    The registries are given by scope.
    """
    if not isinstance(kind, str):
        return False
    scope, _, name = kind.rpartition('.')
    if scope and scope not in registries:
        return False
    scopes = (scope,) if scope else tuple(registries)
    found = [registries[s].module_dict[name] for s in scopes if name in registries[s].module_dict]
    return bool(found) and all(
        name in allowed or part.__module__.partition('.')[0] not in LIBRARIES for part in found
    )


def check_form(config: Mapping[str, Any]) -> None:
    """Check that the parts of a stored config are tables and lists where they must be.

    Raises:
        ValueError: One is not; the message begins with its key.
    """
    loader = config.get('test_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, dict) else None
    holder = dataset if isinstance(dataset, dict) else {}
    tables = {
        'test_dataloader': loader,
        'test_dataloader.dataset': dataset,
        'test_dataloader.dataset.metainfo': holder.get('metainfo'),
    }
    for key, value in tables.items():
        if value is not None and not isinstance(value, dict):
            raise ValueError(f'{key}={shown(value)}, and it must be a dict')
    for key, value in (
        ('test_dataloader.dataset.pipeline', holder.get('pipeline')),
        ('test_pipeline', config.get('test_pipeline')),
    ):
        is_list = isinstance(value, list | tuple) and all(isinstance(step, dict) for step in value)
        if value is not None and not is_list:
            raise ValueError(f'{key}={shown(value)}, and it must be a list of dicts')


def check_steps(pipeline: Iterable[Mapping[str, Any]]) -> None:
    """Check the numbers of clips, frames and pixels in the steps of a stored pipeline.

    Raises:
        ValueError: One is no whole number above 0; the message begins with its key.
    """
    for step in pipeline:
        for key in COUNTS:
            if key in step and not _is_count(step[key]):
                raise ValueError(f'{key}={shown(step[key])}, and it must be a whole number above 0')
        if step.get('num_threads', 1) > MOST_THREADS:
            raise ValueError(f'num_threads={step["num_threads"]}, and at most {MOST_THREADS}')
        for key in SIZES:
            value = step.get(key, 1)
            numbers = value if isinstance(value, list | tuple) else (value,)
            if not numbers or not all(map(_is_count, numbers)):
                raise ValueError(f'{key}={shown(value)}, and it must be pixels above 0')


def check_normalisation(preprocessor: Any, channels: Any) -> None:
    """Check the mean and the standard deviation of pixels in a stored config.

    Raises:
        ValueError: They are not numbers for each channel, or a deviation is 0; the message begins
            with the key.
    """
    for key in ('mean', 'std'):
        value = preprocessor.get(key) if isinstance(preprocessor, dict) else None
        if value is None:
            continue
        is_row = isinstance(value, list | tuple) and len(value) in (1, channels)
        if not is_row or not all(type(x) in (int, float) and abs(x) < 1e6 for x in value):
            raise ValueError(f'{key}={shown(value)}, and it must be a number for each channel')
        if key == 'std' and not all(x > 0 for x in value):
            raise ValueError('std with a value that is not above 0, by which pixels are divided')


def numbers_of(step: Mapping[str, Any], keys: Iterable[str]) -> Iterator[float]:
    """Give the numbers that a step has under some keys, also those in lists and tuples."""
    for key in keys:
        value = step.get(key)
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int | float):
                yield number


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0
