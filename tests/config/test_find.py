"""A config is found by its path, by its name in a checkout, and by its name in a wheel."""

from pathlib import Path

import pytest

from mmtimesformer.config import find as configs
from mmtimesformer.config.find import find_config, read_config, shipped_configs

NAME = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb'


def test_a_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / f'{NAME}.py'
    own.touch()
    monkeypatch.chdir(tmp_path)
    assert find_config(f'{NAME}.py').absolute() == own
    assert find_config(NAME) != own


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py'])
def test_a_shipped_config_is_found_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_config(name)
    assert found.is_file()
    assert found.stem == NAME


def test_a_wheels_configs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / 'site-packages' / 'mmtimesformer' / '.mim' / 'configs' / 'timesformer'
    inside.mkdir(parents=True)
    (inside / 'mine.py').touch()
    folders = (tmp_path / 'site-packages' / 'configs', inside.parent)
    monkeypatch.setattr(configs, 'FOLDERS', folders)
    assert find_config('mine') == inside / 'mine.py'


def test_parts_of_configs_have_no_name() -> None:
    assert shipped_configs()
    assert not any('_base_' in path.parts for path in shipped_configs().values())


def test_a_miss_lists_near_names() -> None:
    with pytest.raises(FileNotFoundError, match=NAME):
        find_config('timesformer_divST_kinetics400')


def test_a_wrong_folder_is_an_error(tmp_path: Path) -> None:
    """``wrong/NAME.py`` is a mistyped path, not a name."""
    with pytest.raises(FileNotFoundError, match='neither a file'):
        find_config(str(tmp_path / f'{NAME}.py'))


def test_a_config_is_read_with_options() -> None:
    cfg = read_config(NAME, {'model.backbone.num_frames': 16, 'train_cfg.max_epochs': 3})
    assert (cfg.model.backbone.num_frames, cfg.train_cfg.max_epochs) == (16, 3)
    assert read_config(NAME).model.backbone.num_frames == 8


def test_a_file_that_is_not_python_is_named(tmp_path: Path) -> None:
    (tmp_path / 'a.py').write_text('model = dict(')
    with pytest.raises(ValueError, match=r'a\.py cannot be read: '):
        read_config(str(tmp_path / 'a.py'))


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('modle.x', "the config has no section 'modle'; did you mean 'model'"),
        ('test_pipeline.99.type', 'Index 99 exceeds'),
        ('test_pipeline.a.type', 'an item of a list is named by its index, from 0'),
        ('model.backbone.num_frames.x', 'num_frames'),
    ],
)
def test_an_option_that_does_not_fit_is_named(option: str, message: str) -> None:
    with pytest.raises(ValueError, match=f'--cfg-options {option}.*{message}'):
        read_config(NAME, {option: 3})
