"""MMEngine: read configs and metafiles of other packages, `mmaction::recognition/…`.

Both `_base_ = 'mmaction::…'` and `mmengine.hub.get_config('mmaction::…')` fail for every config:

- MMEngine before 0.11 finds packages by `pkg_resources`, which setuptools 81 removed. Without it,
  the two functions below, on `importlib.metadata`, take the place of MMEngine's.
- A row of MMAction2 1.1.0's metafiles lists several configs, and MMEngine expects one: 'list'
  object has no attribute 'partition'. Such a row is read as one row for each config.
"""

import importlib.metadata
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmengine.config.utils as config_utils
import mmengine.utils.package_utils as package_utils


def is_installed(package: str) -> bool:
    """Return whether a distribution or a module of this name is installed."""
    return _has_distribution(package) or _folder_of(package) is not None


def get_installed_path(package: str) -> str:
    """Return the folder of the module of a distribution, such as ``mmaction`` of ``mmaction2``.

    Raises:
        importlib.metadata.PackageNotFoundError: It is not installed.
    """
    for module in (package, *_modules_of(package)):
        if folder := _folder_of(module):
            return str(folder)
    raise importlib.metadata.PackageNotFoundError(package)


def one_config_a_row(metafile: Any) -> Any:
    """Return the content of a metafile in which each model has one config.

    Other content, such as that of a ``model-index.yml``, is returned as it is.
    """
    if not isinstance(metafile, dict) or not isinstance(metafile.get('Models'), list):
        return metafile
    rows: list[Any] = []
    for row in metafile['Models']:
        configs = row.get('Config') if isinstance(row, dict) else None
        if isinstance(configs, list):
            rows += [{**row, 'Config': config} for config in configs]
        else:
            rows.append(row)
    return {**metafile, 'Models': rows}


def repair_external_configs() -> None:
    """Apply both fixes where MMEngine needs them; calling it again changes nothing."""
    if 'pkg_resources' in _names_of(package_utils.is_installed) and not find_spec('pkg_resources'):
        for function in (is_installed, get_installed_path):
            _replace(getattr(package_utils, function.__name__), function)
    load: Callable[..., Any] = config_utils.load
    if not hasattr(load, 'without_lists'):

        def load_metafile(*args: Any, **kwargs: Any) -> Any:
            return one_config_a_row(load(*args, **kwargs))

        load_metafile.__dict__['without_lists'] = True
        config_utils.load = load_metafile


def _replace(theirs: Callable[..., Any], ours: Callable[..., Any]) -> None:
    """Replace a function of MMEngine in each of its modules that has imported it."""
    for name, module in list(sys.modules.items()):
        if name.partition('.')[0] == 'mmengine' and vars(module).get(ours.__name__) is theirs:
            setattr(module, ours.__name__, ours)


def _names_of(function: Callable[..., Any]) -> tuple[str, ...]:
    names: tuple[str, ...] = function.__code__.co_names
    return names


def _has_distribution(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _modules_of(package: str) -> list[str]:
    """Return the modules of a distribution, read from its metadata."""
    if not _has_distribution(package):
        return []
    return (importlib.metadata.distribution(package).read_text('top_level.txt') or '').split()


def _folder_of(module: str) -> Path | None:
    spec = find_spec(module)
    return Path(spec.origin).parent if spec is not None and spec.origin else None
