"""The demo trains, tests and resumes, and fails if an accuracy is too low."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs' / 'timesformer'
SCHEMES = {
    'divST': 'divided_space_time',
    'jointST': 'joint_space_time',
    'spaceOnly': 'space_only',
}


def run_demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    command = [
        sys.executable, str(ROOT / 'tools' / 'demo.py'), '--data', str(folder / 'data'),
        '--out', str(folder / 'out'), '--num-train', '16', '--num-val', '8', *options,
    ]  # fmt: skip
    return subprocess.run(
        command,
        env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('demo')


@pytest.fixture(scope='module')
def first(folder: Path) -> subprocess.CompletedProcess[str]:
    return run_demo(folder, '--epochs', '1')


def test_every_file_that_it_names_exists(first, folder: Path) -> None:
    out = folder / 'out' / 'divST'
    for name in ('confusion.png', 'training.png', 'predictions.pkl', 'epoch_1.pth'):
        assert (out / name).is_file(), first.stdout + first.stderr
        assert name == 'epoch_1.pth' or str(out / name) in first.stdout
    assert (folder / 'data' / 'preview.png').is_file()
    assert 'python tools/train.py' in first.stdout and 'python tools/test.py' in first.stdout


def test_a_low_accuracy_is_an_error(first) -> None:
    assert first.returncode == 1
    assert 'divided attention reached' in first.stderr and 'below 95%' in first.stderr
    assert 'Traceback' not in first.stderr


@pytest.mark.slow
def test_a_finished_training_is_not_repeated(first, folder: Path) -> None:
    again = run_demo(folder, '--epochs', '1')
    assert 'is finished; --fresh starts again' in again.stdout
    assert 'tools/train.py' not in again.stdout
    assert again.stderr == first.stderr  # the same verdict on the same result


@pytest.mark.slow
def test_another_seed_in_the_same_folder_is_refused(first, folder: Path) -> None:
    other = run_demo(folder, '--epochs', '1', '--seed', '1')
    assert other.returncode == 1
    assert 'was started with another config, data set or seed; --fresh' in other.stderr


@pytest.mark.parametrize('scheme', SCHEMES)
def test_the_schemes_differ_in_nothing_but_attention(scheme: str) -> None:
    cfg = Config.fromfile(CONFIGS / f'timesformer_{scheme}-tiny_moving-shapes.py')
    divided = Config.fromfile(CONFIGS / 'timesformer_divST-tiny_moving-shapes.py')
    assert cfg.model.backbone.attention_type == SCHEMES[scheme]
    divided.model.backbone.attention_type = SCHEMES[scheme]
    assert cfg.to_dict() == divided.to_dict()


def test_nothing_is_flipped() -> None:
    """A mirrored left is a right."""
    cfg = Config.fromfile(CONFIGS / 'timesformer_divST-tiny_moving-shapes.py')
    for pipeline in (cfg.train_pipeline, cfg.val_pipeline, cfg.test_pipeline):
        assert not [step.type for step in pipeline if 'Flip' in step.type]
