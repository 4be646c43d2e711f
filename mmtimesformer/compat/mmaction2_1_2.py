"""MMAction2 1.2.0: a stand-in for a module that its wheel lacks.

`mmaction.models.localizers` imports `DRN` from `.drn.drn`, a folder that the wheel of 1.2.0 does
not contain, so `import mmaction.models` fails for every model. TimeSformer does not need DRN.

The stand-in is a finder at the end of `sys.meta_path`: Python uses it only for modules that nothing
else finds, and it finds these two under version 1.2.0 alone. So it never hides a real file (a git
clone of 1.2.0 has them). A script has to `import mmtimesformer` before `mmaction.apis` or
`mmaction.models`, or repeat that import after it failed; our tools and MMAction2's own do so.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_PACKAGE = 'mmaction.models.localizers.drn'
_MODULE = 'mmaction.models.localizers.drn.drn'


class DRN:
    """The class that `mmaction.models.localizers` imports; it cannot be built."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise ImportError(
            "DRN is not in MMAction2 1.2.0's wheel; to use it, install MMAction2 1.2.0 from its "
            'git repository'
        )


class DrnFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find and load the two missing modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the stand-in for a missing module of MMAction2 1.2.0."""
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
