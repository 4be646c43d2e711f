"""MMAction2 1.2.0: a stand-in for the module that its wheel forgot.

`mmaction.models.localizers` imports `DRN` from `.drn.drn`, a folder that the wheel of 1.2.0 does
not contain, so that `import mmaction.models` fails whatever the model. DRN finds the moment that a
sentence describes; nothing about TimeSformer needs it.

The stand-in is a finder at the very end of `sys.meta_path`: Python asks it only for a module that
nothing else could find, and it answers for these two names under version 1.2.0 alone. So it costs
nothing where it is not needed, never hides a real file (a git clone of 1.2.0 has them), and may be
set up before or after `import mmaction`, as long as `import mmaction.models` comes later:

- MMAction2's own `tools/train.py` and `tools/test.py` import `mmaction.registry`, then read the
  config, whose `custom_imports` brings `mmtimesformer` in, and only then build a model;
- our tools import `mmtimesformer` first;
- your script says `import mmtimesformer` before `import mmaction.apis` or `mmaction.models`. Where
  that import has failed already it may be tried again: Python forgets a package that failed.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_PACKAGE = 'mmaction.models.localizers.drn'
_MODULE = 'mmaction.models.localizers.drn.drn'


class DRN:
    """The name that `mmaction.models.localizers` imports; it can be named but not built."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise ImportError(
            "DRN is not in MMAction2 1.2.0's wheel; to use it, install MMAction2 1.2.0 from its "
            'git repository'
        )


class DrnFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find and load the two modules that are missing, and no other."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the stand-in's spec if MMAction2 1.2.0 asks for a file that it lacks."""
        version = getattr(sys.modules.get('mmaction'), '__version__', None)
        if fullname not in (_PACKAGE, _MODULE) or version != '1.2.0':
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname == _PACKAGE)

    def exec_module(self, module: ModuleType) -> None:
        """Fill the stand-in: the package stays empty, its module holds `DRN`."""
        if module.__name__ == _MODULE:
            module.__dict__['DRN'] = DRN


def stand_in_for_drn() -> None:
    """Put the finder at the end of Python's list of finders, once."""
    if not any(isinstance(finder, DrnFinder) for finder in sys.meta_path):
        sys.meta_path.append(DrnFinder())
