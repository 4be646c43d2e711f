"""The stand-in fills MMAction2 1.2.0's hole, and nothing else."""

import importlib
import sys
from pathlib import Path

import pytest

from mmtimesformer.compat.mmaction2_1_2 import DrnFinder, stand_in_for_drn

LOCALIZERS = 'mmaction.models.localizers'


@pytest.fixture
def mmaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `mmaction` 1.2.0 in the place of the installed one, without the folder `drn`."""
    folder = tmp_path / 'mmaction'
    localizers = folder / 'models' / 'localizers'
    localizers.mkdir(parents=True)
    (folder / '__init__.py').write_text("__version__ = '1.2.0'\n")
    (folder / 'models' / '__init__.py').write_text('from .localizers import *\n')
    (localizers / '__init__.py').write_text('from .drn.drn import DRN\n')
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmaction']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [*sys.meta_path])
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmaction']:
        del sys.modules[name]  # monkeypatch then puts the installed ones back


def _forget_the_stand_in() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, DrnFinder)]


def test_models_import_with_the_stand_in_and_only_with_it(mmaction: Path) -> None:
    _forget_the_stand_in()
    with pytest.raises(ModuleNotFoundError, match=r'mmaction\.models\.localizers\.drn'):
        importlib.import_module('mmaction.models')
    stand_in_for_drn()  # after the failed try, as in a project that imports us late
    models = importlib.import_module('mmaction.models')
    assert models.DRN.__module__ == 'mmtimesformer.compat.mmaction2_1_2'


def test_building_the_stand_in_raises_an_error_that_names_the_source_of_the_real_one(
    mmaction: Path,
) -> None:
    stand_in_for_drn()
    with pytest.raises(ImportError, match='git repository'):
        importlib.import_module(LOCALIZERS).DRN()


def test_a_real_drn_is_never_hidden(mmaction: Path) -> None:
    stand_in_for_drn()
    real = mmaction / 'models' / 'localizers' / 'drn'
    real.mkdir()
    (real / '__init__.py').touch()
    (real / 'drn.py').write_text('DRN = "the real one"\n')
    assert importlib.import_module(LOCALIZERS).DRN == 'the real one'


def test_another_version_keeps_its_own_error(mmaction: Path) -> None:
    stand_in_for_drn()
    (mmaction / '__init__.py').write_text("__version__ = '1.3.0'\n")
    with pytest.raises(ModuleNotFoundError, match=r'localizers\.drn'):
        importlib.import_module('mmaction.models')


def test_the_stand_in_is_asked_last_and_once(mmaction: Path) -> None:
    _forget_the_stand_in()
    stand_in_for_drn()
    stand_in_for_drn()
    assert [isinstance(finder, DrnFinder) for finder in sys.meta_path].count(True) == 1
    assert isinstance(sys.meta_path[-1], DrnFinder)
