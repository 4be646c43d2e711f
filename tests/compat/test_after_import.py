"""A module of another package is fixed when it is imported, and never imported for that."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mmtimesformer.compat import after_import as hooks
from mmtimesformer.compat.after_import import after_import

NAME = 'package_to_fix'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / f'{NAME}.py').write_text('value = 1\n')
    monkeypatch.setattr(sys, 'meta_path', [*sys.meta_path])
    monkeypatch.setattr(hooks._FINDER, 'fixes', {})
    monkeypatch.syspath_prepend(tmp_path)
    yield NAME
    sys.modules.pop(NAME, None)


def double(module: ModuleType) -> None:
    module.__dict__['value'] *= 2


def test_a_module_is_fixed_once_when_it_is_imported_and_not_before(package: str) -> None:
    after_import(package, double)
    after_import(package, double)
    assert package not in sys.modules
    assert importlib.import_module(package).value == 2
    assert importlib.import_module(package).value == 2


def test_a_module_that_was_imported_before_is_fixed_at_once(package: str) -> None:
    module = importlib.import_module(package)
    after_import(package, double)
    assert module.value == 2


def test_a_reload_is_fixed_again(package: str) -> None:
    after_import(package, double)
    assert importlib.reload(importlib.import_module(package)).value == 2


def test_a_module_that_does_not_exist_keeps_its_own_error() -> None:
    after_import('no_such_package_at_all', double)
    with pytest.raises(ModuleNotFoundError, match='no_such_package_at_all'):
        importlib.import_module('no_such_package_at_all')
