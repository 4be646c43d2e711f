"""Which parts a config names, and whether each exists and takes what it is given; none is built.

A data set is built, and its lists are read, only after the model, and some parts not before the
first validation; what is misspelt there is told at once, with its key.
"""

import inspect
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine import registry as roots
from mmengine.config import Config
from mmengine.registry import Registry
from torch.utils.data import DataLoader

from mmtimesformer.cli import near_name
from mmtimesformer.config.component_arguments import Part, check_part

LOADERS = {'train': ('train', 'val'), 'test': ('test',)}
LOOPS = {'train': 'EpochBasedTrainLoop', 'val': 'ValLoop', 'test': 'TestLoop'}
LOADER_KEYS = {
    *inspect.signature(DataLoader.__init__).parameters, 'clips_per_video',
    'disable_subprocess_warning', 'num_batch_per_epoch',
} - {'self'}  # fmt: skip
# Dictionaries without a type whose keys somebody reads one by one, so that others say nothing.
KEYS: dict[str, set[str]] = {
    'randomness': {'seed', 'diff_rank_seed', 'deterministic'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'auto_scale_lr': {'enable', 'base_batch_size', 'accumulate'},
    'optim_wrapper.clip_grad': {
        'type', 'max_norm', 'norm_type', 'clip_value', 'error_if_nonfinite', 'foreach'
    },
}  # fmt: skip
PARAMWISE = {
    'custom_keys', 'lr_mult', 'decay_mult', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
    'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate',
}  # fmt: skip
# Whole numbers that a run divides by or counts to, and the least that has a meaning.
COUNTS = {
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_cfg.val_interval': 1,
    'optim_wrapper.accumulative_counts': 1,
    'auto_scale_lr.base_batch_size': 1,
    'default_hooks.logger.interval': 1,
}
TOGETHER = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}
HOOK_NAMES = 'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'
MODEL_PARTS = ('model', 'backbone', 'neck', 'cls_head', 'data_preprocessor')  # of MMAction2
# Keys of a model that are built as they stand; a parent may add and remove arguments of others.
AS_GIVEN = (*MODEL_PARTS, 'augments', 'blending', 'loss_cls', 'model')
NESTING = (
    'Compose', 'KeyMapper', 'RandomApply', 'RandomChoice', 'RepeatClips', 'TestTimeAug',
    'TransformBroadcaster',
)  # fmt: skip  # transforms whose `transforms` are of the same registry; those of ImgAug are not
KINDS: list[tuple[Any, str]] = [
    (str, 'text'), (bool, 'a truth value'), (int | float, 'a number'), (list | tuple, 'a list')
]  # fmt: skip


def check_parts(cfg: Any, purpose: str) -> list[str]:
    """Check all parts of a config that a run builds.

    Args:
        cfg: The config, options merged.
        purpose: ``'train'`` or ``'test'``.

    Returns:
        What is legal and may be a mistake, one sentence each.

    Raises:
        ValueError: A type does not exist, or a number is text or the other way round.
        TypeError: An argument does not exist or is missing, or text stands for a part.
        FileNotFoundError: A checkpoint to start from does not exist.
    """
    _check_complete(cfg, purpose)
    _check_plain(cfg)
    if purpose == 'train':
        _check_counts(cfg)
    for stage in LOADERS[purpose]:
        name = f'{stage}_dataloader'
        if _is_dict(name, cfg.get(name)):
            _check_keys(name, cfg[name], LOADER_KEYS)
            _check_count(f'{name}.batch_size', cfg[name].get('batch_size', 1), 1)
            _check_count(f'{name}.num_workers', cfg[name].get('num_workers', 0), 0)
            _check_workers(name, cfg[name])
    _check_scope(cfg.get('default_scope'))
    for part in _parts(cfg, purpose):
        check_part(part, cfg.get('default_scope'))
    return list(_notes_on_hooks(cfg.get('default_hooks')))


def _check_scope(scope: Any) -> None:
    if scope is None or scope in ('mmengine', *roots.MODELS.children):
        return
    if not isinstance(scope, str) or not scope.isidentifier() or find_spec(scope) is None:
        raise ValueError(
            f"default_scope={scope!r} is no package that can be imported; set it to 'mmaction'"
        )


def _notes_on_hooks(hooks: Any) -> Iterator[str]:
    """Look for names that are nearly MMEngine's; any name is legal and adds a hook."""
    for name in hooks if isinstance(hooks, dict) else ():
        near = near_name(name, HOOK_NAMES, 0.8)
        if near and name not in HOOK_NAMES:
            yield f"default_hooks.{name} is added to MMEngine's default hooks{near}"


def _check_complete(cfg: Any, purpose: str) -> None:
    """See that what is needed is there, and of what goes together all or nothing."""
    for key in ('model', *TOGETHER[purpose]):
        if cfg.get(key) is None:
            raise ValueError(f'the config has no {key}, which a {purpose} run needs; add it')
    there = [key for key in TOGETHER['val'] if cfg.get(key) is not None]
    for key in TOGETHER['val']:
        if purpose == 'train' and there and key not in there:
            raise ValueError(
                f'the config has {there[0]} and no {key}; add it, or set the three of them '
                f'({", ".join(TOGETHER["val"])}) to None to train without validation'
            )


def _check_plain(cfg: Any) -> None:
    """Check what stands at the top of a config and is no part, or has no type."""
    for name in ('load_from', 'work_dir'):
        if not isinstance(cfg.get(name), str | Path | None):
            raise TypeError(f'{name}={cfg.get(name)!r} is no path')
    level = cfg.get('log_level', 'INFO')
    if isinstance(level, str) and logging.getLevelName(level) == f'Level {level}':
        raise ValueError(f'log_level={level!r} is none of DEBUG, INFO, WARNING, ERROR')
    wrapper = cfg.get('optim_wrapper')
    keys = dict(KEYS)
    if isinstance(wrapper, dict) and 'constructor' not in wrapper:  # which may read others
        keys['optim_wrapper.paramwise_cfg'] = PARAMWISE
    for where, known in keys.items():
        value = _at(cfg, where)
        if _is_dict(where, value):
            _check_keys(where, value, known)
    if isinstance(wrapper, dict):
        _check_multipliers(wrapper)
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None:
        _check_count('randomness.seed', seed, 0)


def _at(cfg: Any, where: str) -> Any:
    """Return the value at a dotted place of a config; None if there is none."""
    value = cfg
    for name in where.split('.'):
        value = value.get(name) if isinstance(value, dict | Config) else None
    return value


def _check_counts(cfg: Any) -> None:
    """Check numbers that a training divides by, counts to or multiplies with."""
    for where, least in COUNTS.items():
        value = _at(cfg, where)
        if value is not None:
            _check_count(where, value, least)
    rate = _at(cfg, 'optim_wrapper.optimizer.lr')
    if isinstance(rate, int | float) and not rate >= 0:
        raise ValueError(f'optim_wrapper.optimizer.lr={rate} is not a number from 0 on')


def _check_keys(where: str, value: dict[str, Any], known: set[str]) -> None:
    for key in value:
        if key not in known:
            raise TypeError(f'{where}.{key}: there is no such setting{near_name(key, known)}')


def _check_multipliers(wrapper: Any) -> None:
    """Check numbers that a step would stumble over, and multipliers that it would not notice."""
    for name, value in (wrapper.get('clip_grad') or {}).items():
        if name != 'type' and isinstance(value, str):
            raise ValueError(f'optim_wrapper.clip_grad.{name}={value!r} is text, not a number')
    custom = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    for part, settings in custom.items():
        for name in settings:
            near = near_name(name, ('lr_mult', 'decay_mult'), 0.8)
            if near and name not in ('lr_mult', 'decay_mult'):
                raise TypeError(
                    f'optim_wrapper.paramwise_cfg.custom_keys.{part}.{name}: there is no such '
                    f'setting{near}'
                )


def _check_count(key: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f'{key}={value!r} is not a whole number from {least} on')


def _check_workers(name: str, loader: Any) -> None:
    """Check what PyTorch refuses without the key."""
    if loader.get('num_workers', 0) == 0:
        for key in ('persistent_workers', 'prefetch_factor', 'timeout'):
            if loader.get(key):
                raise ValueError(
                    f'{name}.{key}={loader[key]!r} needs worker processes; set '
                    f'{name}.num_workers above 0, or {name}.{key} to '
                    + {'persistent_workers': 'False', 'timeout': '0'}.get(key, 'None')
                )
    elif loader.get('prefetch_factor') is not None:
        _check_count(f'{name}.prefetch_factor', loader['prefetch_factor'], 1)
    timeout = loader.get('timeout', 0)
    if not isinstance(timeout, int | float) or timeout < 0:
        raise ValueError(f'{name}.timeout={timeout!r} is not a number of seconds from 0 on')


def _is_dict(key: str, value: Any) -> bool:
    """Whether there is a dictionary to look into, and not nothing, or what is built already."""
    for kind, name in KINDS:
        if isinstance(value, kind):
            raise TypeError(f'{key}={value!r} is {name}, where a dict is wanted')
    return isinstance(value, dict)


def _is_part(key: str, value: Any) -> bool:
    """The same of a dictionary that needs a type."""
    if not _is_dict(key, value):
        return False
    if 'type' not in value:
        raise TypeError(f'{key} has no `type`; set {key}.type')
    return True


def _list(key: str, value: Any) -> list[Any]:
    """Return what should be a list, and may be nothing."""
    if value is None or isinstance(value, list | tuple):
        return list(value or ())
    raise TypeError(f'{key} is a {type(value).__name__}, where a list is wanted')


def _parts(cfg: Any, purpose: str) -> Iterator[Part]:
    _is_part('model', cfg.get('model'))
    yield from _model('model', cfg.get('model'))
    for stage in LOADERS[purpose]:
        loader, key = cfg.get(f'{stage}_dataloader') or {}, f'{stage}_dataloader'
        yield from _dataset(f'{key}.dataset', loader.get('dataset'))
        yield from _one(f'{key}.sampler', loader, roots.DATA_SAMPLERS, ('dataset', 'seed'))
        yield from _one(
            f'{key}.batch_sampler', loader, roots.DATA_SAMPLERS, ('sampler', 'batch_size')
        )
        evaluators = cfg.get(f'{stage}_evaluator') or ()
        evaluators = evaluators if isinstance(evaluators, list | tuple) else [evaluators]
        for i, metric in enumerate(evaluators):
            where = f'{stage}_evaluator.{i}'
            if _is_part(where, metric) and metric['type'] != 'Evaluator':
                yield Part(where, metric, roots.METRICS)
        loop = cfg.get(f'{stage}_cfg')
        if _is_dict(f'{stage}_cfg', loop):
            given = 'runner', 'dataloader', 'evaluator'
            kind = LOOPS[stage] if loop.get('by_epoch', True) else 'IterBasedTrainLoop'
            yield Part(f'{stage}_cfg', loop, roots.LOOPS, given, ('by_epoch',), kind)
    if purpose == 'train':
        yield from _optimisation(cfg)
    hooks = cfg.get('default_hooks')
    for name, hook in (hooks if _is_dict('default_hooks', hooks) else {}).items():
        where = f'default_hooks.{name}'
        if _is_part(where, hook):
            yield Part(where, hook, roots.HOOKS, (), ('priority',))
    for i, hook in enumerate(_list('custom_hooks', cfg.get('custom_hooks'))):
        if _is_part(f'custom_hooks.{i}', hook):
            yield Part(f'custom_hooks.{i}', hook, roots.HOOKS, (), ('priority',))
    visualizer = cfg.get('visualizer')
    if isinstance(visualizer, dict):
        yield Part('visualizer', visualizer, roots.VISUALIZERS, ('name',), (), 'Visualizer')
        for i, backend in enumerate(visualizer.get('vis_backends') or ()):
            if _is_part(f'visualizer.vis_backends.{i}', backend):
                where = f'visualizer.vis_backends.{i}'
                yield Part(where, backend, roots.VISBACKENDS, ('save_dir',))


def _model(key: str, cfg: Any) -> Iterator[Part]:
    """Walk through a model; its norms and activations are not all in the registry."""
    if isinstance(cfg, list | tuple):
        for i, part in enumerate(cfg):
            yield from _model(f'{key}.{i}', part)
    if not isinstance(cfg, dict):
        return
    name = next(word for word in reversed(key.split('.')) if not word.isdigit())
    if 'type' in cfg:
        initialiser = 'init_cfg' in key.split('.')
        ours = str(cfg['type']).startswith('mmtimesformer.')
        by_parent = not initialiser and name not in AS_GIVEN
        if by_parent and not ours:
            return
        yield Part(
            key,
            cfg,
            roots.WEIGHT_INITIALIZERS if initialiser else roots.MODELS,
            beside=('override',) if initialiser else (),
            must_exist=initialiser or name in MODEL_PARTS or ours,
            by_parent=by_parent,
        )
    for name, part in cfg.items():
        if name in MODEL_PARTS and part is not None and not isinstance(part, list | tuple):
            _is_part(f'{key}.{name}', part)
        yield from _model(f'{key}.{name}', part)


def _dataset(key: str, cfg: Any) -> Iterator[Part]:
    if not _is_part(key, cfg):
        return
    yield Part(key, cfg, roots.DATASETS)
    _is_dict(f'{key}.data_prefix', cfg.get('data_prefix'))
    yield from _transforms(f'{key}.pipeline', cfg.get('pipeline'))
    yield from _dataset(f'{key}.dataset', cfg.get('dataset'))
    for i, part in enumerate(_list(f'{key}.datasets', cfg.get('datasets'))):
        yield from _dataset(f'{key}.datasets.{i}', part)


def type_name(cfg: Any) -> str:
    """Return the name of a component's class, without a prefix; its type may be a class itself."""
    kind = cfg.get('type', '')
    return kind.__name__ if inspect.isclass(kind) else str(kind).rpartition('.')[2]


def _transforms(key: str, steps: Any) -> Iterator[Part]:
    for i, step in enumerate(_list(key, steps)):
        if isinstance(step, list | tuple):  # of ways to choose from
            yield from _transforms(f'{key}.{i}', step)
        elif _is_part(f'{key}.{i}', step):
            yield Part(f'{key}.{i}', step, roots.TRANSFORMS)
            if type_name(step) in NESTING:
                inner = step.get('transforms')
                inner = [inner] if isinstance(inner, dict) else inner
                yield from _transforms(f'{key}.{i}.transforms', inner)


def _optimisation(cfg: Any) -> Iterator[Part]:
    wrapper = cfg.get('optim_wrapper')
    if _is_dict('optim_wrapper', wrapper) and 'constructor' in wrapper:
        yield Part(
            'optim_wrapper.constructor',
            {'type': wrapper['constructor']},
            roots.OPTIM_WRAPPER_CONSTRUCTORS,
            ('optim_wrapper_cfg', 'paramwise_cfg'),
        )
    elif isinstance(wrapper, dict) and 'optimizer' not in wrapper:
        raise TypeError('optim_wrapper has no `optimizer`; set optim_wrapper.optimizer')
    if isinstance(wrapper, dict) and _is_part('optim_wrapper.optimizer', wrapper.get('optimizer')):
        beside = 'constructor', 'paramwise_cfg', 'accumulate'
        yield Part(
            'optim_wrapper', wrapper, roots.OPTIM_WRAPPERS, ('optimizer',), beside, 'OptimWrapper'
        )
        if 'constructor' not in wrapper:  # which may take the optimiser's keys for its own
            yield Part(
                'optim_wrapper.optimizer', wrapper['optimizer'], roots.OPTIMIZERS, ('params',)
            )
    schedulers = cfg.get('param_scheduler')
    if isinstance(schedulers, dict) and schedulers and 'type' not in schedulers:
        several = schedulers.values()  # a list for each of several optimisers
        schedulers = [one for row in several for one in (row if isinstance(row, list) else [row])]
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    for i, scheduler in enumerate(_list('param_scheduler', schedulers)):
        if _is_part(f'param_scheduler.{i}', scheduler):
            given = 'optimizer', 'epoch_length', 'param_name'
            by_mmengine = ('convert_to_iter_based',)
            yield Part(
                f'param_scheduler.{i}', scheduler, roots.PARAM_SCHEDULERS, given, by_mmengine
            )


def _one(key: str, loader: Any, registry: Registry, given: tuple[str, ...]) -> Iterator[Part]:
    part = loader.get(key.rpartition('.')[2])
    if _is_part(key, part):
        yield Part(key, part, registry, given)
