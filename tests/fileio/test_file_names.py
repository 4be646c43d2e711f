"""File names fit the file system, and different names stay different."""

import importlib.util
import json
import shutil
from pathlib import Path

from mmtimesformer.fileio.file_names import MOST_BYTES, short_file_name
from mmtimesformer.inference.feature_store import FeatureFolder

LONG = 'é' * 120 + 'x' * 11  # 251 bytes, and 255 with .mp4


def test_short_names_stay_and_long_ones_stay_different() -> None:
    assert short_file_name('clip') == 'clip'
    names = [f'{"é" * 200}{i}' for i in range(9)] + ['é' * 400, 'x' * 201]
    short = [short_file_name(name) for name in names]
    assert len(set(short)) == len(names)
    assert all(len(name.encode()) <= MOST_BYTES for name in short)
    assert short_file_name('\ud800' * 99).isascii()


def test_features_of_videos_with_long_names_are_written_and_found_again(tmp_path: Path) -> None:
    import numpy as np

    folder = FeatureFolder(tmp_path / 'out', 'npy', {'feature': 'cls'})
    names = [f'a/{LONG}.mp4', f'a/{LONG[:-1]}y.mp4']
    for i, name in enumerate(names):
        folder.add(name, np.full(3, i))
    assert folder.finish(names, {}) == 2
    assert [folder.read(name)[0] for name in names] == [0, 1]
    assert set(json.loads(folder.manifest.read_text())['shapes']) == set(names)


def test_a_video_with_a_long_name_is_resized(tmp_path: Path, tiny_videos: Path) -> None:
    (tmp_path / 'src').mkdir()
    for name in (LONG, f'{LONG[:-1]}y'):
        shutil.copyfile(tiny_videos / '0.mp4', tmp_path / 'src' / f'{name}.mp4')
    path = Path(__file__).resolve().parents[2] / 'tools/data/resize_videos.py'
    spec = importlib.util.spec_from_file_location('resize_videos', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = [str(tmp_path / 'src'), str(tmp_path / 'dst'), '--short-side', '32']
    assert module.main([*arguments, '--num-workers', '1']) == 0
    assert len(list((tmp_path / 'dst').glob('*.mp4'))) == 2
