"""Let MMEngine find our configs by ``mmtimesformer::…``, in a checkout too.

MMEngine has a list of the packages whose configs may be named from elsewhere, and looks for them in
the folder ``.mim`` of the package, which a wheel has and a checkout has not. After ``import
mmtimesformer`` these work: ``mmengine.hub.get_config``, ``get_model``, and ``_base_``.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import utils

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
