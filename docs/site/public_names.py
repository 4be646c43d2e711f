"""The public interface: which names the API reference has, and whether each is documented."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib
from sphinx.pycode import ModuleAnalyzer

import mmtimesformer


@dataclass(frozen=True)
class ApiPage:
    """A page of the API reference.

    Attributes:
        name: File name of the page.
        title: Heading of the page.
        about: A paragraph of Markdown below it.
        names: Names by module; ``'all'`` stands for the ``__all__`` of the module.
    """

    name: str
    title: str
    about: str
    names: dict[str, list[str] | str]


def read_pages() -> list[ApiPage]:
    """Return the pages of api.toml."""
    table = tomllib.loads((Path(__file__).parent / 'api.toml').read_text(encoding='utf-8'))
    return [ApiPage(**page) for page in table['page']]


PAGES = read_pages()


def names_of(page: ApiPage) -> list[tuple[str, str]]:
    """Return the (module, name) pairs of a page, each name once."""
    return [
        (module, name)
        for module, names in page.names.items()
        for name in (importlib.import_module(module).__all__ if names == 'all' else names)
    ]


def problems() -> Iterator[str]:
    """Give a line for each public name that has no entry, or no docstring."""
    pairs = {pair for page in PAGES for pair in names_of(page)}
    for module in _packages():
        for name in getattr(module, '__all__', ()):
            if not _has_entry(module, name, pairs):
                yield (
                    f'{module.__name__}.{name} is public (it is in __all__), but on no page of the '
                    'API reference; add it in docs/site/api.toml'
                )
    for module_name, name in sorted(pairs):
        yield from _undocumented(importlib.import_module(module_name), name)


def home_of(module: str, name: str) -> str:
    """Return the module that assigns a constant, which may be imported into another one."""
    value = getattr(importlib.import_module(module), name)
    for found in pkgutil.walk_packages(importlib.import_module(module).__path__, f'{module}.'):
        candidate = importlib.import_module(found.name)
        assigned = ('', name) in _comments(candidate)
        if assigned and getattr(candidate, name, None) is value:
            return found.name
    return module


def is_constant(value: Any) -> bool:
    """Return whether a public name is neither a class nor a function."""
    return not (inspect.isclass(value) or callable(value))


def resolve(_app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Resolve a reference that Sphinx did not: by the public name, or as plain text.

    Type hints name the module that defines a class, and the reference has the one that users import
    from. A name that exists, but is not public or belongs to another package, becomes text. A name
    that does not exist remains a warning, which is an error here.
    """
    if node.get('refdomain') != 'py':
        return None
    target = node['reftarget']
    domain = env.get_domain('py')
    last = target.rpartition('.')[2]
    candidates = [
        full
        for full, entry in domain.objects.items()
        if full.rpartition('.')[2] == last
        and entry.objtype not in ('method', 'attribute', 'property')
    ]
    if len(candidates) == 1:
        return domain.resolve_xref(
            env, node['refdoc'], env.app.builder, node['reftype'], candidates[0], node, contnode
        )
    return contnode if _exists(target, node.get('py:module'), node.get('py:class')) else None


def _packages() -> Iterator[Any]:
    for found in pkgutil.walk_packages(mmtimesformer.__path__, 'mmtimesformer.'):
        if found.ispkg:
            yield importlib.import_module(found.name)


def _has_entry(module: Any, name: str, pairs: set[tuple[str, str]]) -> bool:
    value = getattr(module, name)
    return any(
        name == other and getattr(importlib.import_module(m), other) is value for m, other in pairs
    )


def _undocumented(module: Any, name: str) -> Iterator[str]:
    value = getattr(module, name)
    if is_constant(value):
        home = importlib.import_module(home_of(module.__name__, name))
        if ('', name) not in _comments(home):
            yield f'{home.__name__}.{name} is public and has no comment "#: …" above it'
        return
    if not (value.__dict__.get('__doc__') if inspect.isclass(value) else value.__doc__):
        yield f'{value.__module__}.{name} is public and has no docstring'


def _comments(module: Any) -> dict[tuple[str, str], list[str]]:
    analyzer = ModuleAnalyzer.for_module(module.__name__)
    analyzer.analyze()
    return analyzer.attr_docs


def _exists(target: str, module: str | None, cls: str | None) -> bool:
    """Return whether a name exists: absolute, or in the module or class that refers to it."""
    target = target.lstrip('.')
    homes = ['', f'{module}.', f'{module}.{cls}.', 'mmtimesformer.', 'builtins.']
    if module and module.startswith('mmtimesformer'):
        entry = _attribute(f'{module}.{cls}' if cls else module)
        homes.append(f'{getattr(entry, "__module__", module)}.')
    found = any(_attribute(home + target) is not None for home in homes if 'None' not in home)
    return found or any(_attribute(f'{name}.{target}') is not None for name in _loaded())


def _loaded() -> list[str]:
    modules = [name for name in sys.modules if name.startswith('mmtimesformer.')]
    return modules + [module.rpartition('.')[0] for module in modules]


def _attribute(dotted: str) -> Any:
    parts = dotted.split('.')
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module('.'.join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            value = getattr(value, part, None)
        return value
    return None
