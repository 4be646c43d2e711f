"""Model metadata: what the shapes of the weights do not show, read from each system's files.

A config is compared with these values (:class:`ModelMetadata`), since with other preprocessing than
in training a model loses accuracy without an error. What a source does not give is ``None``. Config
text in a checkpoint is parsed as data, never executed.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from torch import Tensor

from mmtimesformer.checkpoints.image_processor import ImageProcessor
from mmtimesformer.class_names import class_names_of, stated_data_set
from mmtimesformer.fileio.safe_pickle import shown
from mmtimesformer.fileio.safe_text import TooLargeError, parse_python, parse_yaml

Values = Mapping[str, object]
Size = int | tuple[int, int]

OFFICIAL_LICENCE = 'CC-BY-NC 4.0: not for commercial use'
SSV2_CLASSES = 174
BY_SEGMENTS = 'one frame of each segment of the video'
LARGEST = 1e9  # the largest number of frames or pixels
LARGEST_COUNT = 1_000_000  # of frames, pixels, classes and the like


def _list(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)


def _pair(size: object) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if _is_numbers(size) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None


def _side(size: object) -> Size | None:
    """Return one number for a square, ``(height, width)`` for another size."""
    pair = _pair(size)
    return pair[0] if pair is not None and pair[0] == pair[1] else pair


def _is_numbers(value: object) -> TypeGuard[Sequence[float]]:
    return isinstance(value, list | tuple) and len(value) <= 16 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < LARGEST  # not NaN


@dataclass
class Preprocessing:
    """How a video becomes the input of a model.

    Attributes:
        mean: Of each channel, of pixels from 0 to 1.
        std: Likewise.
        channel_order: ``'RGB'`` or ``'BGR'``.
        sampling: ``'segments'``: one frame of each segment of the video.
        frame_interval: Otherwise, frames from one sampled frame to the next.
        num_frames: Sampled frames.
        size: Of the crop in pixels: one number for a square, else ``(height, width)``.
    """

    mean: list[float] | None = None
    std: list[float] | None = None
    channel_order: str | None = None
    sampling: str | None = None
    frame_interval: int | None = None
    num_frames: int | None = None
    size: Size | None = None

    def __post_init__(self) -> None:
        self.mean, self.std = _list(self.mean), _list(self.std)
        self.size = _side(self.size)

    def updated(self, newer: 'Preprocessing') -> 'Preprocessing':
        """Return a copy with the values of ``newer`` where it has any."""
        return replace(self, **_present(newer))


@dataclass
class ModelMetadata:
    """What a checkpoint stores under ``meta['mmtimesformer']``.

    Attributes:
        img_size: ``(H, W)`` that ``pos_embed`` is for, in pixels.
        num_frames: Frames in a clip.
        classes: Their names, in the order of the classifier.
        licence: Where the source has one of its own.
        source: The format that the weights came in.
        dataset: Of the training, as the official config names it; not stored.
        temperature: Of calibrated scores (:mod:`mmtimesformer.analysis.calibration`).
        other: Keys that this version does not use, kept as they are.
    """

    attention_type: str | None = None
    num_heads: int | None = None
    norm_eps: float | None = None
    num_frames: int | None = None
    img_size: tuple[int, int] | None = None
    classes: list[str] | None = None
    licence: str | None = None
    source: str | None = None
    dataset: str | None = None
    patch_size: int | None = None
    embed_dims: int | None = None
    num_layers: int | None = None
    num_classes: int | None = None
    qkv_bias: bool | None = None
    temperature: float | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    other: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.classes = _list(self.classes)
        self.img_size = _pair(self.img_size)

    @classmethod
    def parse(cls, values: Values, strict: bool = False) -> 'ModelMetadata':
        """Take the values of the right type and range.

        Args:
            values: As a file has them.
            strict: Raise an error for any other value, because the file is meant for this package;
                the config of another model may use the same key for something else.

        Raises:
            ValueError: ``strict``, and a value is not valid for its key.
        """
        valid = _valid(values, strict)
        inner = _valid(_table(valid.pop('preprocessing', None)), strict)
        known = cls.__dataclass_fields__.keys() - {'other'}
        return cls(
            preprocessing=Preprocessing(
                **{key: inner[key] for key in inner if key in Preprocessing.__dataclass_fields__}
            ),
            other={key: value for key, value in valid.items() if key not in known},
            **{key: value for key, value in valid.items() if key in known},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what is known as plain values, to be stored."""
        values = {**self.other, **_present(self), 'preprocessing': _present(self.preprocessing)}
        del values['other']
        if self.img_size is not None:
            values['img_size'] = list(self.img_size)
        return {key: value for key, value in values.items() if value != {}}

    def to_meta(self) -> dict[str, Any]:
        """Return the ``meta`` of a checkpoint of ours."""
        meta: dict[str, Any] = {'mmtimesformer': self.to_dict()}
        if self.classes:
            meta['dataset_meta'] = {'classes': self.classes}
        return meta

    def update(self, newer: 'ModelMetadata') -> None:
        """Take over the values that ``newer`` has; its preprocessing as a whole."""
        for key, value in _present(newer).items():
            if value not in (Preprocessing(), {}):
                setattr(self, key, value)


# Preprocessing of all models of a system, for files that come without their config.
_HALF = Preprocessing([0.5] * 3, [0.5] * 3, 'RGB')
_KINETICS = Preprocessing([0.45] * 3, [0.225] * 3, 'RGB')
OF_SYSTEM = {
    'official': _KINETICS,
    'paddle': replace(_KINETICS, frame_interval=32),
    'mmaction2': _HALF,
    'mmaction2_joint': _HALF,
    'jax_vit': _HALF,
    'big_vision_vit': _HALF,
}
# PaddleVideo's PP-TimeSformer, whose weights differ from its TimeSformer's by having no qkv bias.
PP_TIMESFORMER = Preprocessing([0.0] * 3, [1.0] * 3, 'RGB', frame_interval=32)

# The samplers of MMAction2 and ours, with the interval where a config gives none; None for those
# that take one frame of each segment of the video.
SAMPLERS: dict[str, int | None] = {
    'SampleFrames': 1,
    'DenseSampleFrames': 1,
    'UntrimmedSampleFrames': 1,
    'SampleAVAFrames': 2,
    'UniformSample': None,
    'UniformSampleFrames': None,
    'WindowSampleFrames': 1,
    'SegmentSampleFrames': None,
}
# The argument by which a crop names its side or its (width, height).
CROPS = {
    'RandomCrop': 'size',
    'CenterCrop': 'crop_size',
    'ThreeCrop': 'crop_size',
    'TenCrop': 'crop_size',
    'MultiScaleCrop': 'input_size',
    'UniformCrops': 'crop_size',
    'ProcessorCrop': 'size',
}
# What changes the size of a frame: the argument that names pixels, of the short or of both sides.
RESIZES = {
    'Resize': 'scale',
    'RandomRescale': 'scale_range',
    'RandomResizedCrop': None,  # a box of any size, which a Resize follows
    'ShortSideResize': 'size',
    'ShortSideJitter': 'scale_range',
    'ProcessorResize': 'size',
}
# of ViT-Ti, S, B, L, H, g and G, by width
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
# What the config classes of transformers 5.23 use where config.json has no such key, by model_type:
# heads at any width, and the epsilon of the norms.
DEFAULTS_OF_TRANSFORMERS = {'timesformer': (12, 1e-6), 'vit': (12, 1e-12)}


def find_metadata(extras: Values, tensors: Mapping[str, Tensor]) -> ModelMetadata:
    """Gather the metadata in the other entries of a file or folder.

    Raises:
        ValueError: A value under ``meta['mmtimesformer']`` is not valid.
    """
    meta, text = _table(extras.get('meta')), extras.get('cfg')
    metadata = ModelMetadata()
    if isinstance(extras.get('config'), Mapping):
        preprocessor = _preprocessor_of(extras)
        metadata = ModelMetadata.parse(_of_huggingface(_table(extras['config']), preprocessor))
    elif isinstance(text, str):
        metadata = ModelMetadata.parse(_of_official(text))
    elif isinstance(config := meta.get('cfg'), str):
        metadata = metadata_of_config(read_literals(config))
    classes = _table(meta.get('dataset_meta')).get('classes')
    is_folder = isinstance(extras.get('config'), Mapping)
    if isinstance(classes, list | tuple) and not (is_folder and metadata.classes):
        metadata.classes = [str(name) for name in classes] or None
    stored = ModelMetadata.parse(_table(meta.get('mmtimesformer')), strict=True)
    if is_folder:  # its files come first: a user may edit them
        metadata.preprocessing = stored.preprocessing.updated(metadata.preprocessing)
        metadata, stored = stored, metadata
    metadata.update(stored)
    if is_folder:
        _use_defaults_of_transformers(metadata, _table(extras['config']))
    for key, weight in tensors.items():
        if key.endswith('/query/bias') and weight.ndim > 1 and metadata.num_heads is None:
            metadata.num_heads = weight.shape[-2]
    return metadata


def _use_defaults_of_transformers(metadata: ModelMetadata, config: Values) -> None:
    """Set what ``config.json`` leaves out to what transformers takes then."""
    heads, norm_eps = DEFAULTS_OF_TRANSFORMERS.get(str(config.get('model_type')), (None, None))
    metadata.num_heads = metadata.num_heads or heads
    if metadata.norm_eps is None:
        metadata.norm_eps = norm_eps


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= LARGEST_COUNT


def _is_size(value: object) -> bool:
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_count, value))
    return is_pair or _is_count(value)


def _is_per_channel(value: object) -> bool:
    return _is_numbers(value) and 0 < len(value) <= 4 and all(abs(x) < 1e6 for x in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


COUNTS = 'num_heads num_frames patch_size embed_dims num_layers num_classes frame_interval'
VALID: dict[str, tuple[str, Callable[[Any], bool]]] = {
    key: (what, is_valid)
    for keys, what, is_valid in (
        ('attention_type licence source dataset channel_order sampling', 'a text', _is_text),
        (COUNTS, f'a whole number from 1 to {LARGEST_COUNT:,}', _is_count),
        ('img_size size', 'a number of pixels, or two', _is_size),
        ('mean std', 'a number for each channel', _is_per_channel),
        ('norm_eps', 'a number from 0 to 1', lambda x: type(x) in (int, float) and 0 <= x <= 1),
        ('temperature', 'a number above 0', lambda x: type(x) in (int, float) and 0 < x < LARGEST),
        ('qkv_bias', 'true or false', lambda value: isinstance(value, bool)),
        ('classes', 'a list of names', _is_names),
        ('preprocessing', 'a table', lambda value: isinstance(value, Mapping)),
    )
    for key in keys.split()
}


def _valid(values: Values, strict: bool) -> dict[str, Any]:
    """Keep the values that are valid for their keys, see :meth:`ModelMetadata.parse`."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        what, is_valid = VALID.get(key, ('', lambda _: True))
        if value is None:
            continue
        if is_valid(value):
            kept[key] = value
        elif strict:
            raise ValueError(
                f'the metadata of the checkpoint has {key}={shown(value)}, and it must be {what}; '
                'save it again with tools/convert_checkpoint.py'
            )
    return kept


def complete_metadata(
    metadata: ModelMetadata, source: str, classes: int | None, has_qkv_bias: bool = True
) -> ModelMetadata:
    """Return a copy with what a system does to all its models, and its files leave out."""
    system = OF_SYSTEM.get(source, Preprocessing())
    if source == 'paddle' and not has_qkv_bias:
        system = PP_TIMESFORMER
    preprocessing = system.updated(metadata.preprocessing)
    licence = metadata.licence
    if source == 'official':
        licence = licence or OFFICIAL_LICENCE
        if 'ssv2' in (metadata.dataset or '').lower() or classes == SSV2_CLASSES:
            preprocessing.channel_order = 'BGR'  # its switch to RGB does nothing for a ViT
            preprocessing.sampling = 'segments'  # its config's SAMPLING_RATE is not used
    names = metadata.classes
    if classes is not None and len(names or ()) != classes:
        data_set = stated_data_set([metadata.dataset], classes)
        names = list(class_names_of(data_set)) if data_set else None
    return replace(
        metadata, preprocessing=preprocessing, licence=licence, classes=names, dataset=None
    )


def need_temperature(extras: Values, source: str) -> float:
    """Return the temperature that a checkpoint was calibrated with.

    Raises:
        ValueError: It has none.
    """
    temperature = find_metadata(extras, {}).temperature
    if temperature is None:
        raise ValueError(
            f'checkpoint {source} has no temperature, so its scores cannot be calibrated; write '
            'one that has with tools/calibrate.py'
        )
    return temperature


def metadata_of_config(config: Values) -> ModelMetadata:
    """Return the metadata that a config in OpenMMLab's style stands for."""
    model = _table(config.get('model'))
    backbone, preprocessor = _table(model.get('backbone')), _table(model.get('data_preprocessor'))
    steps = list(_steps(_pipeline_of(config)))
    step = next((step for step in steps if _kind(step) == 'Normalize'), {})  # of MMAction2 0.x
    normalise = preprocessor or _table(config.get('img_norm_cfg')) or step
    preprocessing: dict[str, object] = _present(metadata_of_pipeline(steps))
    for key, without in (('mean', 0.0), ('std', 1.0)):
        values = normalise.get(key)
        if _is_numbers(values):
            preprocessing[key] = [round(float(x) / 255, 6) for x in values]
        elif _kind(preprocessor) == 'ActionDataPreprocessor' and preprocessor.get(key) is None:
            preprocessing[key] = [round(without / 255, 6)] * 3  # pixels from 0 to 255 as they are
    if 'mean' in preprocessing:
        swap = 'to_rgb' if preprocessor else 'to_bgr'  # frames are decoded as RGB
        preprocessing['channel_order'] = 'BGR' if normalise.get(swap) is True else 'RGB'
    keys = ('attention_type', 'num_heads', 'norm_eps', 'num_frames')
    return ModelMetadata.parse(
        {
            **{key: backbone.get(key) for key in keys},
            'img_size': _pair(backbone.get('img_size')),
            'preprocessing': preprocessing,
        }
    )


def metadata_of_pipeline(pipeline: object) -> Preprocessing:
    """Return frames and size of the clips, from the samplers and crops of a pipeline's config."""
    values: dict[str, object] = {}
    for step in _steps(pipeline):
        kind = _kind(step)
        if kind in SAMPLERS:
            interval = SAMPLERS[kind]
            values['num_frames'] = step.get('clip_len')
            if interval is None:
                values['sampling'] = 'segments'
            else:
                values['frame_interval'] = step.get('frame_interval', interval)
        elif kind == 'BuildPseudoClip':  # an image, repeated
            values['num_frames'] = step.get('clip_len')
        elif kind in CROPS:
            size = step.get(CROPS[kind])
            values['size'] = _side(size) if kind == 'ProcessorCrop' else _height_width(size)
        elif kind in RESIZES:
            values['size'] = _size_after_resize(kind, step, values.get('size'))
    return ModelMetadata.parse({'preprocessing': values}).preprocessing


def _height_width(width_height: object) -> Size | None:
    pair = _pair(width_height)
    return None if pair is None else _side(pair[::-1])


def _size_after_resize(kind: str, step: Values, before: object) -> Size | None:
    """Return the size of a frame after a resize; None where it depends on the video."""
    argument = RESIZES[kind]
    value = None if argument is None else step.get(argument)
    if kind == 'Resize' and not step.get('keep_ratio', True):
        return _height_width(value)
    if kind == 'ProcessorResize' and not isinstance(value, int):
        return _side(value)
    if not isinstance(before, int) or kind not in ('Resize', 'ShortSideResize', 'ProcessorResize'):
        return None  # the long side depends on the video
    if isinstance(value, float) and _is_number(value):
        return round(before * value)
    pair = _pair(value)
    return None if pair is None else max(pair) if -1 in pair else min(pair)


def _pipeline_of(config: Values) -> object:
    """Return the transforms by which a config's model is tested, else validated, else trained.

    A data loader's own come first: they are what runs. Old configs have them in ``data.test``.
    """
    for stage in ('test', 'val', 'train'):
        dataset = _table(_table(config.get(f'{stage}_dataloader')).get('dataset'))
        old = _table(_table(config.get('data')).get(stage))
        for holder in (dataset, old):
            while isinstance(holder.get('dataset'), Mapping):  # in a wrapper such as RepeatDataset
                holder = _table(holder['dataset'])
            if holder.get('pipeline'):
                return holder['pipeline']
        if pipeline := config.get(f'{stage}_pipeline'):
            return pipeline
    return []


def differences(checkpoint: ModelMetadata, config: ModelMetadata) -> list[str]:
    """List where a checkpoint's preprocessing and a config's differ, with both values."""
    theirs, ours = checkpoint.preprocessing, config.preprocessing
    if checkpoint.source == 'official' and theirs.channel_order == 'BGR':
        theirs = replace(theirs, sampling='segments')  # SSv2: of theirs, it alone is BGR
    samplings = _sampling(theirs), _sampling(ours)
    by_interval = BY_SEGMENTS not in samplings
    keys = ('mean', 'std', 'channel_order', 'sampling', 'num_frames', 'frame_interval', 'size')
    pairs = {key: (getattr(theirs, key), getattr(ours, key)) for key in keys}
    pairs['norm_eps'] = checkpoint.norm_eps, config.norm_eps
    pairs['channel_order'] = _printable(theirs.channel_order), _printable(ours.channel_order)
    pairs['sampling'] = samplings
    # With segments on one side, the interval follows the length of each video there.
    del pairs['sampling' if by_interval else 'frame_interval']
    return [
        f'{key}: the checkpoint was trained with {_show(a)}, the config gives {_show(b)}'
        for key, (a, b) in pairs.items()
        if a is not None and b is not None and not _same(a, b)
    ]


def _sampling(preprocessing: Preprocessing) -> str | None:
    """Return in words how frames are chosen; None where that is not known."""
    if preprocessing.sampling == 'segments':
        return BY_SEGMENTS
    interval = preprocessing.frame_interval
    return None if interval is None else f'frames {interval} apart'


def heads_of(width: int, num_heads: int | None = None) -> int:
    """Return the number of heads: as stored, else as a ViT of this width has.

    Raises:
        ValueError: None is stored, and no ViT has this width.
    """
    if num_heads:
        return num_heads
    if width in HEADS:
        return HEADS[width]
    raise ValueError(
        f'the checkpoint does not give its number of heads, and no ViT has the width {width}; '
        'give num_heads (--num-heads)'
    )


def _of_huggingface(config: Values, preprocessor: Values) -> dict[str, object]:
    heads = config.get('num_attention_heads')
    if str(config.get('model_type')) in DEFAULTS_OF_TRANSFORMERS and not (
        heads is None or _is_count(heads)
    ):
        raise ValueError(
            f'config.json has num_attention_heads={shown(heads)}, and it must be a whole number '
            'from 1 on; correct it'
        )
    of_timm = _table(config.get('pretrained_cfg'))
    processor = _processor_of(preprocessor)
    values: dict[str, object] = {
        'num_heads': heads,
        'norm_eps': config.get('layer_norm_eps'),
        'num_frames': config.get('num_frames'),
        'img_size': _pair(config.get('image_size')),
        'preprocessing': {
            'mean': processor.get('mean') or of_timm.get('mean'),
            'std': processor.get('std') or of_timm.get('std'),
            'channel_order': preprocessor.get('channel_order'),
            'sampling': preprocessor.get('sampling'),
            'frame_interval': preprocessor.get('frame_interval'),
            'num_frames': config.get('num_frames'),
            'size': processor.get('size'),
        },
    }
    if config.get('model_type') == 'timesformer':
        act = config.get('hidden_act', 'gelu')
        if act not in ('gelu', 'gelu_python'):
            raise ValueError(
                f'config.json has hidden_act={shown(act)}, and a TimeSformer here has gelu: every '
                'shape would fit and every number be wrong'
            )
        values['attention_type'] = config.get('attention_type', 'divided_space_time')
        labels = _table(config.get('id2label'))
        names: list[str] = []
        in_order = {str(k): str(name) for k, name in labels.items()}
        if in_order.keys() == {str(i) for i in range(len(labels))}:  # else a name is of which row?
            names = [in_order[str(i)] for i in range(len(labels))]
        if any(not name.startswith('LABEL_') for name in names):
            values['classes'] = names
    return values


def _preprocessor_of(extras: Values) -> Values:
    """Return the file of preprocessing in a folder: that of images, else that of videos."""
    keys = ('preprocessor_config', 'video_preprocessor_config')
    return next((found for key in keys if (found := _table(extras.get(key)))), {})


def _processor_of(preprocessor: Values) -> dict[str, object]:
    """Return mean, std and size as a file gives them; of a file for other models, what it has."""
    if not preprocessor:
        return {}
    try:
        processor = ImageProcessor.parse(preprocessor)
    except ValueError:
        size = _table(preprocessor.get('crop_size')) or _table(preprocessor.get('size'))
        return {
            'mean': preprocessor.get('image_mean'),
            'std': preprocessor.get('image_std'),
            'size': size.get('height') or size.get('shortest_edge'),
        }
    return {'mean': processor.mean, 'std': processor.std, 'size': _side(processor.size)}


def _of_official(text: str) -> dict[str, object]:
    """Read the official config, which is YAML, as plain values."""
    import yaml  # type: ignore[import-untyped]

    try:
        config = _table(parse_yaml(text, 'the config (cfg) in the checkpoint'))
    except yaml.YAMLError:
        return {}
    data = _table(config.get('DATA'))
    return {
        'attention_type': _table(config.get('TIMESFORMER')).get('ATTENTION_TYPE'),
        'num_frames': data.get('NUM_FRAMES'),
        'dataset': _table(config.get('TRAIN')).get('DATASET'),
        'preprocessing': {
            'mean': data.get('MEAN'),
            'std': data.get('STD'),
            'frame_interval': data.get('SAMPLING_RATE'),
            'num_frames': data.get('NUM_FRAMES'),
            'size': data.get('TEST_CROP_SIZE'),
        },
    }


def read_literals(text: str) -> dict[str, Any]:
    """Read the plain values that a Python config assigns: numbers, text, lists, ``dict(…)``.

    The text is parsed and never run: a call other than ``dict``, or any name, gives nothing.
    """
    try:
        return {name: _literal(value) for name, value in parse_python(text, 'the stored config')}
    except TooLargeError:
        raise
    except (ValueError, RecursionError):
        return {}


def _literal(node: ast.expr) -> object:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        return -value if isinstance(value, int | float) else None
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {
            _literal(key): _literal(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        }
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        return {word.arg: _literal(word.value) for word in node.keywords if word.arg}
    return None


def _steps(pipeline: object) -> Iterator[Values]:
    """Yield the transforms of a pipeline, also those inside of others, such as ``RepeatClips``."""
    for step in pipeline if isinstance(pipeline, list | tuple) else ():
        if isinstance(step, Mapping):
            yield step
            yield from _steps(step.get('transforms'))


def _kind(step: Values) -> str:
    """Return the class name of a component, without its scope; its type may be the class itself."""
    kind = step.get('type', '')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return str(name).rpartition('.')[2]


def _table(value: object) -> Values:
    return value if isinstance(value, Mapping) else {}


def _present(values: Preprocessing | ModelMetadata) -> dict[str, Any]:
    return {key: value for key, value in vars(values).items() if value is not None}


def _printable(text: str | None) -> str | None:
    """Return a text that can be shown in a message, whatever a file holds; None for any other."""
    return text if text is not None and len(text) <= 64 and text.isprintable() else None


def _same(a: object, b: object) -> bool:
    if _is_numbers(a) and _is_numbers(b):
        return len(a) == len(b) and all(abs(x - y) < 1e-3 for x, y in zip(a, b, strict=True))
    return a == b


def _show(value: object) -> str:
    if _is_numbers(value):
        return '(' + ', '.join(f'{x:g}' for x in value) + ')'
    return str(value)
