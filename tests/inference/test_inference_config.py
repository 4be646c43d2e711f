"""The config in a checkpoint is read as plain values: nothing in it runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmtimesformer import VideoClassifier
from mmtimesformer.config.find import shipped_configs
from mmtimesformer.inference.inference_config import (
    READ,
    inference_config_of,
    read_classes,
    read_config_text,
)

from .conftest import save


# MMEngine takes a second to print one; these differ most.
@pytest.mark.parametrize(
    'name',
    [
        'pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb',
        'timesformer_divST-L_8xb1-u64-15e_sthv2-rgb_official',
        'timesformer_divST-tiny_moving-shapes',
    ],
)
def test_the_text_of_a_shipped_config_reads_as_what_it_is(name: str) -> None:
    cfg = Config.fromfile(shipped_configs()[name])
    stored, complete = read_config_text(cfg.pretty_text, 'x.pth'), cfg.to_dict()
    assert stored == {key: complete[key] for key in READ if key in complete}


@pytest.fixture
def hostile(
    weights: dict[str, torch.Tensor], printed: str, tmp_path: Path
) -> Callable[[str, str], Path]:
    """Write a checkpoint with a changed config."""

    def write(old: str, new: str) -> Path:
        assert old in printed
        return save(tmp_path / 'hostile.pth', weights, cfg=printed.replace(old, new))

    return write


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('num_classes=3', "num_classes=__import__('os').mkdir('ran')", 'code .* in model'),
        ('num_classes=3', 'num_classes=[print for print in ()]', 'code .* in model'),
        ('num_classes=3', "**{'num_classes': 3}", 'code .* in model'),
        ("type='TimeSformerHead'", "type='os.mkdir', path='ran'", "type='os.mkdir'"),
        ("type='TimeSformerHead'", "type='mmengine.load', file='x'", "type='mmengine.load'"),
        ("type='PackActionInputs'", "type='os.mkdir', path='ran'", "type='os.mkdir'"),
        ("type='PackActionInputs'", "type='mmengine.fileio.load'", 'mmengine.fileio.load'),
        ("type='TimeSformerHead'", "type='TimeSformerHead', _scope_='os'", "the key '_scope_'"),
        ('model = dict(', 'model = dict((', 'cannot be read'),
    ],
)
def test_nothing_in_a_stored_config_runs(
    hostile: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        VideoClassifier(checkpoint=hostile(old, new))
    assert not (tmp_path / 'ran').exists()


def test_what_else_a_stored_config_does_is_not_even_read(
    weights: dict[str, torch.Tensor],
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'evil_module.py').write_text("import pathlib; pathlib.Path('ran').mkdir()")
    monkeypatch.syspath_prepend(tmp_path)
    text = "custom_imports = dict(imports=['evil_module'])\n__import__('os').mkdir('ran')\n"
    VideoClassifier(checkpoint=save(tmp_path / 'epoch.pth', weights, cfg=text + printed))
    assert not (tmp_path / 'ran').exists()


def test_a_stored_start_of_training_is_not_fetched(hostile: Callable[[str, str], Path]) -> None:
    start = "init_cfg=dict(type='mmtimesformer.Pretrained', checkpoint='/nowhere.pth'), num_heads=2"
    clf = VideoClassifier(checkpoint=hostile('num_heads=2', start))
    assert 'init_cfg' not in clf.inference_config.model['backbone']


def test_a_config_without_a_test_pipeline_is_told() -> None:
    with pytest.raises(ValueError, match='some.py has no test_pipeline; add one'):
        inference_config_of({'model': {'type': 'Recognizer3D'}}, 'some.py')


def test_class_names_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / 'names.txt'
    path.write_bytes('\ufefflinks\r\nSchüttelt den Kopf\r\n\r\n'.encode())
    assert read_classes(path) == ['links', 'Schüttelt den Kopf']
    with pytest.raises(FileNotFoundError, match='nowhere.txt does not exist'):
        read_classes('nowhere.txt')
    path.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match='is not text'):
        read_classes(path)
