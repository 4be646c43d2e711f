"""Check private names of MMEngine and torch where we override or set them, at import.

An override of a method that was renamed upstream is never called, and an attribute that nobody
reads does nothing: a protection would be gone without an error. Here both are an ``ImportError``.
``tests/packaging/test_upstream.py`` holds the whole list.
"""

import dis
import inspect
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import TypeVar

Method = TypeVar('Method', bound=Callable[..., object])


def overrides(base: type) -> Callable[[Method], Method]:
    """Decorate a method that overrides a private one of ``base`` with the same parameters.

    Raises:
        ImportError: ``base`` has no such method, or its parameters have other names.
    """

    def check(method: Method) -> Method:
        name, ours = method.__name__, _parameters(method)
        theirs = getattr(base, name, None)
        if theirs is None or _parameters(theirs) != ours:
            found = f'has {name}({_parameters(theirs)})' if theirs else f'has no {name}'
            raise _changed(base, found, f'{method.__module__} overrides {name}({ours})')
        return method

    return check


def require_attributes(base: type, *names: str, used_by: str) -> None:
    """Check that a class has these attributes, or its methods set them.

    Raises:
        ImportError: One is missing.
    """
    for name in names:
        if not has_attribute(base, name):
            raise _changed(base, f'has no {name}', f'{used_by} uses it')


def has_attribute(base: type, name: str) -> bool:
    """Return whether a class has or annotates an attribute, or a method of it sets one."""
    return hasattr(base, name) or any(
        name in vars(kind).get('__annotations__', ())
        or any(_sets(value, name) for value in vars(kind).values())
        for kind in base.__mro__
    )


def _sets(method: object, name: str) -> bool:
    return (
        isinstance(method, FunctionType)
        and name in method.__code__.co_names
        and any(
            step.opname == 'STORE_ATTR' and step.argval == name
            for step in dis.get_instructions(method)
        )
    )


def _parameters(function: Callable[..., object]) -> str:
    return ', '.join(inspect.signature(function).parameters)


def _changed(base: type, found: str, used: str) -> ImportError:
    package = base.__module__.partition('.')[0]
    version = getattr(import_module(package), '__version__', '')
    return ImportError(
        f'{package} {version}: {base.__module__}.{base.__qualname__} {found}, and {used}; install '
        f'a version of {package} that pyproject.toml allows'
    )
