"""mim installs, searches, downloads, trains, tests and runs: from a wheel, and from a checkout.

openmim has an environment of its own below .venv-stacks/, with the packages of this one behind it.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb'
DEMO = 'timesformer_divST-tiny_moving-shapes.py'
OURS = ('configs', 'mmtimesformer', 'tools', 'requirements')

pytestmark = pytest.mark.slow


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    ours = ('PYTHONPATH', 'PYTEST_')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environment | {'COLUMNS': '400'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.fixture(scope='module')
def bin_folder() -> Path:
    """Programs of an environment with openmim; made on first use."""
    venv = ROOT / '.venv-stacks' / 'mim'
    if not (venv / '.made').is_file():
        shutil.rmtree(venv, ignore_errors=True)
        _run(sys.executable, '-m', 'venv', venv)
        pip = [venv / 'bin' / 'python', '-m', 'pip', 'install', '-q']
        _run(*pip, 'setuptools<81')
        _run(*pip, 'openmim')
        _run(*pip, 'filelock>=4.1')  # openmim pins an older one
        (site,) = venv.glob('lib/python3*/site-packages')
        (site / 'zz_packages.pth').write_text(sysconfig.get_path('purelib') + '\n')
        (venv / '.made').touch()
    return venv / 'bin'


@pytest.fixture(scope='module')
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from."""
    copy = tmp_path_factory.mktemp('checkout')
    for file in (*ROOT.glob('*.*'), ROOT / 'LICENSE'):
        if file.is_file():
            shutil.copy(file, copy)
    for folder in OURS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns('__pycache__'))
    return copy


@pytest.fixture(scope='module', params=['wheel', 'checkout'])
def site(
    request: pytest.FixtureRequest,
    bin_folder: Path,
    checkout: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Our package in the environment, installed by mim."""
    source: Path = checkout
    if request.param == 'wheel':
        folder = tmp_path_factory.mktemp('wheel')
        pip = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation']
        _run(*pip, '-w', folder, checkout)
        (source,) = folder.glob('*.whl')
    _run(bin_folder / 'mim', 'install', '--no-deps', '--force-reinstall', source, cwd=bin_folder)
    (packages,) = bin_folder.parent.glob('lib/python3*/site-packages')
    return packages / 'mmtimesformer'


def test_search_lists_the_models_with_their_weights(site: Path, bin_folder: Path) -> None:
    found = _run(
        bin_folder / 'mim', 'search', 'mmtimesformer', '--dataset', 'kinetics-400',
        '--field', 'weight', '--display-width', '400', cwd=bin_folder,
    )  # fmt: skip
    assert f'config id: {NAME}\n' in found
    assert 'download.openmmlab.com' in found


def test_train_test_run_and_download(
    site: Path, bin_folder: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    mim, options = bin_folder / 'mim', ['--cfg-options']
    for loader, names in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        prefix = f'{loader}_dataloader'
        options += [
            f'{prefix}.num_workers=0',
            f'{prefix}.persistent_workers=False',
            f'{prefix}.batch_size=2',
            f'{prefix}.dataset.ann_file={tiny_videos / names}.txt',
            f'{prefix}.dataset.data_prefix.video={tiny_videos}',
        ]
    short = ['train_cfg.max_epochs=1', 'train_cfg.val_begin=1', 'train_cfg.val_interval=1']
    run = tmp_path / 'run'
    command = [mim, 'train', 'mmtimesformer', DEMO, '--work-dir', run, *options, *short]
    assert 'Training finished successfully' in _run(*command, cwd=tmp_path)
    checkpoint = run / 'epoch_1.pth'
    command = [mim, 'test', 'mmtimesformer', DEMO, '--checkpoint', checkpoint, *options]
    assert 'Testing finished successfully' in _run(*command, cwd=tmp_path)
    command = [mim, 'run', 'mmtimesformer', 'predict', tiny_videos / '0.mp4', checkpoint]
    assert '%' in _run(*command, cwd=tmp_path)

    handler = partial(SimpleHTTPRequestHandler, directory=str(run))
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever).start()
    metafile = site / '.mim' / 'configs' / 'timesformer' / 'metafile.yml'
    before = metafile.read_text()
    theirs = next(line for line in before.splitlines() if line.startswith('    Weights: '))
    address = f'http://127.0.0.1:{server.server_address[1]}/epoch_1.pth'
    metafile.write_text(before.replace(theirs, f'    Weights: {address}'))
    try:
        folder = tmp_path / 'download'
        command = [mim, 'download', 'mmtimesformer', '--config', NAME, '--dest', folder]
        _run(*command, cwd=tmp_path)
    finally:
        metafile.write_text(before)
        server.shutdown()
        server.server_close()
    assert (folder / 'epoch_1.pth').read_bytes() == checkpoint.read_bytes()
    assert (folder / f'{NAME}.py').is_file()
