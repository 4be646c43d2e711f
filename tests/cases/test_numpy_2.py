"""W18: MMAction2's transforms run under NumPy 2, or are refused before the run."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config

from mmtimesformer.compat import numpy_2
from mmtimesformer.compat.after_import import AfterImport
from mmtimesformer.config.components import check_components
from mmtimesformer.config.find import shipped_configs

PROCESSING = 'mmaction.datasets.transforms.processing'
ARGUMENTS: dict[str, dict[str, Any]] = {
    'CenterCrop': {'crop_size': 32},
    'ColorJitter': {'hue': 0.5},
    'Flip': {'flip_ratio': 1.0},
    'MultiScaleCrop': {'input_size': 32, 'scales': (1, 0.8)},
    'RandomCrop': {'size': 32},
    'RandomErasing': {'erase_prob': 1.0},
    'RandomRescale': {'scale_range': (40, 50)},
    'RandomResizedCrop': {},
    'Resize': {'scale': (-1, 48)},
    'TenCrop': {'crop_size': 32},
    'ThreeCrop': {'crop_size': 64},
}
NOT_OF_VIDEOS = {'AudioAmplify', 'MelSpectrogram'}


def clip() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (64, 80, 3), dtype=np.uint8) for _ in range(4)]
    return {
        'imgs': frames,
        'img_shape': (64, 80),
        'original_shape': (64, 80),
        'modality': 'RGB',
        'num_clips': 1,
        'clip_len': 4,
    }


@pytest.fixture
def processing() -> Any:
    return importlib.import_module(PROCESSING)


@pytest.mark.parametrize('name', ARGUMENTS)
def test_a_transform_of_mmaction2_runs_with_every_draw(name: str, processing: Any) -> None:
    for seed in range(30):
        np.random.seed(seed)  # noqa: NPY002 (MMAction2's own source)
        results = getattr(processing, name)(**ARGUMENTS[name])(clip())
        assert all(np.isfinite(frame).all() for frame in results['imgs'])


def test_no_transform_of_pictures_was_left_out(processing: Any) -> None:
    found = {
        name
        for name, kind in vars(processing).items()
        if isinstance(kind, type) and kind.__module__ == PROCESSING
    }
    assert found - {'Fuse'} - NOT_OF_VIDEOS == set(ARGUMENTS)


@pytest.mark.parametrize('factor', [-0.5, -0.1, 0.0, 0.1, 0.5])
def test_a_turn_of_the_hue_turns_the_hue_alone(factor: float, processing: Any) -> None:
    import cv2

    frame = np.full((2, 2, 3), (200, 30, 90), np.uint8)
    before = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[0, 0].astype(int)
    turned = processing.ColorJitter.adjust_hue(frame.astype(np.float32), factor)
    after = cv2.cvtColor(turned.astype(np.uint8), cv2.COLOR_RGB2HSV)[0, 0].astype(int)
    difference = (after[0] - before[0] - int(factor * 255) + 90) % 180 - 90
    assert abs(difference) <= 1
    assert np.abs(after[1:] - before[1:]).max() <= 2


@pytest.fixture
def package_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `mmaction` in the place of the installed one, with its `ColorJitter` alone."""
    folder = tmp_path / 'mmaction' / 'datasets' / 'transforms'
    folder.mkdir(parents=True)
    for package in (folder, folder.parent, folder.parent.parent):
        (package / '__init__.py').touch()
    (folder / 'processing.py').write_text(
        'import cv2\nimport numpy as np\n'
        'class ColorJitter:\n    @staticmethod\n    def adjust_hue(img, factor):\n        1 / 0\n'
    )
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmaction']:
        monkeypatch.delitem(sys.modules, name)
    others = [one for one in sys.meta_path if not isinstance(one, AfterImport)]
    monkeypatch.setattr(sys, 'meta_path', others)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmaction']:
        del sys.modules[name]


@pytest.mark.parametrize('first', ['mmaction', 'mmtimesformer'])
def test_color_jitter_is_repaired_whoever_is_imported_first(package_copy: Path, first: str) -> None:
    if first == 'mmaction':
        importlib.import_module(PROCESSING)
        numpy_2.repair_color_jitter()
    else:
        numpy_2.repair_color_jitter()
        numpy_2.repair_color_jitter()
        assert sum(isinstance(one, AfterImport) for one in sys.meta_path) == 1
    module = importlib.import_module(PROCESSING)
    frame = np.full((2, 2, 3), 90, np.float32)
    assert (module.ColorJitter.adjust_hue(frame, -0.1) == frame).all()


def test_a_version_without_color_jitter_is_left_alone(package_copy: Path) -> None:
    (package_copy / 'processing.py').write_text('Other = 1\n')
    numpy_2.repair_color_jitter()
    assert importlib.import_module(PROCESSING).Other == 1


@pytest.mark.parametrize(
    ('step', 'package'),
    [
        ({'type': 'ImgAug', 'transforms': 'default'}, 'imgaug'),
        ({'type': 'ImgAug', 'transforms': [{'type': 'Rotate', 'rotate': (-20, 20)}]}, 'imgaug'),
        ({'type': 'PytorchVideoWrapper', 'op': 'AugMix'}, 'pytorchvideo'),
        ({'type': 'TorchVisionWrapper', 'op': 'RandomAutocontrast'}, 'torchvision'),
        ({'type': 'DecordInit'}, 'decord'),
        ({'type': 'PyAVInit'}, 'av'),
    ],
    ids=lambda value: value if isinstance(value, str) else value['type'],
)
def test_a_transform_without_its_package_is_refused_before_the_run(
    step: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    cfg = Config.fromfile(shipped_configs()['timesformer_divST-tiny_moving-shapes'])
    cfg.train_dataloader.dataset.pipeline.insert(3, step)
    key = f'train_dataloader.dataset.pipeline.3.type={step["type"]!r}'
    with pytest.raises(ValueError, match=f'{key} needs the package {package}, which is not inst'):
        check_components(cfg, 'train')


def test_a_package_that_cannot_be_imported_is_named_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'imgaug').mkdir()
    (tmp_path / 'imgaug' / '__init__.py').write_text('import numpy\nnumpy.sctypes_of_old\n')
    (tmp_path / 'imgaug' / 'augmenters.py').write_text('class Augmenter: ...\nSequential = dict\n')
    monkeypatch.syspath_prepend(tmp_path)
    cfg = Config.fromfile(shipped_configs()['timesformer_divST-tiny_moving-shapes'])
    cfg.train_dataloader.dataset.pipeline.insert(3, {'type': 'ImgAug', 'transforms': []})
    with pytest.raises(ValueError, match=r"imgaug, which cannot be imported here \(module 'numpy'"):
        check_components(cfg, 'train')
    (tmp_path / 'imgaug/__init__.py').write_text('')
    sys.modules.pop('imgaug', None)
    importlib.invalidate_caches()
    check_components(cfg, 'train')
    sys.modules.pop('imgaug', None)


@pytest.mark.parametrize('name', numpy_2.USE_OLD_NAMES)
def test_modules_of_mmaction2_have_the_names_that_numpy_removed(name: str) -> None:
    module = importlib.import_module(name)
    assert module.np.Inf == np.inf and np.isnan(module.np.NAN)
    assert module.np.trapz([1.0, 3.0]) == 2
    assert module.np.zeros is np.zeros
    with pytest.raises(AttributeError, match='no_such_name'):
        _ = module.np.no_such_name
    assert not hasattr(np, 'Inf') or np.__version__ < '2'


def test_no_other_module_of_mmaction2_uses_a_removed_name(processing: Any) -> None:
    folder = Path(processing.__file__).parents[2]
    removed = re.compile(r'\bnp\.(Inf|NAN|NaN|PINF|NINF|float_|trapz|product|in1d|row_stack)\b')
    using = [path for path in folder.rglob('*.py') if '.mim' not in path.parts]
    using = [path for path in using if removed.search(path.read_text())]
    names = ['.'.join(path.relative_to(folder.parent).with_suffix('').parts) for path in using]
    assert sorted(names) == sorted(numpy_2.USE_OLD_NAMES)


def test_a_numpy_that_has_the_names_is_kept() -> None:
    old = ModuleType('numpy')
    old.__dict__.update(Inf=1, NAN=2, trapz=3)
    module = ModuleType('uses_numpy')
    module.__dict__['np'] = old
    numpy_2.restore_names(module)
    assert vars(module)['np'] is old
