"""The stand-in fills MMAction2 1.2.0's hole, and nothing else."""

import importlib
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mmtimesformer.compat import mmaction2_1_2
from mmtimesformer.compat.mmaction2_1_2 import StandInFinder, stand_in_for_missing_modules

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
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, StandInFinder)]


def test_models_import_with_the_stand_in_and_only_with_it(mmaction: Path) -> None:
    _forget_the_stand_in()
    with pytest.raises(ModuleNotFoundError, match=r'mmaction\.models\.localizers\.drn'):
        importlib.import_module('mmaction.models')
    stand_in_for_missing_modules()  # after the failed try, as in a project that imports us late
    models = importlib.import_module('mmaction.models')
    assert models.DRN.__module__ == 'mmtimesformer.compat.mmaction2_1_2'


def test_building_the_stand_in_raises_an_error_that_names_the_source_of_the_real_one(
    mmaction: Path,
) -> None:
    stand_in_for_missing_modules()
    with pytest.raises(ImportError, match='git repository'):
        importlib.import_module(LOCALIZERS).DRN()


@pytest.mark.parametrize('there', [True, False], ids=['torchvision', 'no torchvision'])
def test_a_real_drn_is_hidden_only_without_torchvision(
    mmaction: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_for_missing_modules()
    monkeypatch.setattr(mmaction2_1_2, 'find_spec', lambda name: object() if there else None)
    real = mmaction / 'models' / 'localizers' / 'drn'
    real.mkdir()
    (real / '__init__.py').touch()
    (real / 'drn.py').write_text('DRN = "the real one"\n')
    found = importlib.import_module(LOCALIZERS).DRN
    assert found == 'the real one' if there else found is mmaction2_1_2.DRN


def test_another_version_keeps_its_own_error(mmaction: Path) -> None:
    stand_in_for_missing_modules()
    (mmaction / '__init__.py').write_text("__version__ = '1.3.0'\n")
    with pytest.raises(ModuleNotFoundError, match=r'localizers\.drn'):
        importlib.import_module('mmaction.models')


def test_the_stand_in_is_used_last_and_once(mmaction: Path) -> None:
    _forget_the_stand_in()
    stand_in_for_missing_modules()
    stand_in_for_missing_modules()
    assert [isinstance(finder, StandInFinder) for finder in sys.meta_path].count(True) == 2
    assert type(sys.meta_path[-1]) is StandInFinder


@pytest.fixture
def dependency(mmaction: Path) -> Path:
    """The module of 1.2.0 that reads which packages are installed."""
    folder = mmaction / 'utils'
    folder.mkdir()
    (folder / '__init__.py').touch()
    (folder / 'dependency.py').write_text(
        'from importlib_metadata import PackageNotFoundError, distribution\n'
        'WITH_MULTIMODAL = True\n'
    )
    return folder / 'dependency.py'


def test_importlib_metadata_is_pythons_own_where_it_is_not_installed(
    dependency: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.machinery.PathFinder.find_spec

    def hide(name: str, *args: object) -> object:
        return None if name == 'importlib_metadata' else real(name, *args)

    monkeypatch.delitem(sys.modules, 'importlib_metadata', raising=False)
    monkeypatch.setattr(importlib.machinery.PathFinder, 'find_spec', hide)
    stand_in_for_missing_modules()
    module = importlib.import_module('mmaction.utils.dependency')
    assert module.distribution is importlib.metadata.distribution
    monkeypatch.delitem(sys.modules, 'importlib_metadata')


@pytest.mark.parametrize(
    ('version', 'transformers', 'timm', 'with_multimodal'),
    [
        ('1.2.0', '4.40.0', True, True),
        ('1.2.0', '4.40.0', False, False),
        ('1.2.0', '5.23.0', True, False),
        ('1.3.0', '5.23.0', False, True),
    ],
)
def test_multimodal_models_are_left_out_where_they_cannot_be_imported(
    version: str,
    transformers: str,
    timm: bool,
    with_multimodal: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'mmaction', SimpleNamespace(__version__=version))
    monkeypatch.setattr('importlib.metadata.version', lambda name: transformers)
    monkeypatch.setattr(mmaction2_1_2, 'find_spec', lambda name: object() if timm else None)
    module = ModuleType('dependency')
    module.__dict__['WITH_MULTIMODAL'] = True
    mmaction2_1_2.leave_out_multimodal(module)
    assert module.__dict__['WITH_MULTIMODAL'] is with_multimodal
