"""Write the config of a recipe: a complete one, which ``tools/train.py`` takes."""

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtimesformer.checkpoints import read_checkpoint, read_file
from mmtimesformer.checkpoints.download import fetch, is_remote
from mmtimesformer.checkpoints.metadata import SAMPLERS, heads_of
from mmtimesformer.cli import require_file
from mmtimesformer.config.find import read_base
from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.finetuning.inspection import Sizes
from mmtimesformer.finetuning.recipes import FULL, Start, TrainingPlan
from mmtimesformer.inference.inference_config import inference_config_of_checkpoint
from mmtimesformer.terminal import safe_lines

CROPS = ('CenterCrop', 'ThreeCrop', 'TenCrop', 'UniformCrops')
RESIZES = ('Resize', 'ShortSideResize')
SMALL_SIDE = 128  # pixels: videos below get the tiny model
LONGEST_INTERVAL = 32


def scratch(sizes: Sizes) -> Start:
    """Return a small model without pretrained weights, by the size of the videos.

    Videos of less than :data:`SMALL_SIDE` pixels get that of Moving Shapes: 2 blocks of width 64,
    frames of 64 x 64 pixels. Others get 4 blocks of width 192, frames of 112 x 112 pixels.
    """
    model = read_base('models/timesformer_tiny').model.to_dict()
    side = 64
    if sizes.short_side >= SMALL_SIDE:
        side = 112
        model['backbone'].update(img_size=side, embed_dims=192, num_layers=4, num_heads=3)
        model['cls_head']['in_channels'] = 192
    clip_len = model['backbone']['num_frames']
    pipeline = read_base('protocols/kinetics_mmaction2').test_pipeline
    steps = [_resized(dict(step), clip_len, side) for step in pipeline]
    start = Start(model, steps, f'a small TimeSformer of {side} x {side} pixels, from scratch')
    start.notes.append(
        'no --pretrained: weights are random. Pretrained ones are much better on few videos; '
        'docs/checkpoints.md shows where they are, such as --pretrained '
        'hf://facebook/timesformer-base-finetuned-k400'
    )
    return start


def _resized(step: dict[str, Any], clip_len: int, side: int) -> dict[str, Any]:
    values = {'clip_len': clip_len, 'crop_size': side, 'size': side, 'scale': (-1, side)}
    return {key: values.get(key, value) for key, value in step.items()}


def pretrained(checkpoint: str) -> Start:
    """Return the model of a checkpoint: a TimeSformer, or an image ViT.

    The preprocessing is the checkpoint's where it is stored; otherwise MMAction2's, which is noted.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It cannot be read.
    """
    require_file(checkpoint, 'checkpoint', 'correct --pretrained')
    place = checkpoint if is_remote(checkpoint) else str(Path(checkpoint).expanduser().absolute())
    contents = read_file(fetch(checkpoint))
    try:
        found, _ = inference_config_of_checkpoint(contents, checkpoint)
    except ValueError as error:
        return _from_metadata(checkpoint, place, str(error))
    model = found.to_build()
    model['data_preprocessor'] = dict(model['data_preprocessor'], blending=None)
    return Start(model, found.pipeline, f'the model of {checkpoint}', place)


def _from_metadata(checkpoint: str, place: str, why: str) -> Start:
    """Return the model of an image ViT, or of weights that come without their preprocessing."""
    weights = read_checkpoint(checkpoint)
    metadata = weights.describe()
    if not metadata.embed_dims or not metadata.num_layers:
        raise ValueError(f'{why} (--pretrained)')
    protocol = read_base('protocols/kinetics_mmaction2')
    hidden, width = weights.tensors['blocks.0.mlp.fc1.weight'].shape
    preprocessor = protocol.data_preprocessor.to_dict()
    for key in ('mean', 'std'):
        if values := getattr(metadata.preprocessing, key):
            preprocessor[key] = [255 * value for value in values]
    frames = metadata.num_frames or 8
    backbone = {
        'type': 'mmtimesformer.TimeSformer',
        'attention_type': metadata.attention_type or 'divided_space_time',
        'num_frames': frames,
        'img_size': 224,
        'patch_size': metadata.patch_size,
        'embed_dims': width,
        'num_layers': metadata.num_layers,
        'num_heads': heads_of(width, metadata.num_heads),
        'mlp_ratio': hidden / width,
        'qkv_bias': weights.has_qkv_bias,
        'init_cfg': {'type': 'mmtimesformer.Pretrained', 'checkpoint': place},
    }
    head = {'type': 'TimeSformerHead', 'in_channels': width}
    model = {
        'type': 'Recognizer3D',
        'backbone': backbone,
        'cls_head': head,
        'data_preprocessor': preprocessor,
    }
    pipeline = [_resized(dict(step), frames, 224) for step in protocol.test_pipeline]
    start = Start(model, pipeline, f'a TimeSformer from {checkpoint}', place)
    start.notes.append(f"{why.partition('; ')[0]}: MMAction2's preprocessing is used")
    return start


def set_interval(start: Start, sizes: Sizes) -> None:
    """Set the frame interval so that a clip is no longer than the median video, 32 at most."""
    for step in start.test_pipeline:
        if _name(step) not in SAMPLERS or SAMPLERS[_name(step)] is None:
            continue
        rate = (step.get('target_fps') or sizes.fps) / max(sizes.fps, 1e-6)
        fitting = max(1, int(sizes.frames * rate) // step['clip_len'])
        stored = step.get('frame_interval', LONGEST_INTERVAL) if start.load_from else fitting
        start.interval = step['frame_interval'] = min(stored, fitting, LONGEST_INTERVAL)
        if _name(step) == 'SampleFrames':
            step['out_of_bound_opt'] = 'repeat_last'


def train_pipeline(test_pipeline: list[dict[str, Any]], flip: float, jitter: bool) -> list[Any]:
    """Return the training's transforms for those of a test: random frames, sizes and crops."""
    steps: list[Any] = []
    for given in test_pipeline:
        step, name = dict(given), _name(given)
        if name in SAMPLERS:
            for key in ('test_mode', 'first', 'num_clips'):
                step.pop(key, None)
        elif name in RESIZES and jitter:
            side = _side(step)
            step = {'type': 'RandomRescale', 'scale_range': (side * 8 // 7, side * 10 // 7)}
        elif name in CROPS:
            step = {'type': 'RandomCrop', 'size': step['crop_size']}
        steps.append(step)
        if name in CROPS and flip:
            steps.append({'type': 'Flip', 'flip_ratio': flip})
    return steps


def _val_pipeline(test_pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the transforms of a test with the centre crop alone."""
    return [
        {'type': 'CenterCrop', 'crop_size': step['crop_size']} if _name(step) in CROPS else step
        for step in deepcopy(test_pipeline)
    ]


def _side(step: Mapping[str, Any]) -> int:
    value = step.get('scale', step.get('size'))
    return int(value if isinstance(value, int) else max(value))


def _name(step: Mapping[str, Any]) -> str:
    return str(step.get('type', '')).rpartition('.')[2]


def make_config(
    start: Start,
    recipe: TrainingPlan,
    *,
    data: Mapping[str, str],
    root: str,
    delimiter: str,
    num_classes: int,
    multi_label: bool,
    work_dir: str,
    seed: int,
) -> dict[str, Any]:
    """Return the config of a training.

    Args:
        start: The model.
        recipe: How it is trained.
        data: ``'train'``, ``'val'``, perhaps ``'test'``, and ``'classes'`` → file.
        root: What videos in these files are relative to.
        delimiter: Between the columns of these files.
        num_classes: Number of classes.
        multi_label: Whether a video may have several labels.
        work_dir: Folder of logs and checkpoints.
        seed: Of the training.
    """
    loaders = {}
    workers = min(os.cpu_count() or 1, 8)
    pipelines = {
        'train': train_pipeline(start.test_pipeline, recipe.flip, start.load_from is not None),
        'val': _val_pipeline(start.test_pipeline),
        'test': start.test_pipeline,
    }
    for name, pipeline in pipelines.items():
        dataset = {
            'type': 'mmtimesformer.VideoDataset',
            'ann_file': data.get(name, data['val']),
            'data_prefix': {'video': root},
            'delimiter': delimiter,
            'metainfo': {'classes': data['classes']},
            **({'multi_class': True, 'num_classes': num_classes} if multi_label else {}),
            'pipeline': pipeline,
            **({} if name == 'train' else {'test_mode': True}),
        }
        loaders[f'{name}_dataloader'] = {
            'batch_size': recipe.batch_size,
            'num_workers': workers,
            'persistent_workers': True,
            'sampler': _sampler(recipe, name),
            'dataset': dataset,
        }
    metric = {'metric_list': ('mean_average_precision',)} if multi_label else {}
    return {
        **read_base('default_runtime').to_dict(),
        'custom_imports': {
            'imports': ['mmtimesformer', 'mmtimesformer.datasets'],
            'allow_failed_imports': False,
        },
        'work_dir': work_dir,
        'load_from': start.load_from if 'init_cfg' not in start.model['backbone'] else None,
        'randomness': {'seed': seed},
        'model': _model(start, recipe, num_classes, multi_label),
        **loaders,
        'val_evaluator': {'type': 'AccMetric', **metric},
        'test_evaluator': {'type': 'AccMetric', **metric},
        **_schedule(start, recipe),
        **_hooks(recipe, best_score(recipe, multi_label)),
    }


def _model(
    start: Start, recipe: TrainingPlan, num_classes: int, multi_label: bool
) -> dict[str, Any]:
    model = deepcopy(start.model)
    model['backbone']['frozen_stages'] = recipe.frozen
    head = model['cls_head'] = {
        'type': 'TimeSformerHead',
        'num_classes': num_classes,
        'in_channels': model['backbone'].get('embed_dims', 768),
        'average_clips': 'sigmoid' if multi_label else 'prob',
    }
    if multi_label:
        head.update(multi_class=True, loss_cls={'type': 'BCELossWithLogits'})
        head['type'] = 'mmtimesformer.TimeSformerHead'
    elif start.load_from and not recipe.mixup:
        head['label_smooth_eps'] = 0.1
    if recipe.mixup:
        model['data_preprocessor']['blending'] = {
            'type': 'MixupBlending',
            'alpha': 0.2,
            'num_classes': num_classes,
        }
    return model


def _schedule(start: Start, recipe: TrainingPlan) -> dict[str, Any]:
    from_scratch = start.load_from is None
    warmup = max(1, recipe.epochs // 10) if recipe.epochs > 1 else 0
    decay = {'constructor': 'mmtimesformer.LayerDecay', 'paramwise_cfg': {'decay_rate': 0.75}}
    return {
        'train_cfg': {
            'type': 'EpochBasedTrainLoop',
            'max_epochs': recipe.epochs,
            'val_begin': 1,
            'val_interval': max(1, recipe.epochs // 10),
        },
        'val_cfg': {'type': 'ValLoop'},
        'test_cfg': {'type': 'TestLoop'},
        'optim_wrapper': {
            **({} if from_scratch or recipe.kind != FULL else decay),
            'optimizer': {
                'type': 'AdamW',
                'lr': recipe.lr,
                'betas': (0.9, 0.98 if from_scratch else 0.999),
                'weight_decay': 0.05,
            },
            'clip_grad': {'max_norm': 1.0 if from_scratch else 5.0, 'norm_type': 2},
            'accumulative_counts': recipe.accumulate,
        },
        'param_scheduler': _schedulers(warmup, recipe.epochs),
        'auto_scale_lr': {
            'enable': False,
            'base_batch_size': recipe.batch_size * recipe.accumulate,
        },
    }


def _schedulers(warmup: int, epochs: int) -> list[dict[str, Any]]:
    """Return a linear warm-up, if it has any epoch, and a cosine down to zero."""
    linear = {'type': 'LinearLR', 'start_factor': 0.01, 'begin': 0, 'end': warmup}
    cosine = {'type': 'CosineAnnealingLR', 'eta_min': 0.0, 'begin': warmup, 'end': epochs}
    used = [linear, cosine] if warmup else [cosine]
    return [{**scheduler, 'convert_to_iter_based': True} for scheduler in used]


def _sampler(recipe: TrainingPlan, loader: str) -> dict[str, Any]:
    balanced = loader == 'train' and recipe.balanced
    name = 'mmtimesformer.ClassBalancedSampler' if balanced else 'DefaultSampler'
    return {'type': name, 'shuffle': loader == 'train'}


def best_score(recipe: TrainingPlan, multi_label: bool) -> str:
    """Return the score that chooses the best checkpoint.

    Of imbalanced classes it is the mean class accuracy: top-1 accuracy shows the large ones alone.
    """
    if multi_label:
        return 'acc/mean_average_precision'
    return 'acc/mean1' if recipe.balanced else 'acc/top1'


def _hooks(recipe: TrainingPlan, best: str) -> dict[str, Any]:
    hooks = read_base('default_runtime').default_hooks.to_dict()
    hooks['checkpoint'].update(max_keep_ckpts=1, save_best=best, rule='greater')
    hooks['tensor_sharing'] = {'type': 'mmtimesformer.TensorSharingHook', 'strategy': 'file_system'}
    average = {
        'type': 'EMAHook',
        'ema_type': 'MomentumAnnealingEMA',
        'momentum': 0.002,
        'gamma': 10,
    }
    early = {
        'type': 'mmtimesformer.EarlyStoppingHook',
        'monitor': best,
        'rule': 'greater',
        'min_delta': 0.001,
        'patience': recipe.patience,
    }
    custom = [*([average] if recipe.ema else []), *([early] if recipe.patience else [])]
    return {'default_hooks': hooks, **({'custom_hooks': custom} if custom else {})}


def write_config(config: dict[str, Any], path: Path, heading: str) -> str:
    """Write a config as Python, with a docstring; return its text."""
    safe = safe_lines(heading).replace('\\', '\\\\').replace('"""', "'''")
    text = f'"""{safe}"""\n\n{Config(config).pretty_text}'
    write_text_atomically(path, text)
    return text
