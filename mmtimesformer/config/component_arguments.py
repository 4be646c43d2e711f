"""Whether a part that a config names exists, and takes what the config gives it."""

import ast
import importlib
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from mmengine import registry as roots
from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry
from torch import Tensor

from mmtimesformer.cli import near_name

# Ours do what MMEngine's do, and survive more. With the prefix `mmengine.` MMEngine's are meant.
OURS = {
    'EpochBasedTrainLoop': 'mmtimesformer.ResumableEpochLoop',
    'CheckpointHook': 'mmtimesformer.AtomicCheckpointHook',
}
CLOSED = (CheckpointHook,)  # whose **kwargs nobody takes
# Packages that MMAction2 imports when it builds or runs these, and does not require.
PACKAGES = {
    'DecordInit': 'decord',
    'ImgAug': 'imgaug',
    'PIMSInit': 'pims',
    'PyAVInit': 'av',
    'PytorchVideoWrapper': 'pytorchvideo',
    'TorchVisionWrapper': 'torchvision',
}
READERS = ('av', 'decord')  # which are imported where videos are read, not in the main process
OF_PACKAGES = ('timm.', 'torchvision.')  # backbones that MMAction2 builds without a registry
NUMBERS, TEXT = 'a number', 'text'


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
        by_parent: Whether another component builds it, which may add and remove arguments.
    """

    key: str
    cfg: dict[str, Any]
    registry: Registry
    given: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    kind: str | None = None
    must_exist: bool = True
    by_parent: bool = False


def check_part(part: Part, scope: str | None) -> None:
    """Check the type of a part and what it is given; parts inside it are others.

    Args:
        part: The part.
        scope: The config's ``default_scope``.

    Raises:
        ValueError: The type does not exist, or a number is text or the other way round.
        TypeError: An argument does not exist or is missing.
        FileNotFoundError: A checkpoint to start from does not exist.
    """
    kind = part.cfg.get('type', part.kind)
    kind = OURS.get(kind, kind) if isinstance(kind, str) else kind
    cls = _find(part, kind, part.cfg.get('_scope_') or scope) if isinstance(kind, str) else kind
    if not inspect.isclass(cls):
        return
    _check_package(part, cls)
    signature = _signature(cls)
    for name, value in part.cfg.items():
        if name in ('type', '_scope_', *part.beside):
            continue
        if name not in signature.names:
            near = near_name(name, signature.names, 0.8)  # an open one swallows what is misspelt
            if near or not signature.is_open:
                raise TypeError(f'{part.key}.{name}: {cls.__name__} has no such argument{near}')
            continue
        wanted = signature.wanted.get(name)
        if wanted == NUMBERS and isinstance(value, str):
            raise ValueError(f'{part.key}.{name}={value!r} is text; {cls.__name__} wants a number')
        if wanted == TEXT and isinstance(value, int | float):
            raise ValueError(f'{part.key}.{name}={value!r} is a number; {cls.__name__} wants text')
    for name in signature.required - {*part.cfg, *part.given} if not part.by_parent else ():
        raise TypeError(f'{part.key}: {cls.__name__} needs {name!r}; set {part.key}.{name}')
    checkpoint = part.cfg.get('checkpoint')
    if part.registry is roots.WEIGHT_INITIALIZERS and isinstance(checkpoint, str):
        path = Path(checkpoint).expanduser()
        if '://' not in checkpoint and not path.exists():
            raise FileNotFoundError(
                f'checkpoint {checkpoint} does not exist (looked in {path.absolute().parent}); '
                f'set {part.key}.checkpoint'
            )


def _check_package(part: Part, cls: type) -> None:
    """Import a package that a class of MMAction2 needs, before a training has begun."""
    package = PACKAGES.get(cls.__name__)
    if package is None or not cls.__module__.startswith('mmaction.'):
        return
    if find_spec(package) is None:
        _refuse_without(package, f'{part.key}.type={cls.__name__!r}')
    if package in READERS:
        return
    try:
        importlib.import_module(package)
    except Exception as error:
        reason = f'cannot be imported here ({" ".join(str(error).split())})'
        _refuse_without(package, f'{part.key}.type={cls.__name__!r}', reason)


def _refuse_without(package: str, what: str, why: str = 'is not installed') -> NoReturn:
    raise ValueError(
        f'{what} needs the package {package}, which {why}; take another type'
    ) from None


def _find(part: Part, kind: str, scope: str | None) -> Any:
    package = kind.partition('.')[0]
    if part.registry is roots.MODELS and kind.startswith(OF_PACKAGES):
        if find_spec(package) is None:
            _refuse_without(package, f'{part.key}.type={kind!r}')
        return None
    with part.registry.switch_scope_and_registry(scope) as registry:
        found = registry.get(kind)
        if found is not None or not part.must_exist:
            return found
        known: set[str] = set()
        place: Registry | None = registry
        while place is not None:
            known |= set(place.module_dict)
            place = place.parent
    package = package if '.' in kind else scope or ''
    if package.startswith('mm') and find_spec(package) is None:  # of OpenMMLab
        _refuse_without(package, f'{part.key}.type={kind!r}')
    ours = part.registry.children.get('mmtimesformer')
    if ours is not None:
        known |= {f'mmtimesformer.{name}' for name in ours.module_dict}
    raise ValueError(
        f'there is no {part.registry.name} named {kind!r} in {scope or "mmengine"}; check the '
        f'spelling of {part.key}.type, and its prefix' + near_name(kind, known)
    )


@dataclass
class _Signature:
    """What a constructor takes, together with those of its parents that it passes the rest on to.

    Attributes:
        names: Of arguments.
        required: Those of its own without a default; a parent's are the class's to give.
        wanted: ``NUMBERS`` or ``TEXT`` for those that want nothing else (a row of numbers is one).
        is_open: Whether any name is taken.
    """

    names: set[str]
    required: set[str]
    wanted: dict[str, str]
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
                if wanted and not _contradicts(wanted, argument.default):
                    found.wanted[argument.name] = wanted
        own = False
        if not found.is_open:
            return found
        found.names |= _names_in(init)
        if not _passes_on(init):
            return found
        if parent in CLOSED:
            found.is_open = False
            return found
    return found


def _contradicts(wanted: str, default: Any) -> bool:
    """Whether an argument's own default is of the kind that its hint excludes."""
    return isinstance(default, str) if wanted == NUMBERS else isinstance(default, int | float)


def _names_in(init: Any) -> set[str]:
    """Return the words that a constructor mentions, such as those it takes out of ``**kwargs``."""
    constants = (node.value for node in ast.walk(_source(init)) if isinstance(node, ast.Constant))
    return {word for word in constants if isinstance(word, str) and word.isidentifier()}


def _passes_on(init: Any) -> bool:
    """Whether a constructor hands its ``**kwargs`` to that of a parent, and does not keep them."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == '__init__'
        and any(keyword.arg is None for keyword in node.keywords)
        for node in ast.walk(_source(init))
    )


def _source(function: Any) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], [])


def _wanted(hint: Any) -> str | None:
    """Tell hints that want numbers, or text, from those that want anything else."""
    kinds = set(_leaves(hint)) - {type(None), ...}
    if kinds and kinds <= {int, float, bool, Tensor}:
        return NUMBERS
    return TEXT if kinds == {str} else None


def _leaves(hint: Any) -> Iterator[Any]:
    """Walk through unions, and rows of things."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple, list, Sequence):
        for part in typing.get_args(hint):
            yield from _leaves(part)
    else:
        yield hint
