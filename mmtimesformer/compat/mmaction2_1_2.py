"""MMAction2 1.2.0: stand-ins for what its wheel lacks, so that its recognizers can be imported.

`import mmaction.models` of the wheel fails in three places, for every model:

- `mmaction.models.localizers` imports `DRN` from `.drn.drn`, a folder that the wheel does not
  contain; in a git clone, it fails without torchvision. The stand-in is a class that cannot be
  built.
- `mmaction.utils.dependency` imports `importlib_metadata`, which MMAction2 does not require. Where
  it is not installed, the stand-in is Python's own `importlib.metadata`, which has both names.
- With `transformers` installed, it imports its multimodal models, which need `timm` and names that
  transformers 5 no longer has. Without `timm`, or with transformers 5, MMAction2's own placeholders
  are used, as if transformers were not installed.

The stand-ins are found by a finder at the end of `sys.meta_path`: Python uses it only for modules
that nothing else finds, and it finds these under version 1.2.0 alone. So it hides no real file. The
one exception is the clone's `drn.py` without torchvision, by a finder at the start.

A script has to `import mmtimesformer` before `mmaction.apis` or `mmaction.models`, or repeat that
import after it failed; our tools and MMAction2's own do so.
"""

import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import ModuleType

from mmtimesformer.compat.after_import import after_import

_PACKAGE = 'mmaction.models.localizers.drn'
_MODULE = 'mmaction.models.localizers.drn.drn'
_METADATA = 'importlib_metadata'
_DEPENDENCY = 'mmaction.utils.dependency'


class DRN:
    """The class that `mmaction.models.localizers` imports; it cannot be built."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise ImportError(
            "DRN is not in MMAction2 1.2.0's wheel; to use it, install MMAction2 1.2.0 from its "
            'git repository, and torchvision'
        )


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find and load the missing modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the stand-in for a missing module of MMAction2 1.2.0."""
        if fullname not in (_PACKAGE, _MODULE, _METADATA) or not _is_1_2_0():
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname == _PACKAGE)

    def exec_module(self, module: ModuleType) -> None:
        """Fill the stand-in: `DRN`, Python's own metadata, or nothing for the package."""
        if module.__name__ == _MODULE:
            module.__dict__['DRN'] = DRN
        elif module.__name__ == _METADATA:
            public = importlib.metadata.__all__
            module.__dict__.update({name: getattr(importlib.metadata, name) for name in public})


class WithoutTorchvision(StandInFinder):
    """Find the stand-in of `DRN` before the real one, which fails without torchvision."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the stand-in where torchvision is not installed."""
        if fullname != _MODULE or find_spec('torchvision') is not None:
            return None
        return super().find_spec(fullname, path, target)


def leave_out_multimodal(module: ModuleType) -> None:
    """Choose MMAction2's placeholders for multimodal models where those cannot be imported."""
    if _is_1_2_0() and getattr(module, 'WITH_MULTIMODAL', False):
        major = int(importlib.metadata.version('transformers').partition('.')[0])
        module.__dict__['WITH_MULTIMODAL'] = major < 5 and find_spec('timm') is not None


def stand_in_for_missing_modules() -> None:
    """Put the finders at the end and at the start of Python's list of finders, once."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())
        sys.meta_path.insert(0, WithoutTorchvision())
    after_import(_DEPENDENCY, leave_out_multimodal)


def _is_1_2_0() -> bool:
    return getattr(sys.modules.get('mmaction'), '__version__', None) == '1.2.0'
