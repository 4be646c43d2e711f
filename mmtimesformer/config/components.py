"""Check a config by building its cheap components, so that every mistake ends with its key.

Transforms, lazy data sets, data loaders, metrics, hooks and the visualizer are built as the run
will build them. A recognizer gets no memory for its weights; the optimizer and the schedulers are
built for it. No video or list is read and no file written. A user's own classes, loops, and other
models (some download weights) are only compared with their signatures.
"""

import copy
import inspect
import logging
import random
import re
import reprlib
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import registry as roots
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.registry import DefaultScope, Registry
from mmengine.registry.build_functions import build_from_cfg
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from mmtimesformer.cli import near_name, require_file
from mmtimesformer.config.label_checks import AUTO, BALANCED, TARGETS, check_metric_names

# Components of MMEngine that the Runner replaces by ours; `mmengine.CheckpointHook` stays.
REPLACEMENTS = {
    'EpochBasedTrainLoop': 'mmtimesformer.ResumableEpochLoop',
    'CheckpointHook': 'mmtimesformer.AtomicCheckpointHook',
}
WEIGHTED_LOSSES = ('CrossEntropyLoss', 'BCELossWithLogits')  # of MMAction2
STAGES = {'train': ('train', 'val'), 'test': ('test',)}
LOOPS = {'train': 'EpochBasedTrainLoop', 'val': 'ValLoop', 'test': 'TestLoop'}
TOGETHER = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}
# Dictionaries that are read key by key, where a misspelt key would be ignored.
KEYS: dict[str, set[str]] = {
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'auto_scale_lr': {'enable', 'base_batch_size', 'accumulate'},
}
PARAMWISE = {
    'custom_keys', 'lr_mult', 'decay_mult', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
    'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate',
}  # fmt: skip
COUNTS = (  # positive integers that a training divides by or counts to
    'train_cfg.max_epochs', 'train_cfg.max_iters', 'train_cfg.val_interval',
    'optim_wrapper.accumulative_counts', 'auto_scale_lr.base_batch_size',
    'default_hooks.logger.interval',
)  # fmt: skip
HOOK_NAMES = 'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'
MODEL_KEYS = ('model', 'backbone', 'neck', 'cls_head', 'data_preprocessor')  # of MMAction2
TRUSTED = {'mmengine', 'mmaction', 'mmcv', 'mmtimesformer', 'torch'}  # their constructors are cheap
RECOGNIZERS = 'mmaction.models.recognizers.'  # models that download nothing when they are built
OTHER_BACKBONES = ('timm.', 'torchvision.', 'mmcls.', 'mmpretrain.')
READERS = {'DecordInit': 'decord', 'PIMSInit': 'pims', 'PyAVInit': 'av'}  # imported by workers
NUMERIC_HINTS = {
    'int', 'float', 'bool', 'Tensor', 'None', 'NoneType', 'tuple', 'Tuple', 'list', 'List',
    'Sequence', 'Union', 'Optional', 'typing', 'collections', 'abc', 'torch', 'class',
}  # fmt: skip
# Errors that only the check has: weights without memory, no connection between processes.
NOT_OF_THE_CONFIG = re.compile(r'\bmeta\b|process group', re.IGNORECASE)


def check_components(cfg: Config, purpose: str) -> list[str]:
    """Check all components of a config that a run builds, to ``'train'`` or to ``'test'``.

    Return notes on what is legal and may be a mistake, one sentence each.

    Raises:
        ValueError: A type does not exist, or a component refuses a value.
        TypeError: An argument does not exist or is missing, or a value has the wrong type.
        FileNotFoundError: A checkpoint to start from does not exist.
    """
    _check_complete(cfg, purpose)
    _check_values(cfg)
    if purpose == 'train':
        _check_training_values(cfg)
    with _state_restored(), DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = _build_model(cfg.model)
        for stage in STAGES[purpose]:
            _check_stage(cfg, stage)
        if purpose == 'train':
            _check_optimization(cfg, model)
        _build_hooks(cfg)
    names = {name: near_name(name, HOOK_NAMES, 0.8) for name in cfg.get('default_hooks') or ()}
    return [
        f"default_hooks.{name} is added to MMEngine's default hooks{near}"
        for name, near in names.items()
        if near and name not in HOOK_NAMES
    ]


def replaced(cfg: Any) -> Any:
    """Name our component where a config names MMEngine's, without a prefix or by its class."""
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    if inspect.isclass(kind) and kind.__module__.startswith('mmengine.'):
        kind = kind.__name__
    if isinstance(kind, str) and kind in REPLACEMENTS:
        return {**cfg, 'type': REPLACEMENTS[kind]}
    return cfg


def _build(
    key: str, cfg: Any, registry: Registry, popped: Collection[str] = (), **injected: object
) -> Any:
    """Build a component as MMEngine does, with its key in every error.

    Keys in ``popped`` do not reach its constructor; MMEngine adds what is ``injected``. Returns
    ``None`` for a user's own class, which is not built.
    """
    if not _is_component(key, cfg):
        return None
    cls = _find(key, cfg, registry)
    args = copy.deepcopy(cfg)
    for name in popped:
        args.pop(name, None)
    if not _is_trusted(cls):
        return _check_call(key, cls, args, **injected)
    _check_arguments(key, cls, args)
    try:
        return registry.build(args, default_args=injected)
    except Exception as error:
        return _refuse(error, key, args, cls)


def _check_call(
    key: str, function: Callable[..., object], args: Mapping[str, Any], **injected: object
) -> None:
    """Compare arguments with the signature of a class or function that the run will call."""
    args = {name: value for name, value in args.items() if name not in ('type', '_scope_')}
    _check_arguments(key, function, args)
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a function in C
        return
    try:
        signature.bind(**injected | args)
    except TypeError as error:
        _refuse(error, key, args, function)


def _find(key: str, cfg: Mapping[str, Any], registry: Registry) -> Any:
    """Return the class that a component names."""
    kind = cfg['type']
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(cfg.get('_scope_')) as place:
        found = place.get(kind)
    _require(READERS.get(kind.removeprefix('mmaction.')), f'{key}.type={kind!r}')
    if found is not None:
        return found
    package = cfg.get('_scope_') or (kind.partition('.')[0] if '.' in kind else place.scope)
    if package.startswith('mm'):  # of OpenMMLab
        _require(package, f'{key}.type={kind!r}')
    known = {*place.module_dict, *place.root.module_dict}
    ours = place.root.children.get('mmtimesformer')
    known |= {f'mmtimesformer.{name}' for name in ours.module_dict} if ours else set()
    raise ValueError(
        f'there is no {place.name} named {kind!r} in {place.scope}; check the spelling of '
        f'{key}.type, and its prefix{near_name(kind, known)}'
    )


def _is_trusted(cls: Any) -> bool:
    return str(getattr(cls, '__module__', '')).partition('.')[0] in TRUSTED


def _require(package: str | None, what: str) -> None:
    if package is not None and find_spec(package) is None:
        raise ValueError(
            f'{what} needs the package {package}, which is not installed; take another type'
        )


def _refuse(error: Exception, key: str, cfg: Mapping[str, Any], cls: Any) -> None:
    """Raise the error of a constructor again, with the key of the component that has failed."""
    text = ' '.join(str(error).split())
    if NOT_OF_THE_CONFIG.search(text):
        return
    key, cfg, cls = _innermost(error, key, cfg, cls)
    name = getattr(cls, '__name__', str(cls))
    _check_imports(error, f'{key}.type={name!r}')
    _check_arguments(key, cls, cfg)
    missing = re.search(r"missing .*required .*argument.*: '(\w+)'", text)
    if isinstance(error, KeyError):
        missing = missing or re.fullmatch(r"'(\w+)'", text)
    if missing:
        raise TypeError(f'{key}: {name} needs {missing[1]!r}; set {key}.{missing[1]}') from error
    for argument in cfg:
        if f"argument '{argument}'" in text:
            near = near_name(argument, _parameters(cls))
            raise TypeError(f'{key}.{argument}: {name} has no such argument{near}') from error
    named = next((x for x in re.findall(r'\w+', text.lower()) if x in cfg and x != 'type'), None)
    values = [x for x in cfg if str(cfg[x]) in re.split(r'[\s.,:;]+', text) and x != 'type']
    named = named or (values[0] if len(values) == 1 else None)
    if named and f'{named}={cfg[named]!r}' not in text:
        key = f'{key}.{named}={cfg[named]!r}'
    kind = next((k for k in (FileNotFoundError, TypeError) if isinstance(error, k)), ValueError)
    if not isinstance(error, kind):
        text = text or str(traceback.extract_tb(error.__traceback__)[-1].line)
        text = f'{name} cannot be built ({type(error).__name__}: {text})'
    raise kind(f'{key}: {text}') from error


def _innermost(error: Exception, key: str, cfg: Any, cls: Any) -> tuple[str, Any, Any]:
    """Find which component inside has failed, by the calls of MMEngine's ``build_from_cfg``."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        inner = frame.f_locals.get('cfg')
        if frame.f_code is build_from_cfg.__code__ and isinstance(inner, dict):
            inside = ((k, d) for k, d in _dicts(key, cfg) if 'type' in d)
            key = next((k for k, d in inside if all(inner.get(n) == d[n] for n in d)), key)
            cfg, cls = inner, _find(key, inner, frame.f_locals['registry'])
    return key, cfg, cls


def _check_imports(error: Exception, what: str) -> None:
    """Name a package that is not installed or cannot be imported."""
    for cause in (error, error.__context__):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            _require(cause.name.partition('.')[0], what)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == '<module>':
            package = frame.f_globals['__name__'].partition('.')[0]
            why = f'cannot be imported here ({error}); take another type'
            raise ValueError(f'{what} needs the package {package}, which {why}') from error


def _parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """Return what a function takes, or a constructor and those of its parents, by name."""
    parents = inspect.getmro(cls)[:-1] if inspect.isclass(cls) else ()
    functions = [vars(parent)['__init__'] for parent in parents if '__init__' in vars(parent)]
    found: dict[str, inspect.Parameter] = {}
    for function in functions if inspect.isclass(cls) else [cls]:
        with suppress(ValueError):  # of functions in C
            found = {**inspect.signature(function).parameters, **found}
    return found


def _check_arguments(key: str, cls: Any, args: Mapping[str, Any]) -> None:
    """Refuse text where a type hint wants numbers, and a misspelt name that ``**kwargs`` takes."""
    parameters = _parameters(cls)
    for name, value in args.items():
        parameter = parameters.get(name)
        if parameter is None:
            near = near_name(name, parameters, 0.8)
            if near and name not in ('type', '_scope_') and _is_trusted(cls):
                raise TypeError(f'{key}.{name}: {cls.__name__} has no such argument{near}')
            continue
        hint = re.findall(r'[A-Za-z_]+', str(parameter.annotation))
        default_is_text = isinstance(parameter.default, str)
        if isinstance(value, str) and not default_is_text and NUMERIC_HINTS.issuperset(hint):
            raise ValueError(f'{key}.{name}={value!r} is text; {cls.__name__} wants a number')


@contextmanager
def _state_restored() -> Iterator[None]:
    """Restore random states, the log level and MMEngine's global instances."""
    instances = {cls: dict(cls._instance_dict) for cls in _subclasses(ManagerMixin)}
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for cls in _subclasses(ManagerMixin):
            cls._instance_dict.clear()
            cls._instance_dict.update(instances.get(cls, {}))


def _subclasses(cls: Any) -> list[Any]:
    return [x for child in cls.__subclasses__() for x in (child, *_subclasses(child))]


class _WithoutWeights(TorchFunctionMode):
    """Give uninitialized tensors no memory (``meta`` device), and draw no random weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) and args[0].is_meta:
            return args[0]
        meta = {'device': 'meta'} if func is torch.empty else {}
        return func(*args, **(kwargs or {}) | meta)


def _build_model(cfg: Any) -> nn.Module | None:
    """Build a recognizer without memory for its weights; compare other models with signatures."""
    if not _is_component('model', cfg):
        return None
    cfg, components = copy.deepcopy(cfg), []
    for key, part in _dicts('model', cfg):
        name = key.rstrip('.0123456789').rpartition('.')[2]
        if name == 'init_cfg':
            _check_initializer(key, part)
        elif name in MODEL_KEYS and _is_component(key, part):
            kind, cls = str(part['type']), None
            if kind.startswith(OTHER_BACKBONES):
                _require(kind.partition('.')[0], f'{key}.type={kind!r}')
            else:
                cls = _find(key, part, roots.MODELS)
                for child in MODEL_KEYS:
                    if not isinstance(part.get(child), list | tuple):
                        _is_component(f'{key}.{child}', part.get(child))
            components.append((key, cls, part))
        for name_of_target in TARGETS:
            if part.get(name_of_target) == AUTO:
                del part[name_of_target]
        if part.get('class_weight') == BALANCED:  # the Runner computes the numbers from the list
            _check_balanced(key, part)
            del part['class_weight']
        if 'pretrained' in part:  # some constructors load it
            part['pretrained'] = None
    classes = [cls for _, cls, _ in components]
    if all(map(_is_trusted, classes)) and classes[0].__module__.startswith(RECOGNIZERS):
        with _WithoutWeights():
            return _build('model', cfg, roots.MODELS)
    for key, cls, part in components:
        if cls is not None:
            _check_call(key, cls, part)
    return None


def _check_balanced(key: str, loss: Any) -> None:
    if str(loss.get('type')).rpartition('.')[2] not in WEIGHTED_LOSSES:
        raise ValueError(
            f'{key}.class_weight={BALANCED!r}: {loss.get("type")} takes no class weights, only '
            f'{" and ".join(WEIGHTED_LOSSES)} do; set {key}.type, or remove {key}.class_weight'
        )


def _check_initializer(key: str, cfg: Any) -> None:
    _build(key, cfg, roots.WEIGHT_INITIALIZERS, ('override',))
    if isinstance(cfg.get('checkpoint'), str):
        require_file(cfg['checkpoint'], 'checkpoint', f'set {key}.checkpoint')


def _check_stage(cfg: Config, stage: str) -> None:
    """Check data, metrics and loop of a training, validation or test."""
    key, loop = f'{stage}_dataloader', f'{stage}_cfg'
    if _is_dict(key, cfg.get(key)):
        _build_dataset(f'{key}.dataset', cfg[key].get('dataset'))
        _build_loader(key, cfg[key])
    _build_metrics(f'{stage}_evaluator', cfg.get(f'{stage}_evaluator'))
    if _is_dict(loop, cfg.get(loop)):
        kind = LOOPS[stage] if cfg[loop].get('by_epoch', True) else 'IterBasedTrainLoop'
        args = replaced({'type': kind, **cfg[loop]})
        args.pop('by_epoch', None)
        given = dict.fromkeys(('runner', 'dataloader', 'evaluator')[: 2 if stage == 'train' else 3])
        _check_call(loop, _find(loop, args, roots.LOOPS), args, **given)


def _build_dataset(key: str, cfg: Any) -> Any:
    """Build a data set with its pipeline; it reads its list later."""
    if not _is_component(key, cfg):
        return None
    _is_dict(f'{key}.data_prefix', cfg.get('data_prefix'))
    _check_path(f'{key}.ann_file', cfg.get('ann_file'))
    built: dict[str, Any] = {}
    if 'pipeline' in cfg:
        steps = [
            _build(f'{key}.pipeline.{i}', step, roots.TRANSFORMS)
            for i, step in enumerate(_list(f'{key}.pipeline', cfg['pipeline']))
        ]
        built['pipeline'] = [step for step in steps if step is not None]
    if 'dataset' in cfg:
        built['dataset'] = _build_dataset(f'{key}.dataset', cfg['dataset'])
    if 'datasets' in cfg:
        several = enumerate(_list(f'{key}.datasets', cfg['datasets']))
        built['datasets'] = [_build_dataset(f'{key}.datasets.{i}', inner) for i, inner in several]
    cls = _find(key, cfg, roots.DATASETS)
    unknown = None in (built.get('dataset', 0), *built.get('datasets', ()))
    if 'lazy_init' in _parameters(cls) and not unknown:
        return _build(key, cfg, roots.DATASETS, ('lazy_init', *built), lazy_init=True, **built)
    return _check_call(key, cls, cfg)


def _build_loader(key: str, cfg: Any) -> None:
    """Build a data loader and its samplers, with numbers in place of the videos."""
    _check_count(f'{key}.batch_size', cfg.get('batch_size', 1), 1)
    _check_count(f'{key}.num_workers', cfg.get('num_workers', 0), 0)
    loader = {k: v for k, v in cfg.items() if k != 'clips_per_video'}
    loader['dataset'] = list(range(64))
    given = {'sampler': ('dataset', 'seed'), 'batch_sampler': ('sampler', 'batch_size')}
    for name, arguments in given.items():
        where, sampler = f'{key}.{name}', cfg.get(name)
        if _is_component(where, sampler):
            cls = _find(where, sampler, roots.DATA_SAMPLERS)
            _check_call(where, cls, sampler, **dict.fromkeys(arguments))
            loader[name] = sampler if _is_trusted(cls) else None
    try:
        built = Runner.build_dataloader(loader, seed=0)
    except Exception as error:
        _refuse(error, key, loader, DataLoader)
        return
    if built.timeout and not built.num_workers:
        raise ValueError(
            f'{key}.timeout={built.timeout} needs worker processes; set {key}.num_workers above 0'
        )


def _build_metrics(key: str, cfg: Any) -> None:
    if isinstance(cfg, list | tuple):
        for i, metric in enumerate(cfg):
            _build_metrics(f'{key}.{i}', metric)
    elif isinstance(cfg, dict) and 'metrics' in cfg:
        _build_metrics(f'{key}.metrics', cfg['metrics'])
    else:
        check_metric_names(key, cfg)
        _build(key, cfg, roots.METRICS)


def _check_optimization(cfg: Config, model: nn.Module | None) -> None:
    """Build optimizer, its wrapper and schedulers, for the model or one in its place."""
    optimizer = _build_optimizer('optim_wrapper', cfg.get('optim_wrapper'), model)
    schedulers = cfg.get('param_scheduler')
    several = isinstance(schedulers, dict) and 'type' not in schedulers  # of several optimizers
    for name, group in schedulers.items() if several else [('', schedulers)]:
        key = f'param_scheduler.{name}'.rstrip('.')
        one = optimizer[name] if several and isinstance(optimizer, OptimWrapperDict) else optimizer
        one = one or torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1, 0.9)
        for i, item in enumerate(_list(key, [group] if isinstance(group, dict) else group)):
            _build(f'{key}.{i}', item, roots.PARAM_SCHEDULERS, optimizer=one, epoch_length=1000)


def _build_optimizer(key: str, cfg: Any, model: nn.Module | None) -> Any:
    """Build an optimizer in its wrapper; ``None`` if a user's own class takes part."""
    if not _is_dict(key, cfg):
        return None
    classes = [_find(key, {'type': 'OptimWrapper', **cfg}, roots.OPTIM_WRAPPERS)]
    _check_arguments(key, classes[0], cfg)
    custom = 'constructor' in cfg
    if custom:
        where, registry = f'{key}.constructor', roots.OPTIM_WRAPPER_CONSTRUCTORS
        given = {'optim_wrapper_cfg': cfg, 'paramwise_cfg': cfg.get('paramwise_cfg')}
        _build(where, {'type': cfg['constructor']}, registry, **given)
        classes.append(_find(where, {'type': cfg['constructor']}, registry))
    elif 'optimizer' not in cfg:
        raise TypeError(f'{key} has no `optimizer`; set {key}.optimizer')
    if _is_component(f'{key}.optimizer', cfg.get('optimizer')):
        classes.append(_find(f'{key}.optimizer', cfg['optimizer'], roots.OPTIMIZERS))
        if not custom:  # a constructor may take some of the arguments
            _check_call(f'{key}.optimizer', classes[-1], cfg['optimizer'], params=None)
    if not all(map(_is_trusted, classes)) or (custom and model is None):
        return None
    own = inspect.signature(AmpOptimWrapper).parameters.keys() | {'type'}
    if classes[0] is AmpOptimWrapper:  # which needs a GPU
        cfg = {name: value for name, value in cfg.items() if name not in own}
    try:
        built = build_optim_wrapper(model or nn.Linear(1, 1), copy.deepcopy(cfg))
    except Exception as error:
        return _refuse(error, key, cfg, classes[0])
    if isinstance(built, OptimWrapper) and built.clip_grad_kwargs:
        _check_call(f'{key}.clip_grad', built.clip_func, built.clip_grad_kwargs, parameters=None)
    return built


def _build_hooks(cfg: Config) -> None:
    """Build the visualizer and the hooks, some of which ask for it."""
    visualizer = cfg.get('visualizer') or {}
    if isinstance(visualizer, dict):
        given = {'name': 'check of the config', 'save_dir': 'nowhere'}
        visualizer = {'type': 'Visualizer', **visualizer}
        _build('visualizer', visualizer, roots.VISUALIZERS, given, **given)
    defaults = cfg.get('default_hooks')
    hooks = list(defaults.items()) if _is_dict('default_hooks', defaults) else []
    hooks = [(f'default_hooks.{name}', hook) for name, hook in hooks]
    custom = enumerate(_list('custom_hooks', cfg.get('custom_hooks')))
    for key, hook in hooks + [(f'custom_hooks.{i}', hook) for i, hook in custom]:
        built = _build(key, replaced(hook), roots.HOOKS, ('priority',))
        if isinstance(built, CheckpointHook):
            at_save = dict.fromkeys(('self', 'out_dir', 'filename'))
            _check_call(key, Runner.save_checkpoint, built.args, **at_save)
        if isinstance(built, EMAHook):
            _build(key, built.ema_cfg, roots.MODELS, model=nn.Linear(1, 1))


def _check_complete(cfg: Config, purpose: str) -> None:
    """Check that sections that go together are all there."""
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


def _check_values(cfg: Config) -> None:
    """Check settings that no constructor gets."""
    for name in ('load_from', 'work_dir'):
        _check_path(name, cfg.get(name))
    level = cfg.get('log_level', 'INFO')
    if isinstance(level, str) and logging.getLevelName(level) == f'Level {level}':
        raise ValueError(f'log_level={level!r} is none of DEBUG, INFO, WARNING, ERROR')
    scope = cfg.get('default_scope') or 'mmengine'
    known = scope in roots.MODELS.children or (str(scope).isidentifier() and find_spec(scope))
    if not known:
        raise ValueError(
            f"default_scope={scope!r} is no package that can be imported; set it to 'mmaction'"
        )
    for key, names in KEYS.items():
        _check_keys(key, _at(cfg, key), names)
    randomness = cfg.get('randomness')
    if _is_dict('randomness', randomness):
        _check_call('randomness', Runner.set_randomness, {'seed': None, **randomness}, self=None)
        if randomness.get('seed') is not None:
            _check_count('randomness.seed', randomness['seed'], 0)


def _check_training_values(cfg: Config) -> None:
    for key in COUNTS:
        if _at(cfg, key) is not None:
            _check_count(key, _at(cfg, key), 1)
    key, known = 'optim_wrapper.paramwise_cfg', ('lr_mult', 'decay_mult')
    if _at(cfg, 'optim_wrapper.constructor') is None:  # another one may read other keys
        _check_keys(key, _at(cfg, key), PARAMWISE)
    for part, settings in (_at(cfg, f'{key}.custom_keys') or {}).items():
        near = [name for name in settings if near_name(name, known, 0.8)]
        _check_keys(f'{key}.custom_keys.{part}', dict.fromkeys(near), known)


def _at(cfg: Any, key: str) -> Any:
    """Return the value at a dotted key of a config, or ``None``."""
    for name in key.split('.'):
        cfg = cfg.get(name) if isinstance(cfg, dict | Config) else None
    return cfg


def _check_keys(key: str, value: Any, known: Collection[str]) -> None:
    for name in value if _is_dict(key, value) else ():
        if name not in known:
            raise TypeError(f'{key}.{name}: there is no such setting{near_name(name, known)}')


def _check_count(key: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f'{key}={value!r} is not a whole number from {least} on')


def _check_path(key: str, value: Any) -> None:
    if not isinstance(value, str | Path | None):
        raise TypeError(f'{key}={value!r} is not a path')


def _is_dict(key: str, value: Any) -> bool:
    """Whether there is a dictionary, and not ``None`` or an object that is built already."""
    if isinstance(value, str | int | float | list | tuple):
        found = f'{key}={reprlib.repr(value)} is a {type(value).__name__}'
        raise TypeError(f'{found}, where a dict is wanted')
    return isinstance(value, dict)


def _is_component(key: str, value: Any) -> bool:
    """Whether there is a dictionary to build; it needs a type."""
    if _is_dict(key, value) and 'type' not in value:
        raise TypeError(f'{key} has no `type`; set {key}.type')
    return isinstance(value, dict)


def _list(key: str, value: Any) -> list[Any]:
    """Return what should be a list, and may be ``None``."""
    if value is None or isinstance(value, list | tuple):
        return list(value or ())
    raise TypeError(f'{key} is a {type(value).__name__}, where a list is wanted')


def _dicts(key: str, cfg: Any) -> Iterator[tuple[str, Any]]:
    """Walk through a dictionary and all inside it, with their keys."""
    if isinstance(cfg, dict):
        yield key, cfg
    for name, value in list(cfg.items() if isinstance(cfg, dict) else enumerate(cfg)):
        if isinstance(value, dict | list | tuple):
            yield from _dicts(f'{key}.{name}', value)
