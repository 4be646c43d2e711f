"""What the weights do not say themselves, and how each system tells it.

A model that is fed other colours, another normalisation or another rhythm of frames than it was
trained on loses points in silence. So these facts travel with the weights::

    attention_type, num_heads, norm_eps     of the model
    img_size                                (H, W) that pos_embed is for, in pixels
    num_frames                              frames in a clip
    classes                                 their names, in the order of the classifier
    licence                                 where the source has one of its own
    preprocessing
        mean, std                           of each channel, of pixels from 0 to 1
        channel_order                       'RGB' or 'BGR'
        frame_interval                      frames from one sampled frame to the next
        num_frames, size                    sampled frames, side of the crop in pixels

A fact that a source does not tell is absent; none is made up. Config text inside a checkpoint is
read as data, never executed.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

OFFICIAL_LICENCE = 'CC-BY-NC 4.0: not for commercial use'
SSV2_CLASSES = 174

# What a system uses for all its models, for files that come without their config.
_HALF = {'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5], 'channel_order': 'RGB'}
_KINETICS = {'mean': [0.45] * 3, 'std': [0.225] * 3, 'channel_order': 'RGB'}
OF_SYSTEM: dict[str, dict[str, Any]] = {
    'official': _KINETICS,
    'paddle': _KINETICS,
    'mmaction2': _HALF,
    'mmaction2_joint': _HALF,
    'jax_vit': _HALF,
    'big_vision_vit': _HALF,
}
# of ViT-Ti, S, B, L, H, g and G, by width
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}


def read_facts(beside: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Gather the facts that stand beside the weights in a file or folder."""
    meta = beside.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    facts: dict[str, Any] = {}
    if isinstance(beside.get('config'), Mapping):
        facts = _of_huggingface(beside['config'], beside.get('preprocessor_config') or {})
    elif isinstance(beside.get('cfg'), str):
        facts = _of_official(beside['cfg'])
    elif isinstance(meta.get('cfg'), str):
        facts = facts_of_config(read_literals(meta['cfg']))
    dataset_meta = meta.get('dataset_meta')
    if isinstance(dataset_meta, Mapping) and dataset_meta.get('classes'):
        facts['classes'] = [str(name) for name in dataset_meta['classes']]
    if isinstance(meta.get('mmtimesformer'), Mapping):
        facts.update(meta['mmtimesformer'])
    for key, weight in tensors.items():
        if key.endswith('/query/bias'):
            facts.setdefault('num_heads', weight.shape[-2])
    return {key: value for key, value in facts.items() if value is not None}


def complete_facts(facts: dict[str, Any], source: str, classes: int | None) -> dict[str, Any]:
    """Add what a system does to all its models, and the two warnings that its files lack."""
    facts = dict(facts)
    preprocessing = {**OF_SYSTEM.get(source, {}), **(facts.get('preprocessing') or {})}
    if source == 'official':
        facts.setdefault('licence', OFFICIAL_LICENCE)
        if 'ssv2' in str(facts.pop('dataset', '')).lower() or classes == SSV2_CLASSES:
            preprocessing['channel_order'] = 'BGR'  # its switch to RGB does nothing for a ViT
    facts.pop('dataset', None)
    if preprocessing:
        facts['preprocessing'] = preprocessing
    if classes is not None and len(facts.get('classes') or []) != classes:
        facts.pop('classes', None)
    return facts


def facts_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same facts of a config in OpenMMLab's style, to be compared with a checkpoint's."""
    model = _dict(config.get('model'))
    backbone, preprocessor = _dict(model.get('backbone')), _dict(model.get('data_preprocessor'))
    facts = {
        key: backbone.get(key) for key in ('attention_type', 'num_heads', 'norm_eps', 'num_frames')
    }
    facts['img_size'] = _pair(backbone.get('img_size'))
    preprocessing: dict[str, Any] = {}
    normalise = preprocessor or _dict(config.get('img_norm_cfg'))
    for key in ('mean', 'std'):
        if _is_numbers(normalise.get(key)):
            preprocessing[key] = [round(float(x) / 255, 6) for x in normalise[key]]
    if 'mean' in preprocessing:
        swapped = normalise.get('to_rgb') is True and preprocessor
        preprocessing['channel_order'] = 'BGR' if swapped else 'RGB'
    for step in _steps(config.get('test_pipeline') or config.get('val_pipeline')):
        kind = str(step.get('type', '')).rpartition('.')[2]
        if kind in ('SampleFrames', 'OfficialSampleFrames'):
            preprocessing['num_frames'] = step.get('clip_len')
            preprocessing['frame_interval'] = step.get('frame_interval', 1)
        elif kind in ('ThreeCrop', 'CenterCrop', 'TenCrop'):
            size = step.get('crop_size')
            preprocessing['size'] = size if isinstance(size, int) else _pair(size)
    if preprocessing:
        facts['preprocessing'] = preprocessing
    return {key: value for key, value in facts.items() if value is not None}


def differences(checkpoint: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Say where a checkpoint's preprocessing and a config's differ, both values each time."""
    theirs = _dict(checkpoint.get('preprocessing'))
    ours = _dict(config.get('preprocessing'))
    said = []
    for key in ('mean', 'std', 'channel_order', 'num_frames', 'frame_interval', 'size'):
        a, b = theirs.get(key), ours.get(key)
        if a is not None and b is not None and not _same(a, b):
            said.append(
                f'{key}: the checkpoint was trained with {_show(a)}, the config gives {_show(b)}'
            )
    a, b = checkpoint.get('norm_eps'), config.get('norm_eps')
    if a is not None and b is not None and a != b:
        said.append(f'norm_eps: the checkpoint was trained with {a}, the config gives {b}')
    return said


def heads_of(width: int, told: int | None = None) -> int:
    """How many heads a width has: as told, else as in ViT.

    Raises:
        ValueError: The checkpoint does not tell, and no ViT has this width.
    """
    if told:
        return told
    if width in HEADS:
        return HEADS[width]
    raise ValueError(
        f'the checkpoint does not tell its number of heads, and no ViT has the width {width}; '
        'give num_heads (--num-heads)'
    )


def _of_huggingface(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        'num_heads': config.get('num_attention_heads'),
        'norm_eps': config.get('layer_norm_eps'),
        'num_frames': config.get('num_frames'),
        'img_size': _pair(config.get('image_size')),
    }
    if config.get('model_type') == 'timesformer':
        facts['attention_type'] = config.get('attention_type', 'divided_space_time')
        labels = _dict(config.get('id2label'))
        names = [str(labels[k]) for k in sorted(labels, key=lambda k: int(k))]
        if any(not name.startswith('LABEL_') for name in names):
            facts['classes'] = names
    of_timm = _dict(config.get('pretrained_cfg'))
    size = _dict(preprocessor.get('crop_size')) or _dict(preprocessor.get('size'))
    facts['preprocessing'] = _present(
        mean=preprocessor.get('image_mean') or of_timm.get('mean'),
        std=preprocessor.get('image_std') or of_timm.get('std'),
        channel_order=preprocessor.get('channel_order'),
        frame_interval=preprocessor.get('frame_interval'),
        num_frames=config.get('num_frames'),
        size=size.get('height') or size.get('shortest_edge'),
    )
    return facts


def _of_official(text: str) -> dict[str, Any]:
    """The official config is YAML; ``safe_load`` builds plain values and nothing else."""
    import yaml  # type: ignore[import-untyped]

    try:
        config = _dict(yaml.safe_load(text))
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
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    values: dict[str, Any] = {}
    for statement in module.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            values[statement.targets[0].id] = _literal(statement.value)
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


def _steps(pipeline: Any) -> Iterable[Mapping[str, Any]]:
    return [step for step in pipeline or [] if isinstance(step, Mapping)]


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(x, int | float) for x in value)


def _same(a: Any, b: Any) -> bool:
    if _is_numbers(a) and _is_numbers(b):
        return len(a) == len(b) and all(abs(x - y) < 1e-3 for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _show(value: Any) -> str:
    if _is_numbers(value):
        return '(' + ', '.join(f'{x:g}' for x in value) + ')'
    return str(value)
