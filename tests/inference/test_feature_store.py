"""A folder holds features of one kind only, and each file is written atomically."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtimesformer.inference.feature_store import FORMATS, FeatureFolder, sha256_of

SETTINGS: dict[str, Any] = {'sha256': 'abc', 'feature': 'cls', 'layers': (0, -1)}
NAMES = ['a.mp4', 'of a class/b.mp4']


def skip_without(form: str) -> None:
    if form != 'npy':
        pytest.importorskip({'h5': 'h5py'}.get(form, form))


@pytest.mark.parametrize('form', FORMATS)
def test_what_was_added_is_read_again(tmp_path: Path, form: str) -> None:
    skip_without(form)
    features = {name: np.random.default_rng(i).random((2, 5)) for i, name in enumerate(NAMES)}
    folder = FeatureFolder(tmp_path / 'out', form, SETTINGS)
    folder.add(NAMES[0], features[NAMES[0]])
    folder = FeatureFolder(tmp_path / 'out', form, SETTINGS)  # after an interruption
    assert [folder.is_done(name) for name in NAMES] == [True, False]
    folder.add(NAMES[1], features[NAMES[1]])
    assert folder.finish([*NAMES, 'c.mp4'], {'c.mp4': 'is an empty file'}) == 2

    folder = FeatureFolder(tmp_path / 'out', form, SETTINGS)
    assert all(folder.is_done(name) for name in NAMES)
    for name in NAMES:
        assert np.array_equal(folder.read(name), features[name])
    manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
    assert manifest['sha256'] == 'abc'
    assert manifest['shapes'] == {name: [2, 5] for name in NAMES}
    assert not list((tmp_path / 'out').rglob('*.part'))


def test_a_video_that_failed_keeps_no_features_of_an_earlier_run(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path, 'npy', SETTINGS)
    for name in NAMES:
        folder.add(name, np.ones(3))
    assert folder.finish(NAMES, {NAMES[0]: 'its features are NaN'}) == 1
    assert [folder.is_done(name) for name in NAMES] == [False, True]


def test_hdf5_grows_by_what_is_new(tmp_path: Path) -> None:
    h5py = pytest.importorskip('h5py')
    for name in NAMES:
        folder = FeatureFolder(tmp_path, 'h5', SETTINGS)
        folder.add(name, np.ones(3))
        folder.finish([name], {})
    with h5py.File(tmp_path / 'features.h5') as file:
        assert all(name in file for name in NAMES)
    assert not (tmp_path / 'features').exists()


@pytest.mark.parametrize('change', [{'sha256': 'other'}, {'layers': None}])
def test_features_of_two_makings_are_not_mixed(tmp_path: Path, change: dict[str, Any]) -> None:
    FeatureFolder(tmp_path, 'npy', SETTINGS)
    with pytest.raises(ValueError, match='give --out another folder'):
        FeatureFolder(tmp_path, 'npy', {**SETTINGS, **change})


@pytest.mark.parametrize('content', [b'', b'{"format": ', b'\xff', b'[1]', b'[' * 10**6])
def test_a_damaged_manifest_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'manifest.json').write_bytes(content)
    with pytest.raises(ValueError, match=r'manifest\.json is damaged.* --out another folder'):
        FeatureFolder(tmp_path, 'npy', SETTINGS)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'photo.jpg').touch()
    with pytest.raises(ValueError, match='has no manifest.json and is not empty'):
        FeatureFolder(tmp_path, 'npy', SETTINGS)


def test_an_interrupted_write_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(file: Any, *args: Any, **kwargs: Any) -> None:
        file.write(b'half')
        raise KeyboardInterrupt

    folder = FeatureFolder(tmp_path, 'npy', SETTINGS)
    monkeypatch.setattr('numpy.save', stop)
    with pytest.raises(KeyboardInterrupt):
        folder.add('a.mp4', np.ones(3))
    assert not folder.is_done('a.mp4')
    assert not list((tmp_path / 'features').iterdir())


def test_names_stay_inside_the_folder(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path / 'out', 'npy', SETTINGS)
    folder.add('../../elsewhere/a.mp4', np.ones(3))
    folder.add(str(tmp_path / 'b.mp4'), np.ones(3))
    assert len(list((tmp_path / 'out' / 'features').rglob('*.npy'))) == 2


def test_a_missing_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'h5py', None)
    with pytest.raises(ModuleNotFoundError, match='pip install h5py'):
        FeatureFolder(tmp_path, 'h5', SETTINGS)


def test_a_hash_follows_the_content(tmp_path: Path) -> None:
    for name, text in (('a', 'one'), ('b', 'two')):
        (tmp_path / name).write_text(text)
    hashes = {sha256_of(tmp_path), sha256_of(tmp_path / 'a'), sha256_of(tmp_path / 'b')}
    assert len(hashes) == 3
