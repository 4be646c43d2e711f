"""Read ``preprocessor_config.json`` of a Hugging Face folder: how frames become pixel values.

Every key is honoured or refused. A key that changes pixels and is not known here is an error, since
with other pixels than in training a model loses accuracy without any sign of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmtimesformer.fileio.safe_pickle import shown

FILE = 'preprocessor_config.json'
VIDEO_FILE = 'video_preprocessor_config.json'
HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Mean and std that each class of transformers 5.23 uses where its file gives none. Both resize the
# short side to 224 pixels, crop 224 x 224 from the centre, and divide by 255.
CLASSES = {'VideoMAE': HALF, 'Timesformer': IMAGENET}
ENDINGS = ('FeatureExtractor', 'ImageProcessor', 'VideoProcessor', 'ImageProcessorFast',
           'ImageProcessorPil')  # fmt: skip
# PIL's numbers of its ways to interpolate.
RESAMPLES = {0: 'nearest', 1: 'lanczos', 2: 'bilinear', 3: 'bicubic', 4: 'box', 5: 'hamming'}
# Keys of this package: what a value must be, and whether it is.
EXTRA_KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    'channel_order': ('"RGB" or "BGR"', lambda value: value in ('RGB', 'BGR')),
    'frame_interval': ('a whole number from 1 on', lambda value: _is_count(value)),
    'num_frames': ('a whole number from 1 on', lambda value: _is_count(value)),
    'sampling': (
        '"segments" (leave it out for frames at an interval)',
        lambda value: value == 'segments',
    ),
}
# They name classes, or change the form of the output and no pixel of it.
HARMLESS = (
    'image_processor_type', 'feature_extractor_type', 'video_processor_type', 'processor_class',
    'do_convert_rgb', 'default_to_square', 'data_format', 'input_data_format', 'return_tensors',
    'return_metadata', 'device', 'disable_grouping', 'model_input_names', 'transformers_version',
    '_valid_processor_keys',
)  # fmt: skip
READ = (
    'do_resize', 'size', 'resample', 'do_center_crop', 'crop_size', 'do_rescale', 'rescale_factor',
    'do_normalize', 'image_mean', 'image_std',
)  # fmt: skip
LARGEST_SIDE = 65_536  # pixels
LARGEST_COUNT = 1_000_000  # frames


@dataclass(frozen=True)
class ImageProcessor:
    """How frames of RGB from 0 to 255 become the input of a model.

    Attributes:
        mean: Of each channel, of pixels from 0 to 1, with ``rescale_factor`` counted in.
        std: Likewise.
        resize: Pixels of the short side, ``(height, width)``, or ``None`` for frames as they are.
        resample: How a resize interpolates, by PIL's name.
        crop: ``(height, width)`` that is cut from the centre; ``None`` for none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | tuple[int, int] | None = 224
    resample: str = 'bilinear'
    crop: tuple[int, int] | None = (224, 224)

    @classmethod
    def parse(cls, values: Mapping[str, Any], source: str = FILE) -> 'ImageProcessor':
        """Read the values of the file.

        Raises:
            ValueError: The class of the processor or a key is not known, or a value is not valid.
        """
        mean, std = _defaults(values, source)
        for key, value in values.items():
            _check_key(key, value, source)
        if values.get('sampling') is not None and values.get('frame_interval') is not None:
            raise ValueError(
                f'{source} has sampling and frame_interval, which exclude each other; remove one'
            )
        factor = 1.0
        if _flag(values, 'do_rescale', source):
            factor = _number(values, 'rescale_factor', 1 / 255, source)
        if not _flag(values, 'do_normalize', source):
            mean, std = (0.0,) * 3, (1.0,) * 3
        else:
            mean = _per_channel(values, 'image_mean', mean, source)
            std = _per_channel(values, 'image_std', std, source)
        if min(std) <= 0 or factor <= 0:
            raise ValueError(
                f'{source} has image_std={shown(std)} and rescale_factor={factor:g}, and all must '
                'be above 0; correct them'
            )
        unit = 1.0 if abs(255 * factor - 1) < 1e-6 else 255 * factor
        return cls(
            mean=tuple(x / unit for x in mean),
            std=tuple(x / unit for x in std),
            resize=_resize(values, source) if _flag(values, 'do_resize', source) else None,
            resample=_resample(values, source),
            crop=_crop(values, source) if _flag(values, 'do_center_crop', source) else None,
        )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of a frame afterwards; ``None`` if they depend on the video."""
        return self.crop or (self.resize if isinstance(self.resize, tuple) else None)

    def describe(self) -> dict[str, str]:
        """Return in words what is done, for a table."""
        sides = 'frames as they are'
        if isinstance(self.resize, tuple):
            sides = f'{self.resize[0]} x {self.resize[1]}'
        elif self.resize is not None:
            sides = f'short side {self.resize}'
        crop = f'centre {self.crop[0]} x {self.crop[1]}' if self.crop else 'none'
        return {'resize': f'{sides}, {self.resample}', 'crop': crop}


def find_processor(extras: Mapping[str, object], source: str) -> ImageProcessor | None:
    """Return the processor of a Hugging Face folder; ``None`` where it has no such file.

    Raises:
        ValueError: See :meth:`ImageProcessor.parse`; also if the folder has two files that differ.
    """
    found = {
        name: ImageProcessor.parse(values, f'{name} of {source}')
        for name, key in ((FILE, 'preprocessor_config'), (VIDEO_FILE, 'video_preprocessor_config'))
        if isinstance(values := extras.get(key), Mapping)
    }
    if len(set(found.values())) > 1:
        first, second = found.values()
        key = next(k for k in vars(first) if getattr(first, k) != getattr(second, k))
        raise ValueError(
            f'{source} has {FILE} with {key}={getattr(first, key)} and {VIDEO_FILE} with '
            f'{getattr(second, key)}; remove the file that the model was not trained with'
        )
    return next(iter(found.values()), None)


def _defaults(
    values: Mapping[str, Any], source: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    keys = ('image_processor_type', 'video_processor_type', 'feature_extractor_type')
    name = next((values[key] for key in keys if values.get(key)), 'VideoMAEImageProcessor')
    for known, numbers in CLASSES.items():
        if name in [known + ending for ending in ENDINGS]:
            return numbers
    raise ValueError(
        f'{source} is of the class {shown(name)}, whose preprocessing is not known here; known are '
        f'{" and ".join(f"{known}ImageProcessor" for known in CLASSES)}. Give a config and take '
        "its preprocessing (--preprocessing config, preprocessing='config')"
    )


def _check_key(key: str, value: Any, source: str) -> None:
    is_off = value is None or value is False or value == {}
    if key in EXTRA_KEYS and value is not None:
        rule, is_valid = EXTRA_KEYS[key]
        if not is_valid(value):
            raise ValueError(f'{source} has {key}={shown(value)}, and it must be {rule}')
    if key in (*READ, *EXTRA_KEYS, *HARMLESS) or is_off:
        return
    raise ValueError(
        f'{source} has {shown(key)}: {shown(value)}, which may change pixels and is not known '
        f'here; known are {", ".join((*READ, *EXTRA_KEYS))}. Remove it if the model was trained '
        'without'
    )


def _flag(values: Mapping[str, Any], key: str, source: str) -> bool:
    value = values.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f'{source} has {key}={shown(value)}, and it must be true or false')
    return value is not False


def _number(values: Mapping[str, Any], key: str, usual: float, source: str) -> float:
    value = values.get(key)
    if value is None:
        return usual
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise ValueError(f'{source} has {key}={shown(value)}, and it must be a number above 0')
    return float(value)


def _per_channel(
    values: Mapping[str, Any], key: str, usual: tuple[float, ...], source: str
) -> tuple[float, ...]:
    value = values.get(key)
    if value is None:
        return usual
    row = value if isinstance(value, list | tuple) else (value,) * 3
    if len(row) != 3 or not all(type(x) in (int, float) and abs(x) < 1e6 for x in row):
        raise ValueError(
            f'{source} has {key}={shown(value)}, and it must be a number for each channel: three, '
            'or one for all'
        )
    return tuple(map(float, row))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST_COUNT


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST_SIDE


def _resize(values: Mapping[str, Any], source: str) -> int | tuple[int, int]:
    size = values.get('size')
    if size is None:
        return 224
    if _is_side(size):  # as transformers 4.2x wrote it
        return int(size)
    if isinstance(size, Mapping):
        given = {key: value for key, value in size.items() if value is not None}
        if set(given) == {'shortest_edge'} and _is_side(given['shortest_edge']):
            return int(given['shortest_edge'])
        if set(given) == {'height', 'width'} and all(map(_is_side, given.values())):
            return int(given['height']), int(given['width'])
    raise ValueError(
        f'{source} has size={shown(size)}, and it must be {{"shortest_edge": pixels}} or '
        '{"height": pixels, "width": pixels}; write it so'
    )


def _crop(values: Mapping[str, Any], source: str) -> tuple[int, int]:
    size = values.get('crop_size')
    if size is None:
        return 224, 224
    if _is_side(size):
        return int(size), int(size)
    if isinstance(size, Mapping):
        given = {key: value for key, value in size.items() if value is not None}
        if set(given) == {'height', 'width'} and all(map(_is_side, given.values())):
            return int(given['height']), int(given['width'])
    raise ValueError(
        f'{source} has crop_size={shown(size)}, and it must be {{"height": pixels, "width": '
        'pixels}; write it so'
    )


def _resample(values: Mapping[str, Any], source: str) -> str:
    value = values.get('resample')
    if value is None:
        return 'bilinear'
    if type(value) is not int or value not in RESAMPLES:
        raise ValueError(
            f'{source} has resample={shown(value)}, and it must be one of '
            f'{", ".join(f"{number} ({name})" for number, name in RESAMPLES.items())}'
        )
    return RESAMPLES[value]
