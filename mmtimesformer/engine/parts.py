"""Whether the parts that a config names exist and take what it gives them, without building any.

A data set is built, and its lists are read, only after the model, and some parts not before the
first validation; what is misspelt there is told at once, with its key.
"""

import difflib
import inspect
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine import registry as roots
from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry
from torch.utils.data import DataLoader

# Ours do what MMEngine's do, and survive more. With the prefix `mmengine.` MMEngine's are meant.
OURS = {
    'EpochBasedTrainLoop': 'mmtimesformer.ExactEpochLoop',
    'CheckpointHook': 'mmtimesformer.SafeCheckpointHook',
}
LOADERS = {'train': ('train', 'val'), 'test': ('test',)}
LOOPS = {'train': 'EpochBasedTrainLoop', 'val': 'ValLoop', 'test': 'TestLoop'}
LOADER_KEYS = {
    *inspect.signature(DataLoader.__init__).parameters, 'clips_per_video',
    'disable_subprocess_warning', 'num_batch_per_epoch',
} - {'self'}  # fmt: skip
MODEL_PARTS = ('model', 'backbone', 'neck', 'cls_head', 'data_preprocessor')  # of MMAction2
CLOSED = (CheckpointHook,)  # whose **kwargs nobody takes
NUMBERS: set[type] = {int, float, bool}
TEXT: set[type] = {str}


@dataclass
class Part:
    """A dictionary with a ``type``, somewhere in a config.

    Attributes:
        key: Where it is.
        cfg: It.
        registry: Where its type is looked for.
        given: Arguments that its builder adds.
        beside: Keys that its builder takes out.
        kind: Its type, where it does not say.
        must_exist: Whether the registry knows all such types.
    """

    key: str
    cfg: dict[str, Any]
    registry: Registry
    given: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    kind: str | None = None
    must_exist: bool = True


def check_parts(cfg: Any, purpose: str) -> None:
    """Check all parts of a config that a run builds.

    Args:
        cfg: The config, options merged.
        purpose: ``'train'`` or ``'test'``.

    Raises:
        ValueError: A type does not exist, or a number is text or the other way round.
        TypeError: An argument does not exist or is missing.
        FileNotFoundError: A checkpoint to start from does not exist.
    """
    for stage in LOADERS[purpose]:
        for key in set(cfg.get(f'{stage}_dataloader') or ()) - LOADER_KEYS:
            raise TypeError(
                f'{stage}_dataloader.{key}: a data loader has no such setting'
                + _near(key, LOADER_KEYS)
            )
    for part in _parts(cfg, purpose):
        _check(part, cfg.get('default_scope'))


def _parts(cfg: Any, purpose: str) -> Iterator[Part]:
    yield from _model('model', cfg.get('model'))
    for stage in LOADERS[purpose]:
        loader, key = cfg.get(f'{stage}_dataloader') or {}, f'{stage}_dataloader'
        yield from _dataset(f'{key}.dataset', loader.get('dataset'))
        yield from _one(f'{key}.sampler', loader, roots.DATA_SAMPLERS, ('dataset', 'seed'))
        yield from _one(
            f'{key}.batch_sampler', loader, roots.DATA_SAMPLERS, ('sampler', 'batch_size')
        )
        evaluators = cfg.get(f'{stage}_evaluator') or ()
        evaluators = [evaluators] if isinstance(evaluators, dict) else list(evaluators)
        for i, metric in enumerate(evaluators):
            if isinstance(metric, dict) and metric.get('type') != 'Evaluator':
                yield Part(f'{stage}_evaluator.{i}', metric, roots.METRICS)
        loop = cfg.get(f'{stage}_cfg')
        if isinstance(loop, dict):
            given = 'runner', 'dataloader', 'evaluator'
            kind = LOOPS[stage] if loop.get('by_epoch', True) else 'IterBasedTrainLoop'
            yield Part(f'{stage}_cfg', loop, roots.LOOPS, given, ('by_epoch',), kind)
    if purpose == 'train':
        yield from _optimisation(cfg)
    hooks = dict(cfg.get('default_hooks') or {})
    for name, hook in hooks.items():
        if isinstance(hook, dict):
            yield Part(f'default_hooks.{name}', hook, roots.HOOKS, (), ('priority',))
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        if isinstance(hook, dict):
            yield Part(f'custom_hooks.{i}', hook, roots.HOOKS, (), ('priority',))
    visualizer = cfg.get('visualizer')
    if isinstance(visualizer, dict):
        yield Part('visualizer', visualizer, roots.VISUALIZERS, ('name',), (), 'Visualizer')
        for i, backend in enumerate(visualizer.get('vis_backends') or ()):
            yield Part(f'visualizer.vis_backends.{i}', backend, roots.VISBACKENDS, ('save_dir',))


def _model(key: str, cfg: Any) -> Iterator[Part]:
    """Walk through a model; its norms and activations are not all in the registry."""
    if isinstance(cfg, list | tuple):
        for i, part in enumerate(cfg):
            yield from _model(f'{key}.{i}', part)
    if not isinstance(cfg, dict):
        return
    name = key.rpartition('.')[2]
    if 'type' in cfg:
        initialiser = 'init_cfg' in key.split('.')
        yield Part(
            key,
            cfg,
            roots.WEIGHT_INITIALIZERS if initialiser else roots.MODELS,
            beside=('override',) if initialiser else (),
            must_exist=initialiser or name in MODEL_PARTS,
        )
    for name, part in cfg.items():
        yield from _model(f'{key}.{name}', part)


def _dataset(key: str, cfg: Any) -> Iterator[Part]:
    if not isinstance(cfg, dict) or 'type' not in cfg:
        return
    yield Part(key, cfg, roots.DATASETS)
    yield from _transforms(f'{key}.pipeline', cfg.get('pipeline'))
    yield from _dataset(f'{key}.dataset', cfg.get('dataset'))
    for i, part in enumerate(cfg.get('datasets') or ()):
        yield from _dataset(f'{key}.datasets.{i}', part)


def _transforms(key: str, steps: Any) -> Iterator[Part]:
    if not isinstance(steps, list | tuple):
        return
    for i, step in enumerate(steps):
        if isinstance(step, dict) and 'type' in step:
            yield Part(f'{key}.{i}', step, roots.TRANSFORMS)
            yield from _transforms(f'{key}.{i}.transforms', step.get('transforms'))
        else:
            yield from _transforms(f'{key}.{i}', step)


def _optimisation(cfg: Any) -> Iterator[Part]:
    wrapper = cfg.get('optim_wrapper')
    if isinstance(wrapper, dict) and isinstance(wrapper.get('optimizer'), dict):
        beside = 'constructor', 'paramwise_cfg', 'accumulate'
        yield Part(
            'optim_wrapper', wrapper, roots.OPTIM_WRAPPERS, ('optimizer',), beside, 'OptimWrapper'
        )
        if 'constructor' not in wrapper:  # which may take the optimiser's keys for its own
            yield Part(
                'optim_wrapper.optimizer', wrapper['optimizer'], roots.OPTIMIZERS, ('params',)
            )
    schedulers = cfg.get('param_scheduler')
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers or ()
    for i, scheduler in enumerate(schedulers):
        if isinstance(scheduler, dict) and 'type' in scheduler:
            given = 'optimizer', 'epoch_length', 'param_name'
            by_mmengine = ('convert_to_iter_based',)
            yield Part(
                f'param_scheduler.{i}', scheduler, roots.PARAM_SCHEDULERS, given, by_mmengine
            )


def _one(key: str, loader: Any, registry: Registry, given: tuple[str, ...]) -> Iterator[Part]:
    part = loader.get(key.rpartition('.')[2])
    if isinstance(part, dict) and 'type' in part:
        yield Part(key, part, registry, given)


def _check(part: Part, scope: str | None) -> None:
    kind = part.cfg.get('type', part.kind)
    kind = OURS.get(kind, kind) if isinstance(kind, str) else kind
    cls = _find(part, kind, scope) if isinstance(kind, str) else kind
    if not inspect.isclass(cls):
        return
    signature = _signature(cls)
    for name, value in part.cfg.items():
        if name in ('type', '_scope_', *part.beside):
            continue
        if name not in signature.names:
            near = _near(name, signature.names, 0.8)  # an open one swallows what is misspelt
            if near or not signature.is_open:
                raise TypeError(f'{part.key}.{name}: {cls.__name__} has no such argument{near}')
            continue
        wanted = signature.wanted.get(name)
        if wanted is NUMBERS and isinstance(value, str):
            raise ValueError(f'{part.key}.{name}={value!r} is text; {cls.__name__} wants a number')
        if wanted is TEXT and isinstance(value, int | float):
            raise ValueError(f'{part.key}.{name}={value!r} is a number; {cls.__name__} wants text')
    for name in signature.required - {*part.cfg, *part.given}:
        raise TypeError(f'{part.key}: {cls.__name__} needs {name!r}; set {part.key}.{name}')
    checkpoint = part.cfg.get('checkpoint')
    if part.registry is roots.WEIGHT_INITIALIZERS and isinstance(checkpoint, str):
        path = Path(checkpoint).expanduser()
        if '://' not in checkpoint and not path.exists():
            raise FileNotFoundError(
                f'checkpoint {checkpoint} does not exist (looked in {path.absolute().parent}); '
                f'set {part.key}.checkpoint'
            )


def _find(part: Part, kind: str, scope: str | None) -> Any:
    with part.registry.switch_scope_and_registry(scope) as registry:
        found = registry.get(kind)
        if found is not None or not part.must_exist:
            return found
        known: set[str] = set()
        place: Registry | None = registry
        while place is not None:
            known |= set(place.module_dict)
            place = place.parent
    ours = part.registry.children.get('mmtimesformer')
    if ours is not None:
        known |= {f'mmtimesformer.{name}' for name in ours.module_dict}
    raise ValueError(
        f'there is no {part.registry.name} named {kind!r} in {scope or "mmengine"}; check the '
        f'spelling of {part.key}.type, and its prefix' + _near(kind, known)
    )


@dataclass
class _Signature:
    """What a constructor takes, together with those of its parents that it passes the rest on to.

    Attributes:
        names: Of arguments.
        required: Those of its own without a default; a parent's are the class's to give.
        wanted: ``NUMBERS`` or ``TEXT`` for those that want nothing else.
        is_open: Whether any name is taken.
    """

    names: set[str]
    required: set[str]
    wanted: dict[str, Any]
    is_open: bool


def _signature(cls: type) -> _Signature:
    found, own = _Signature(set(), set(), {}, True), True
    for parent in cls.__mro__:
        init = vars(parent).get('__init__')
        if init is None or parent is object:
            continue
        try:
            arguments = list(inspect.signature(init).parameters.values())[1:]
            hints = typing.get_type_hints(init)
        except (ValueError, TypeError, NameError, AttributeError):
            return _Signature(set(), set(), {}, True)  # written in C, or its hints name nothing
        found.is_open = False
        for argument in arguments:
            if argument.kind is argument.VAR_KEYWORD:
                found.is_open = True
            elif argument.kind is not argument.VAR_POSITIONAL and argument.name not in found.names:
                found.names.add(argument.name)
                if argument.default is argument.empty and own:
                    found.required.add(argument.name)
                wanted = _wanted(hints.get(argument.name))
                if wanted:
                    found.wanted[argument.name] = wanted
        own = False
        if not found.is_open:
            return found
        if parent in CLOSED:
            found.is_open = False
            return found
    return found


def _wanted(hint: Any) -> set[type] | None:
    """Tell hints that want numbers, or text, from those that want anything else."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = set(typing.get_args(hint)) if union else {hint}
    kinds -= {type(None)}
    for wanted in (NUMBERS, TEXT):
        if kinds and kinds <= wanted:
            return wanted
    return None


def _near(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=likeness)
    return f'; did you mean {near[0]!r}?' if near else ''
