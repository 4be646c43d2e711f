"""Read how to run a model: its components, test pipeline and class names.

They come from a config, or from a checkpoint: a training checkpoint holds its config as text, a
converted one its metadata (:mod:`mmtimesformer.checkpoints.metadata`).

Nothing in a checkpoint is executed. Its config text is parsed and must hold plain values. As a
``type`` may name any function of any package in MMEngine (``type='os.system'`` would be called),
only what the registries of models and transforms hold is built from it.
"""

import ast
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmaction.registry import MODELS as MMACTION_MODELS
from mmaction.registry import TRANSFORMS as MMACTION_TRANSFORMS
from mmcv.transforms import TRANSFORMS as MMCV_TRANSFORMS
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmtimesformer.checkpoints.convert import Weights, to_format
from mmtimesformer.checkpoints.load import backbone_arguments, contents_to_canonical
from mmtimesformer.checkpoints.readers import Contents
from mmtimesformer.cli import require_file
from mmtimesformer.config.find import FOLDERS
from mmtimesformer.config.label_checks import scores_are_sigmoids, to_build
from mmtimesformer.fileio.safe_pickle import shown
from mmtimesformer.fileio.safe_text import parse_python
from mmtimesformer.inference.huggingface import (
    data_set_of,
    is_edited,
    is_hub_folder,
    read_hub_model,
    sampling_of,
)
from mmtimesformer.inference.stored_components import (
    PARTS,
    STEPS,
    check_form,
    check_normalisation,
    check_steps,
    is_allowed,
    numbers_of,
)
from mmtimesformer.registry import MODELS, TRANSFORMS

READ = ('model', 'test_pipeline', 'test_dataloader', 'protocol')  # of a stored config, no more
# By which protocol the models of a system are tested, of those in configs/_base_/protocols.
PROTOCOLS = {
    'official': 'kinetics_official',
    'mmaction2': 'kinetics_mmaction2',
    'mmaction2_joint': 'kinetics_mmaction2',
    'paddle': 'kinetics_paddle',
}
LARGEST_NUMBER = 65_536  # in a stored config, of layers, classes, frames, pixels
MOST_PIXELS = 250_000_000  # of a video in all views; 96 frames in 3 crops of 448 pixels have 58 M
CROPS = {'ThreeCrop': 3, 'TenCrop': 10}  # of each frame
GIVE_CONFIG = 'give its config too: VideoClassifier(config, checkpoint)'


@dataclass
class InferenceConfig:
    """How a model is run: configs of the recognizer and of the steps from a video to its views."""

    model: dict[str, Any]
    pipeline: list[dict[str, Any]]
    classes: Any  # their names, if there are any
    protocol: str | None  # name of the evaluation protocol
    name: str  # where all this is from, for messages and manifests
    multi_label: bool = False  # whether each class was trained by itself, as a sigmoid
    data_set_texts: tuple[str, ...] = ()  # files of the data set, which may state what it is
    notes: list[str] = field(default_factory=list)  # what was assumed, for one warning

    def to_build(self) -> dict[str, Any]:
        """Return the model's config without initial weights: the checkpoint has them all.

        The head of a multi-label model fuses views by sigmoid.
        """
        backbone = {**self.model.get('backbone', {})}
        backbone.pop('init_cfg', None)
        if 'pretrained' in backbone:
            backbone['pretrained'] = None
        built = {**self.model, 'backbone': backbone}
        if self.model.get('cls_head'):
            built['cls_head'] = to_build(self.model['cls_head'], self.multi_label)
        return built


def inference_config_of(config: Mapping[str, Any], name: str) -> InferenceConfig:
    """Read from a config what inference needs; its data need not exist.

    Raises:
        ValueError: It has no model, or no test pipeline.
    """
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    pipeline = dataset.get('pipeline') or config.get('test_pipeline')
    for key, value in (('model', config.get('model')), ('test_pipeline', pipeline)):
        if not value:
            raise ValueError(f'{name} has no {key}; add one, or give another config')
    classes = (dataset.get('metainfo') or {}).get('classes')
    return InferenceConfig(
        model=dict(config['model']),
        pipeline=[dict(step) for step in pipeline or ()],
        classes=classes,
        protocol=config.get('protocol'),
        name=name,
        multi_label=_is_multi_label(config),
        data_set_texts=tuple(
            text for text in (classes, dataset.get('ann_file')) if isinstance(text, str)
        ),
    )


def inference_config_of_checkpoint(
    contents: Contents, source: str
) -> tuple[InferenceConfig, Contents | Weights]:
    """Read from a checkpoint what inference needs: its config text, else its metadata.

    Return it with the weights that go with it; tensors may be moved out of ``contents``.

    Raises:
        ValueError: Something is missing, or its config holds more than plain values.
    """
    meta = contents.extras.get('meta')
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    multi_label = False
    if isinstance(text, str):
        config = read_config_text(text, source)
        if _is_ours(config.get('model')) and not is_edited(contents.extras):
            with _named(source):
                check_form(config)
            inference_config = inference_config_of(config, f'the config in {source}')
            with _named(source):
                _check_types(inference_config)
                _check_classes(inference_config.classes)
                _check_sizes(inference_config, contents.tensors)
            return inference_config, contents
        multi_label = _is_multi_label(config)
    extras = contents.extras
    weights = contents_to_canonical(contents)
    if is_hub_folder(extras) and (weights.origin.name not in PROTOCOLS or is_edited(extras)):
        inference_config = _config_of_hub(weights, extras, source)
    else:
        notes: list[str] = []
        if is_hub_folder(extras):
            data_set = data_set_of(extras, weights, source)
            weights.metadata.preprocessing = sampling_of(weights, data_set, source, notes)
        inference_config = _config_of_metadata(weights, source)
        inference_config.notes = notes
        inference_config.multi_label = multi_label
    with _named(source):
        _check_sizes(inference_config, to_format(weights, 'mmtimesformer'))
    return inference_config, weights


def _is_multi_label(config: Mapping[str, Any]) -> bool:
    """Whether each class was trained by itself, by the head and the data set of a config."""
    model, loader = config.get('model'), config.get('test_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, dict) else None
    return scores_are_sigmoids(
        model.get('cls_head') if isinstance(model, dict) else None,
        isinstance(dataset, dict) and bool(dataset.get('multi_class')),
    )


def read_config_text(text: str, source: str) -> dict[str, Any]:
    """Read the plain values that a config assigns, of the names in :data:`READ`.

    Raises:
        ValueError: The text is no config, or one of these values is not plain.
    """
    try:
        assigned = parse_python(text, f'the config in {source}')
    except ValueError as error:
        raise ValueError(f'{error}; {GIVE_CONFIG}') from None
    values: dict[str, Any] = {}
    for name, value in assigned:
        if name in READ:
            try:
                values[name] = _plain(value)
            except (ValueError, TypeError, RecursionError, MemoryError) as error:
                raise ValueError(
                    f'the config in {source} holds code where a plain value is expected, in '
                    f'{name}; {GIVE_CONFIG}'
                ) from error
    return values


def _plain(node: ast.expr) -> Any:
    """``ast.literal_eval``, and ``dict(…)``, which MMEngine writes for every dict."""
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == 'dict'):
            raise ValueError('a call')
        values = {}
        for argument in node.args:  # dict({'a key with dots': …})
            values.update(_plain(argument))
        return values | {_key(word.arg): _plain(word.value) for word in node.keywords}
    if isinstance(node, ast.Dict):
        return {
            ast.literal_eval(key) if key else _key(None): _plain(value)
            for key, value in zip(node.keys, node.values, strict=True)
        }
    if isinstance(node, ast.List):
        return [_plain(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_plain(item) for item in node.elts)
    return ast.literal_eval(node)


def _key(name: str | None) -> str:
    if name is None:
        raise ValueError('a dict that is unpacked')
    return name


def _is_ours(model: Any) -> bool:
    backbone = model.get('backbone') if isinstance(model, Mapping) else None
    kind = backbone.get('type') if isinstance(backbone, Mapping) else None
    return isinstance(kind, str) and kind.startswith('mmtimesformer.')


def _check_types(inference_config: InferenceConfig) -> None:
    """Refuse a stored config with components that are not registered, or that read other files."""
    models = {'mmtimesformer': MODELS, 'mmaction': MMACTION_MODELS, 'mmengine': MMENGINE_MODELS}
    steps = {
        'mmtimesformer': TRANSFORMS,
        'mmaction': MMACTION_TRANSFORMS,
        'mmcv': MMCV_TRANSFORMS,
    }
    for part, registries, allowed in (
        (inference_config.model, models, PARTS),
        (inference_config.pipeline, steps, STEPS),
    ):
        for config in _dicts(part):
            config.pop('init_cfg', None)  # a start of training; the checkpoint has the weights
            config.pop('pretrained', None)
            if config.get('_scope_') == 'mmtimesformer' and '.' in str(config.get('type')):
                config.pop('_scope_')  # of `_base_ = 'mmtimesformer::…'`; the prefix names it
            for key in config:
                if not isinstance(key, str) or (key.startswith('_') and key.endswith('_')):
                    raise ValueError(f'the key {shown(key)}')
            kind = config.get('type')
            if kind is not None and not is_allowed(kind, registries, allowed):
                raise ValueError(
                    f'type={shown(kind)}, which is not a registered component that a test of '
                    'TimeSformer needs (a package that registers it must be imported)'
                )


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Complete an error that begins with a key: add the checkpoint's name and what to do."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f'the config in {source} has {error}; {GIVE_CONFIG}') from None


def _dicts(value: Any) -> Iterator[dict[Any, Any]]:
    if isinstance(value, dict):
        yield value
        for item in list(value.values()):
            yield from _dicts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _dicts(item)


def _check_classes(classes: Any) -> None:
    """Refuse a stored config whose class names are not names."""
    names = classes if isinstance(classes, list | tuple) else (classes,)  # a text is ignored later
    if classes is not None and not all(isinstance(name, str) for name in names):
        raise ValueError(f'a {type(classes).__name__} where names of classes should be')


def _check_sizes(inference_config: InferenceConfig, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a stored config that needs more than its weights are for.

    Raises:
        ValueError: A number is out of all proportion, is not that of the weights, or the clips of
            a video would be too large.
    """
    for part in (inference_config.model, inference_config.pipeline):
        for config in _dicts(part):
            for key, value in config.items():
                for number in value if isinstance(value, list | tuple) else (value,):
                    if isinstance(number, int | float) and not abs(number) <= LARGEST_NUMBER:
                        raise ValueError(
                            f'{key}={shown(number)}, and at most {LARGEST_NUMBER:,} is taken from '
                            'a checkpoint'
                        )
    for key, wanted, has in _sizes_of(inference_config.model, tensors):
        if type(wanted) not in (int, float) or wanted != has:
            raise ValueError(f'{key}={shown(wanted)}, and its weights have {has}')
    backbone = inference_config.model.get('backbone') or {}
    frames = backbone.get('num_frames', 8)
    if type(frames) is not int:
        raise ValueError(f'num_frames={shown(frames)}, which is not a number')
    check_steps(_dicts(inference_config.pipeline))
    preprocessor = inference_config.model.get('data_preprocessor')
    check_normalisation(preprocessor, backbone.get('in_channels', 3))
    for step in _dicts(inference_config.pipeline):
        clip_len = step.get('clip_len', 1)
        if type(clip_len) is not int or clip_len > 16 * frames:
            raise ValueError(
                f'clip_len={shown(clip_len)}, and num_frames={frames} takes at most {16 * frames}'
            )
    pixels = _pixels_of(_dicts(inference_config.pipeline))
    if pixels > MOST_PIXELS:
        raise ValueError(
            f'{pixels:,} pixels of each video (clip_len x num_clips x crops x height x width), and '
            f'at most {MOST_PIXELS:,} are taken from a checkpoint'
        )


def _sizes_of(
    model: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Iterator[tuple[str, Any, int]]:
    """Pair the sizes of a config with those of the weights, where these have them."""
    backbone, head = model.get('backbone') or {}, model.get('cls_head') or {}
    blocks = {name.split('.')[2] for name in tensors if name.startswith('backbone.blocks.')}
    if blocks:
        yield 'num_layers', backbone.get('num_layers', 12), len(blocks)
    for key, usual, name, dim in (
        ('embed_dims', 768, 'backbone.cls_token', -1),
        ('patch_size', 16, 'backbone.patch_embed.proj.weight', -1),
        ('in_channels', 3, 'backbone.patch_embed.proj.weight', 1),
        ('num_frames', 8, 'backbone.time_embed', 1),
    ):
        weight = tensors.get(name)
        if weight is not None and weight.ndim > 1:
            yield key, backbone.get(key, usual), weight.shape[dim]
    weight = tensors.get('cls_head.fc_cls.weight')
    if weight is not None and weight.ndim == 2 and isinstance(head, Mapping):
        yield 'num_classes', head.get('num_classes', len(weight)), len(weight)


def _pixels_of(pipeline: Iterable[Mapping[str, Any]]) -> int:
    """Return how many pixels a video becomes at most, of all views together."""
    frames, side, crops = 1, 1, 1
    clips = ('clip_len', 'num_clips', 'num_segments', 'num_sample_positions', 'clips_per_video')
    sides = ('scale', 'size', 'crop_size', 'input_size', 'short_side', 'scale_range')
    for step in pipeline:
        given = 10 if _name_of(step) == 'DenseSampleFrames' else 1
        frames *= math.prod(
            max(1, int(n)) for n in numbers_of({'num_sample_positions': given, **step}, clips)
        )
        for number in numbers_of(step, sides):  # a float is a factor of what the video has
            side = max(side, int(1000 * number) if isinstance(number, float) else number)
        crops *= max(1, int(step.get('num_crops', CROPS.get(_name_of(step), 1))))
    return frames * crops * side * side


def _name_of(step: Mapping[str, Any]) -> str:
    return str(step.get('type', '')).rpartition('.')[2]


@contextmanager
def no_more_memory_than(weights: Mapping[str, Tensor], source: str) -> Iterator[None]:
    """Build a model of a stored config with no more memory than its weights need.

    Raises:
        ValueError: The model needs more than four times the bytes of the weights.
    """
    allowed = 4 * sum(w.numel() * w.element_size() for w in weights.values()) + (64 << 20)
    try:
        with _Allowed(allowed, source):
            yield
    except ValueError:
        raise
    except Exception as error:  # by a component with wrong arguments
        why = ascii(str(error).partition('\n')[0][:200])[1:-1]
        raise ValueError(
            f'the config in {source} describes no model ({type(error).__name__}: {why}); '
            f'{GIVE_CONFIG}'
        ) from error


class _Allowed(TorchDispatchMode):
    """Refuse tensors beyond a total of bytes, before each is allocated."""

    def __init__(self, nbytes: int, source: str) -> None:
        super().__init__()
        self.allowed = self.left = nbytes
        self.source = source

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        size = args[0] if args and 'size' in str(func._schema.arguments[0].name) else ()
        if isinstance(size, list | tuple) and all(isinstance(n, int) for n in size):
            self._take(4 * math.prod(size) if size else 0)
        made = func(*args, **(kwargs or {}))
        if not size and isinstance(made, Tensor) and not func._schema.name.endswith('_'):
            self._take(made.numel() * made.element_size())
        return made

    def _take(self, nbytes: int) -> None:
        self.left -= nbytes
        if self.left < 0:
            raise ValueError(
                f'the config in {self.source} describes a model of more than {self.allowed:,} '
                f'bytes, four times its weights; {GIVE_CONFIG}'
            )


def _config_of_metadata(weights: Weights, source: str) -> InferenceConfig:
    """Derive the model from its weights, and the test pipeline from its metadata."""
    weights.load_report.check()
    metadata = weights.describe()
    seen = metadata.preprocessing
    height, _ = weights.known_size()
    mean, std, interval = seen.mean or [], seen.std or [], seen.frame_interval or 0
    source_format = metadata.source or ''
    frames = metadata.num_frames or seen.num_frames
    missing = [
        what
        for what, value in {
            'a video classifier': metadata.num_classes,
            'its number of frames': frames,
            'frame_interval': interval,
            'mean and std': mean and std,
            'the system it is from': PROTOCOLS.get(source_format),
        }.items()
        if not value
    ]
    if missing:
        raise ValueError(
            f'checkpoint {source} does not hold how to preprocess videos for its model (it lacks '
            f'{" and ".join(missing)}); {GIVE_CONFIG}'
        )
    swap = seen.channel_order == 'BGR'
    is_ssv2 = swap and source_format == 'official'  # only these were trained on BGR
    is_pp = source_format == 'paddle' and not metadata.qkv_bias
    name = 'kinetics_pp-paddle' if is_pp else PROTOCOLS[source_format]
    protocol = _shipped_protocol('ssv2_official' if is_ssv2 else name)
    preprocessor = {
        **protocol['data_preprocessor'],
        'mean': [255 * x for x in mean],
        'std': [255 * x for x in std],
        'to_rgb': swap,
        'blending': None,  # of a training
    }
    model = _model(weights, frames, protocol['fusion'], preprocessor)
    size = seen.size or height
    pipeline = list(_resized(protocol['test_pipeline'], frames, interval, size))
    return InferenceConfig(
        model, pipeline, metadata.classes, protocol['protocol'], f'the metadata in {source}'
    )


def _config_of_hub(weights: Weights, extras: Mapping[str, Any], source: str) -> InferenceConfig:
    """Derive the model from the weights of a Hugging Face folder, the pipeline from its files."""
    weights.load_report.check()
    metadata = weights.describe()
    if not metadata.num_classes:
        raise ValueError(
            f'checkpoint {source} has no classifier of videos: it is a TimesformerModel; give one '
            'of TimesformerForVideoClassification (TimeSformer.from_pretrained takes both)'
        )
    hub = read_hub_model(extras, weights, source)
    frames = metadata.num_frames or hub.preprocessing.num_frames or 8
    seen = hub.preprocessing
    preprocessor = {
        'type': 'ActionDataPreprocessor',
        'mean': [255 * x for x in seen.mean or ()],
        'std': [255 * x for x in seen.std or ()],
        'to_rgb': seen.channel_order == 'BGR',
        'format_shape': 'NCTHW',
    }
    fusion = {'average_clips': 'sigmoid' if hub.multi_label else 'prob'}
    if hub.multi_label:
        fusion['type'] = 'mmtimesformer.TimeSformerHead'
    return InferenceConfig(
        _model(weights, frames, fusion, preprocessor),
        hub.pipeline(frames),
        metadata.classes,
        'huggingface',
        f'the files in {source}',
        multi_label=hub.multi_label,
        data_set_texts=(hub.data_set,) if hub.data_set else (),
        notes=hub.notes,
    )


def _model(
    weights: Weights, frames: Any, fusion: Mapping[str, Any], preprocessor: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the config of a recognizer for weights."""
    classes = weights.describe().num_classes
    backbone = {**backbone_arguments(weights), 'num_frames': frames}
    return {
        'type': 'Recognizer3D',
        'backbone': {'type': 'mmtimesformer.TimeSformer', **backbone},
        'cls_head': {
            'type': 'TimeSformerHead',
            'num_classes': classes,
            'in_channels': backbone['embed_dims'],
            **fusion,
        },
        'data_preprocessor': dict(preprocessor),
    }


def _shipped_protocol(name: str) -> Config:
    for folder in FOLDERS:
        path = folder / '_base_' / 'protocols' / f'{name}.py'
        if path.is_file():
            return Config.fromfile(path)
    raise FileNotFoundError(f'the protocol {name} is not among the configs; install them again')


def protocol_config(
    name: str, frames: int, interval: int, side: int
) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """Return test pipeline, data preprocessor and fusion of a shipped protocol.

    Args:
        name: Of its file in ``configs/_base_/protocols``.
        frames: Frames in a clip.
        interval: Frames from one to the next.
        side: Of the crop, in pixels.
    """
    protocol = _shipped_protocol(name)
    pipeline = list(_resized(protocol.test_pipeline, frames, interval, side))
    return pipeline, protocol.data_preprocessor.to_dict(), protocol.fusion.average_clips


def _resized(
    pipeline: Iterable[Mapping[str, Any]], frames: Any, interval: int, size: Any
) -> Iterator[dict[str, Any]]:
    """Return the same steps for another length of clip and size of crop."""
    side = size if isinstance(size, int) else min(size)
    values = {
        'clip_len': frames,
        'frame_interval': interval,
        'crop_size': side,
        'size': side,
        'scale': (-1, side),
    }
    for step in pipeline:
        yield {key: values.get(key, value) for key, value in step.items()}


def read_classes(classes: Any) -> list[str]:
    """Return the names of classes: a list, or a file with a name a line.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not text.
    """
    if not isinstance(classes, str | Path):
        return [str(name) for name in classes]
    path = Path(classes).expanduser()
    require_file(path, 'the file of class names', 'correct classes (--classes)', Path.is_file)
    try:
        lines = path.read_text(encoding='utf-8-sig').split('\n')
    except UnicodeDecodeError as error:
        raise ValueError(f'{classes} is not text; write a class name a line') from error
    return [line.strip() for line in lines if line.strip()]
