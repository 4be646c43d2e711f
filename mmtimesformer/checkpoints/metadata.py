"""What the weights do not say themselves, and how each system tells it.

A model that is fed other colours, another normalisation or another rhythm of frames than it was
trained on loses points in silence. So these metadata travel with the weights::

    attention_type, num_heads, norm_eps     of the model
    img_size                                (H, W) that pos_embed is for, in pixels
    num_frames                              frames in a clip
    classes                                 their names, in the order of the classifier
    licence                                 where the source has one of its own
    preprocessing
        mean, std                           of each channel, of pixels from 0 to 1
        channel_order                       'RGB' or 'BGR'
        sampling                            'segments': one frame of each segment of the video
        frame_interval                      else, frames from one sampled frame to the next
        num_frames, size                    sampled frames, side of the crop in pixels

A fact that a source does not tell is absent; none is made up. Config text inside a checkpoint is
read as data, never executed.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from mmtimesformer.fileio.safe_pickle import shown
from mmtimesformer.fileio.safe_text import TooLargeError, parse_python, parse_yaml

OFFICIAL_LICENCE = 'CC-BY-NC 4.0: not for commercial use'
SSV2_CLASSES = 174
BY_SEGMENTS = 'one frame of each segment of the video'
LARGEST = 1e9  # no number of frames or pixels is larger

# What a system uses for all its models, for files that come without their config.
_HALF = {'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5], 'channel_order': 'RGB'}
_KINETICS = {'mean': [0.45] * 3, 'std': [0.225] * 3, 'channel_order': 'RGB'}
_PADDLE = {**_KINETICS, 'frame_interval': 32}
OF_SYSTEM: dict[str, dict[str, Any]] = {
    'official': _KINETICS,
    'paddle': _PADDLE,
    'mmaction2': _HALF,
    'mmaction2_joint': _HALF,
    'jax_vit': _HALF,
    'big_vision_vit': _HALF,
}
# PaddleVideo's PP-TimeSformer, whose weights differ from its TimeSformer's by having no qkv bias.
PP_TIMESFORMER: dict[str, Any] = {**_PADDLE, 'mean': [0.0] * 3, 'std': [1.0] * 3}

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
}
# What changes the size of a frame: the argument that names pixels, of the short or of both sides.
RESIZES = {
    'Resize': 'scale',
    'RandomRescale': 'scale_range',
    'RandomResizedCrop': None,  # a box of any size, which a Resize follows
    'ShortSideResize': 'size',
    'ShortSideJitter': 'scale_range',
}
# of ViT-Ti, S, B, L, H, g and G, by width
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}


def find_metadata(extras: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Gather the metadata that stand beside the weights in a file or folder."""
    meta = extras.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    metadata: dict[str, Any] = {}
    if isinstance(extras.get('config'), Mapping):
        metadata = _valid(
            _of_huggingface(extras['config'], _dict(extras.get('preprocessor_config')))
        )
    elif isinstance(extras.get('cfg'), str):
        metadata = _valid(_of_official(extras['cfg']))
    elif isinstance(meta.get('cfg'), str):
        metadata = _valid(metadata_of_config(read_literals(meta['cfg'])))
    dataset_meta = meta.get('dataset_meta')
    if isinstance(dataset_meta, Mapping) and isinstance(dataset_meta.get('classes'), list | tuple):
        metadata['classes'] = [str(name) for name in dataset_meta['classes']] or None
    if isinstance(meta.get('mmtimesformer'), Mapping):
        metadata.update(_valid(meta['mmtimesformer'], refuse=True))
    for key, weight in tensors.items():
        if key.endswith('/query/bias') and weight.ndim > 1:
            metadata.setdefault('num_heads', weight.shape[-2])
    return {key: value for key, value in metadata.items() if value is not None}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST_COUNT


def _is_size(value: Any) -> bool:
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_count, value))
    return is_pair or _is_count(value)


def _is_per_channel(value: Any) -> bool:
    return _is_numbers(value) and 0 < len(value) <= 4 and all(abs(x) < 1e6 for x in value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


LARGEST_COUNT = 1_000_000  # of frames, pixels, classes and the like
VALID: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ('attention_type', 'licence', 'source', 'dataset', 'channel_order', 'sampling'),
        ('a text', lambda value: isinstance(value, str)),
    ),
    **dict.fromkeys(
        (
            'num_heads', 'num_frames', 'patch_size', 'embed_dims', 'num_layers', 'num_classes',
            'frame_interval',
        ),
        (f'a whole number from 1 to {LARGEST_COUNT:,}', _is_count),
    ),
    **dict.fromkeys(('img_size', 'size'), ('a number of pixels, or two', _is_size)),
    **dict.fromkeys(('mean', 'std'), ('a number for each channel', _is_per_channel)),
    'norm_eps': (
        'a number from 0 to 1',
        lambda value: type(value) in (int, float) and 0 <= value <= 1,
    ),
    'qkv_bias': ('true or false', lambda value: isinstance(value, bool)),
    'classes': ('a list of names', _is_names),
    'preprocessing': ('a table', lambda value: isinstance(value, Mapping)),
}  # fmt: skip


def _valid(metadata: Mapping[str, Any], refuse: bool = False) -> dict[str, Any]:
    """Keep the metadata whose values can be such.

    Args:
        metadata: As a file tells them.
        refuse: Raise an error for the others, because the file says that it means this model;
            the config of another model may use the same key for something else.

    Raises:
        ValueError: A value cannot be that of its key.
    """
    kept: dict[str, Any] = {}
    for key, value in metadata.items():
        what, is_valid = VALID.get(key, ('', lambda _: True))
        if value is None or is_valid(value):
            kept[key] = value
        elif refuse:
            raise ValueError(
                f'the metadata of the checkpoint has {key}={shown(value)}, and it must be {what}; '
                'save it again with tools/convert_checkpoint.py'
            )
    if isinstance(kept.get('preprocessing'), Mapping):
        kept['preprocessing'] = _valid(kept['preprocessing'], refuse)
    return kept


def complete_metadata(
    metadata: dict[str, Any], source: str, classes: int | None, has_qkv_bias: bool = True
) -> dict[str, Any]:
    """Add what a system does to all its models, and the two warnings that its files lack."""
    metadata = dict(metadata)
    system = OF_SYSTEM.get(source, {})
    if source == 'paddle' and not has_qkv_bias:
        system = PP_TIMESFORMER
    preprocessing = {**system, **_dict(metadata.get('preprocessing'))}
    if source == 'official':
        metadata.setdefault('licence', OFFICIAL_LICENCE)
        if 'ssv2' in str(metadata.pop('dataset', '')).lower() or classes == SSV2_CLASSES:
            preprocessing['channel_order'] = 'BGR'  # its switch to RGB does nothing for a ViT
            preprocessing['sampling'] = 'segments'  # its config's SAMPLING_RATE is not used
    metadata.pop('dataset', None)
    if preprocessing:
        metadata['preprocessing'] = preprocessing
    if classes is not None and len(metadata.get('classes') or []) != classes:
        metadata.pop('classes', None)
    return metadata


def metadata_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same metadata of a config in OpenMMLab's style, to be compared with a checkpoint's."""
    model = _dict(config.get('model'))
    backbone, preprocessor = _dict(model.get('backbone')), _dict(model.get('data_preprocessor'))
    metadata = {
        key: backbone.get(key) for key in ('attention_type', 'num_heads', 'norm_eps', 'num_frames')
    }
    metadata['img_size'] = _pair(backbone.get('img_size'))
    preprocessing: dict[str, Any] = {}
    steps = list(_steps(_pipeline_of(config)))
    normalise = preprocessor or _dict(config.get('img_norm_cfg')) or _normalise_step(steps)
    for key, without in (('mean', 0.0), ('std', 1.0)):
        if _is_numbers(normalise.get(key)):
            preprocessing[key] = [round(float(x) / 255, 6) for x in normalise[key]]
        elif _kind(preprocessor) == 'ActionDataPreprocessor' and preprocessor.get(key) is None:
            preprocessing[key] = [round(without / 255, 6)] * 3  # pixels from 0 to 255 as they are
    if 'mean' in preprocessing:
        swap = 'to_rgb' if preprocessor else 'to_bgr'  # frames are decoded as RGB
        preprocessing['channel_order'] = 'BGR' if normalise.get(swap) is True else 'RGB'
    preprocessing |= metadata_of_pipeline(steps)
    if preprocessing:
        metadata['preprocessing'] = preprocessing
    return {key: value for key, value in metadata.items() if value is not None}


def metadata_of_pipeline(pipeline: Any) -> dict[str, Any]:
    """Frames and size of the clips that a pipeline gives: what its samplers and crops say.

    Args:
        pipeline: The configs of the transforms, of MMAction2's and ours.

    Returns:
        ``sampling``, ``num_frames``, ``frame_interval`` and ``size``; what is not known is absent.
    """
    metadata: dict[str, Any] = {}
    for step in _steps(pipeline):
        kind = _kind(step)
        if kind in SAMPLERS:
            interval = SAMPLERS[kind]
            metadata['num_frames'] = step.get('clip_len')
            if interval is None:
                metadata['sampling'] = 'segments'
            else:
                metadata['frame_interval'] = step.get('frame_interval', interval)
        elif kind == 'BuildPseudoClip':  # an image, repeated
            metadata['num_frames'] = step.get('clip_len')
        elif kind in CROPS:
            width_height = _pair(step.get(CROPS[kind]))
            metadata['size'] = None if width_height is None else _side(width_height[::-1])
        elif kind in RESIZES:
            metadata['size'] = _size_after_resize(kind, step, metadata.get('size'))
    return {key: value for key, value in metadata.items() if value is not None}


def _size_after_resize(kind: str, step: Mapping[str, Any], before: Any) -> Any:
    """Side of a frame, or ``(height, width)``, where a resize leaves one that is known."""
    argument = RESIZES[kind]
    value = None if argument is None else step.get(argument)
    if kind == 'Resize' and not step.get('keep_ratio', True):
        width_height = _pair(value)
        return None if width_height is None else _side(width_height[::-1])
    if not isinstance(before, int) or kind not in ('Resize', 'ShortSideResize'):
        return None  # the long side depends on the video
    if isinstance(value, float) and _is_number(value):
        return round(before * value)
    pair = _pair(value)
    return None if pair is None else max(pair) if -1 in pair else min(pair)


def _pipeline_of(config: Mapping[str, Any]) -> Any:
    """The transforms by which a config's model is tested, else validated, else trained.

    A data loader's own come first: they are what runs. Old configs have them in ``data.test``.
    """
    for stage in ('test', 'val', 'train'):
        dataset = _dict(_dict(config.get(f'{stage}_dataloader')).get('dataset'))
        old = _dict(_dict(config.get('data')).get(stage))
        for holder in (dataset, old):
            while isinstance(holder.get('dataset'), Mapping):  # in a wrapper such as RepeatDataset
                holder = holder['dataset']
            if holder.get('pipeline'):
                return holder['pipeline']
        if config.get(f'{stage}_pipeline'):
            return config[f'{stage}_pipeline']
    return []


def _normalise_step(steps: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The arguments of ``Normalize``, by which MMAction2 0.x normalised."""
    return next((step for step in steps if _kind(step) == 'Normalize'), {})


def differences(checkpoint: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Say where a checkpoint's preprocessing and a config's differ, both values each time."""
    theirs = _dict(checkpoint.get('preprocessing'))
    ours = _dict(config.get('preprocessing'))
    is_official = _plain(checkpoint.get('source')) == 'official'
    if is_official and _plain(theirs.get('channel_order')) == 'BGR':
        theirs = {**theirs, 'sampling': 'segments'}  # SSv2: of theirs, it alone is BGR
    differing = []
    samplings = _sampling(theirs), _sampling(ours)
    by_interval = samplings[0] != BY_SEGMENTS != samplings[1]
    for key in ('mean', 'std', 'channel_order', 'sampling', 'num_frames', 'frame_interval', 'size'):
        a, b = _plain(theirs.get(key)), _plain(ours.get(key))
        if key == 'sampling':
            a, b = (None, None) if by_interval else samplings
        elif key == 'frame_interval' and not by_interval:
            continue  # of one of the two it follows the length of each video
        elif key == 'size':
            a, b = _side(a), _side(b)
        if a is not None and b is not None and not _same(a, b):
            differing.append(
                f'{key}: the checkpoint was trained with {_show(a)}, the config gives {_show(b)}'
            )
    a, b = _plain(checkpoint.get('norm_eps')), _plain(config.get('norm_eps'))
    if a is not None and b is not None and a != b:
        differing.append(f'norm_eps: the checkpoint was trained with {a}, the config gives {b}')
    return differing


def _sampling(preprocessing: Mapping[str, Any]) -> str | None:
    """How frames are chosen, in words; None where that is not known."""
    if _plain(preprocessing.get('sampling')) == 'segments':
        return BY_SEGMENTS
    interval = _plain(preprocessing.get('frame_interval'))
    return None if interval is None else f'frames {interval} apart'


def heads_of(width: int, num_heads: int | None = None) -> int:
    """How many heads a width has: as told, else as in ViT.

    Raises:
        ValueError: The checkpoint does not tell, and no ViT has this width.
    """
    if num_heads:
        return num_heads
    if width in HEADS:
        return HEADS[width]
    raise ValueError(
        f'the checkpoint does not tell its number of heads, and no ViT has the width {width}; '
        'give num_heads (--num-heads)'
    )


def _of_huggingface(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        'num_heads': config.get('num_attention_heads'),
        'norm_eps': config.get('layer_norm_eps'),
        'num_frames': config.get('num_frames'),
        'img_size': _pair(config.get('image_size')),
    }
    if config.get('model_type') == 'timesformer':
        metadata['attention_type'] = config.get('attention_type', 'divided_space_time')
        labels = _dict(config.get('id2label'))
        labels = labels if all(re.fullmatch(r'\d{1,9}', str(k)) for k in labels) else {}
        names = [str(labels[k]) for k in sorted(labels, key=lambda k: int(k))]
        if any(not name.startswith('LABEL_') for name in names):
            metadata['classes'] = names
    of_timm = _dict(config.get('pretrained_cfg'))
    size = _dict(preprocessor.get('crop_size')) or _dict(preprocessor.get('size'))
    metadata['preprocessing'] = _present(
        mean=preprocessor.get('image_mean') or of_timm.get('mean'),
        std=preprocessor.get('image_std') or of_timm.get('std'),
        channel_order=preprocessor.get('channel_order'),
        frame_interval=preprocessor.get('frame_interval'),
        num_frames=config.get('num_frames'),
        size=size.get('height') or size.get('shortest_edge'),
    )
    return metadata


def _of_official(text: str) -> dict[str, Any]:
    """The official config is YAML; ``safe_load`` builds plain values and nothing else."""
    import yaml  # type: ignore[import-untyped]

    try:
        config = _dict(parse_yaml(text, 'the config (cfg) in the checkpoint'))
    except yaml.YAMLError:
        return {}
    data, model = _dict(config.get('DATA')), _dict(config.get('TIMESFORMER'))
    size = data.get('TEST_CROP_SIZE')
    return {
        'attention_type': model.get('ATTENTION_TYPE'),
        'num_frames': data.get('NUM_FRAMES'),
        'dataset': _dict(config.get('TRAIN')).get('DATASET'),
        'preprocessing': _present(
            mean=data.get('MEAN'),
            std=data.get('STD'),
            frame_interval=data.get('SAMPLING_RATE'),
            num_frames=data.get('NUM_FRAMES'),
            size=size,
        ),
    }


def read_literals(text: str) -> dict[str, Any]:
    """The plain values that a Python config assigns: numbers, text, lists, ``dict(…)``.

    The text is parsed and never run: a call other than ``dict``, or any name, gives nothing.
    """
    values: dict[str, Any] = {}
    try:
        for name, value in parse_python(text, 'the stored config'):
            values[name] = _literal(value)
    except TooLargeError:
        raise
    except (ValueError, RecursionError):
        return {}
    return values


def _literal(node: ast.expr) -> Any:
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


def _steps(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """The transforms of a pipeline, also those inside of others, such as ``RepeatClips``."""
    for step in pipeline if isinstance(pipeline, list | tuple) else ():
        if isinstance(step, Mapping):
            yield step
            yield from _steps(step.get('transforms'))


def _kind(step: Mapping[str, Any]) -> str:
    """The name of a component's class, without its scope; its type may be the class itself."""
    kind = step.get('type', '')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return str(name).rpartition('.')[2]


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and _is_numbers(size):
        return int(size[0]), int(size[1])
    return None


def _side(size: Any) -> int | tuple[int, int] | None:
    """One number for a square, ``(height, width)`` for another size."""
    pair = _pair(size)
    return pair[0] if pair is not None and pair[0] == pair[1] else pair


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) <= 16 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < LARGEST  # not NaN


def _plain(value: Any) -> Any:
    """A value that can be compared and shown, whatever a file holds; None for any other."""
    if isinstance(value, str):
        return value if len(value) <= 64 and value.isprintable() else None
    return value if _is_number(value) or _is_numbers(value) else None


def _same(a: Any, b: Any) -> bool:
    if _is_numbers(a) and _is_numbers(b):
        return len(a) == len(b) and all(abs(x - y) < 1e-3 for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _show(value: Any) -> str:
    if _is_numbers(value):
        return '(' + ', '.join(f'{x:g}' for x in value) + ')'
    return str(value)
