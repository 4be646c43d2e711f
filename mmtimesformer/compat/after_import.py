"""Run a function right after a module of another package is imported, without importing it."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

Fix = Callable[[ModuleType], None]


class AfterImport(importlib.abc.MetaPathFinder):
    """Find the named modules as Python does, and fix each once it is loaded."""

    def __init__(self) -> None:
        self.fixes: dict[str, Fix] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's own spec, with a loader that fixes it; None for all others."""
        fix = self.fixes.get(fullname)
        if fix is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_fix(module: ModuleType) -> None:
                load(module)
                fix(module)

            setattr(spec.loader, 'exec_module', load_and_fix)  # noqa: B010 (mypy)
        return spec


_FINDER = AfterImport()


def after_import(module: str, fix: Fix) -> None:
    """Apply ``fix`` to a module now, if it is imported, and otherwise when it is.

    Calling it again with the same module replaces the fix that waits.
    """
    if module in sys.modules:
        fix(sys.modules[module])
        return
    _FINDER.fixes[module] = fix
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
