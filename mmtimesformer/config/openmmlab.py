"""Let MMEngine find our configs by ``mmtimesformer::…``, in a checkout too.

MMEngine has a list of the packages whose configs may be named from elsewhere, and looks for them in
the folder ``.mim`` of the package, which a wheel has and a checkout has not. After ``import
mmtimesformer`` these work: ``mmengine.hub.get_config``, ``get_model``, and ``_base_``.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mmengine.config import Config, utils

from mmtimesformer.compat.after_import import after_import
from mmtimesformer.config.find import PACKAGE
from mmtimesformer.config.model_zoo import index_folder, metafile_entries

NAME = 'mmtimesformer'
# Private functions of MMEngine that take (folder of the package, name of a config), and the modules
# that import them by name. tests/packaging/test_upstream.py holds them.
FUNCTIONS = ('_get_cfg_metainfo', '_get_external_cfg_base_path')
MODULES = ('mmengine.config.utils', 'mmengine.config.config', 'mmengine.hub.hub')


def register_package() -> None:
    """Add our package to MMEngine's list; calling it again changes nothing."""
    utils.MODULE2PACKAGE[NAME] = NAME
    if not (PACKAGE / '.mim').is_dir():
        _replace('_get_cfg_metainfo', _entry)
        _replace('_get_external_cfg_base_path', _path)
    after_import('mmengine.hub.hub', require_published_weights)


def require_published_weights(hub: ModuleType) -> None:
    """Let ``pretrained=True`` of MMEngine's hub end in a sentence where there are no weights.

    MMEngine's own error is an ``AssertionError`` about a metafile, or an ``AttributeError``. May be
    called again.
    """
    theirs = hub.get_config
    if hasattr(theirs, '__wrapped__'):
        return

    @functools.wraps(theirs)
    def get_config(cfg_path: str, pretrained: bool = False) -> Config:
        package, _, name = cfg_path.partition('::')
        lacking = pretrained and package == NAME and not _has_weights(name)
        cfg = theirs(cfg_path, pretrained and not lacking)  # a wrong name is reported first
        if lacking:
            raise ValueError(
                f'nobody publishes weights for {cfg_path}; leave out pretrained=True, and load a '
                'checkpoint of your own: mmtimesformer.checkpoints.load_checkpoint'
            )
        return cfg

    for module in (hub, sys.modules[hub.__name__.rpartition('.')[0]]):
        if getattr(module, 'get_config', None) is theirs:
            setattr(module, 'get_config', get_config)  # noqa: B010 (mypy)


def _has_weights(name: str) -> bool:
    """Whether the metafile has weights for a config, named by its path in ``configs/``."""
    return any(
        'Weights' in entry
        for entry in metafile_entries().values()
        if entry['Config'].partition('/')[2] == name
    )


def _replace(name: str, ours: Callable[[str], Any]) -> None:
    """Answer by ``ours`` for our package, and by MMEngine's function for all others."""
    theirs = getattr(utils, name)
    if hasattr(theirs, '__wrapped__'):
        return

    @functools.wraps(theirs)
    def function(package_path: str, cfg_path: str) -> Any:
        if Path(package_path).resolve() != PACKAGE:
            return theirs(package_path, cfg_path)
        return ours(cfg_path)

    for module in MODULES:
        if getattr(sys.modules.get(module), name, None) is theirs:
            setattr(sys.modules[module], name, function)


def _entry(name: str) -> dict[str, Any]:
    """Return the metafile's entry of a config; MMEngine expects ValueError where there is none."""
    for entry in metafile_entries().values():
        if entry['Config'].partition('/')[2] == name:
            return {**entry, 'Config': str(index_folder() / entry['Config'])}
    raise ValueError(f'{name} is not in the metafile of {NAME}')


def _path(name: str) -> str:
    path = index_folder() / 'configs' / name
    if not path.is_file():
        raise FileNotFoundError(
            f'{NAME} has no config {name}; write {NAME}::timesformer/NAME.py, where NAME is one of '
            'those in configs/timesformer/README.md'
        )
    return str(path)
