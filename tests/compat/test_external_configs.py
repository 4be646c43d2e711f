"""`_base_ = 'mmaction::…'` and MMEngine's hub read the configs of MMAction2's wheel."""

import importlib.metadata
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import mmaction
import mmengine.config.utils as config_utils
import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import package_utils

from mmtimesformer.compat import external_configs
from mmtimesformer.compat.external_configs import (
    get_installed_path,
    is_installed,
    one_config_a_row,
    repair_external_configs,
)

TSN = 'recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py'
SWIN = 'recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb.py'


@pytest.mark.parametrize('name', [TSN, SWIN, '_base_/default_runtime.py'])
def test_a_config_of_mmaction2_is_a_base(tmp_path: Path, name: str) -> None:
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = 'mmaction::{name}'\nmine = 1\n")
    theirs = Path(mmaction.__file__).parent / '.mim' / 'configs' / name
    expected = Config.fromfile(theirs)._cfg_dict.to_dict()
    found = Config.fromfile(config)._cfg_dict.to_dict()
    assert found.pop('mine') == 1
    if name.startswith('recognition'):
        assert found.pop('model')['type'].rpartition('.')[2] == expected.pop('model')['type']
    assert found.keys() == expected.keys()


def test_the_hub_finds_a_config_and_its_weights() -> None:
    cfg = get_config(f'mmaction::{TSN}', pretrained=True)
    assert cfg.model_path.startswith('https://download.openmmlab.com/mmaction/')


def test_mmengine_still_expects_one_config_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day it does not, the fix can go. MMAction2 1.2.0 has no row of several configs."""
    folder = Path(mmaction.__file__).parent
    rows = (folder / '.mim/configs/localization/bsn/metafile.yml').read_text()
    if not re.search(r'Config: *\n +- ', rows):
        pytest.skip('the metafiles of this MMAction2 have one config a row')
    monkeypatch.setattr(config_utils, 'load', package_load())
    with pytest.raises(AttributeError, match="'list' object has no attribute 'partition'"):
        get_config(f'mmaction::{TSN}')


def package_load() -> object:
    from mmengine.fileio import load

    return load


def test_a_row_of_several_configs_becomes_a_row_for_each() -> None:
    models = [{'Config': ['a.py', 'b.py'], 'Weights': 'w'}, {'Config': 'c.py'}, {'Name': 'd'}]
    rows = one_config_a_row({'Collections': [1], 'Models': models})
    assert rows['Collections'] == [1]
    assert rows['Models'] == [
        {'Config': 'a.py', 'Weights': 'w'}, {'Config': 'b.py', 'Weights': 'w'},
        {'Config': 'c.py'}, {'Name': 'd'},
    ]  # fmt: skip


@pytest.mark.parametrize('content', [{'Import': ['a']}, ['a'], None, {'Models': None}])
def test_other_content_is_returned_as_it_is(content: object) -> None:
    assert one_config_a_row(content) is content


def test_packages_are_found_by_the_name_of_the_distribution_or_module() -> None:
    folder = str(Path(mmaction.__file__).parent)
    assert get_installed_path('mmaction2') == get_installed_path('mmaction') == folder
    assert is_installed('mmaction2') and is_installed('mmaction')
    assert not is_installed('no-such-package')
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        get_installed_path('no-such-package')


@pytest.mark.parametrize('there', [True, False], ids=['pkg_resources', 'no pkg_resources'])
def test_functions_of_mmengine_0_10_are_replaced_only_without_pkg_resources(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_installed(package: str) -> bool:
        import pkg_resources

        return bool(pkg_resources.get_distribution(package))

    def get_installed_path(package: str) -> str:
        return package

    user = ModuleType('mmengine.user')
    for function in (is_installed, get_installed_path):
        monkeypatch.setattr(package_utils, function.__name__, function)
        setattr(user, function.__name__, function)
    other = SimpleNamespace(is_installed=is_installed)
    monkeypatch.setitem(sys.modules, 'mmengine.user', user)
    monkeypatch.setitem(sys.modules, 'other', other)
    monkeypatch.setattr(external_configs, 'find_spec', lambda name: object() if there else None)
    repair_external_configs()
    ours = is_installed if there else external_configs.is_installed
    assert package_utils.is_installed is user.is_installed is ours
    assert other.is_installed is is_installed


def test_applying_the_fix_again_changes_nothing() -> None:
    load = config_utils.load
    repair_external_configs()
    assert config_utils.load is load
