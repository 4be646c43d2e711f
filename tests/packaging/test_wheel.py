"""A wheel works outside the checkout, and a source distribution can build one."""

import json
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.scripts import ROOT, build_wheel, load_script, run_command

CONFIG = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb'

release = load_script('requirements/release.py')
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution of the files that git tracks, made in a copy of the checkout."""
    copy = tmp_path_factory.mktemp('checkout') / 'mmtimesformer'
    release.copy_sources(ROOT, copy)
    code = 'from setuptools import build_meta; print(build_meta.build_sdist("dist"))'
    run_command(sys.executable, '-c', code, cwd=copy)
    (archive,) = (copy / 'dist').glob('*.tar.gz')
    return archive


@pytest.fixture(scope='module')
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the source distribution builds, unpacked far from the checkout."""
    folder = tmp_path_factory.mktemp('wheel')
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / 'source', filter='data')
    (source,) = (folder / 'source').iterdir()
    return build_wheel(source, folder)


@pytest.fixture(scope='module')
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and nothing else; what it needs is found behind it."""
    target = tmp_path_factory.mktemp('site')
    run_command(
        sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', target, wheel
    )
    return target


def _python(site: Path, code: str) -> str:
    """Run code in an interpreter that finds our package in `site`, away from the checkout."""
    environment = {**os.environ, 'PYTHONPATH': str(site)}
    return run_command(sys.executable, '-c', code, cwd=site, env=environment).strip()


def test_sdist_carries_the_pages_and_what_builds_them(sdist: Path) -> None:
    release.check_sdist(sdist, ROOT)


def test_wheel_carries_every_config_and_tool_and_the_index(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = release.shipped_files(ROOT)
    assert len(shipped) > 3
    missing = {f'mmtimesformer/.mim/{name}' for name in shipped} - names
    assert missing == set()
    assert not [name for name in names if 'zoo_table' in name]  # a tool of maintainers
    for ending in ('jinja', 'txt'):  # templates, class names
        files = (ROOT / 'mmtimesformer').rglob(f'*.{ending}')
        data = {str(file.relative_to(ROOT)) for file in files if '.mim' not in file.parts}
        assert data and data <= names


def test_wheel_installs_our_package_and_no_other(wheel: Path) -> None:
    tops = {name.split('/')[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith('.dist-info')} == {'mmtimesformer'}


def test_wheel_requires_no_mmcv_and_no_opencv(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
    required = [
        Requirement(line.split(': ')[1]).name
        for line in archive.read(metadata).decode().splitlines()
        if line.startswith('Requires-Dist: ') and 'extra ==' not in line
    ]
    assert sorted(required) == ['einops', 'filelock', 'mmengine', 'numpy', 'torch']


def _version() -> str:
    import mmtimesformer

    return mmtimesformer.__version__


def test_pip_install_into_this_environment_would_change_nothing_else(
    wheel: Path, tmp_path: Path
) -> None:
    """Of a newer version, for pip prints nothing where this one is installed already."""
    (source,) = (wheel.parent / 'source').iterdir()
    newer = Path(shutil.copytree(source, tmp_path / 'newer'))
    for file in (newer / 'mmtimesformer').glob('*.py'):
        text = file.read_text()
        file.write_text(text.replace(f"__version__ = '{_version()}'", "__version__ = '99.0'"))
    built = build_wheel(newer, tmp_path)
    command = [sys.executable, '-m', 'pip', 'install', '--dry-run', '--no-index', str(built)]
    would = [
        line for line in run_command(*command).splitlines() if line.startswith('Would install')
    ]
    assert would == ['Would install mmtimesformer-99.0']


def test_extra_for_mmaction2_resolves_to_the_reference_stack(wheel: Path) -> None:
    """For a new environment, by pip without pins; nothing is installed."""
    command = [sys.executable, '-m', 'pip', 'install', '-q', '--dry-run', '--ignore-installed']
    report = run_command(*command, '--report', '-', f'mmtimesformer[mmaction] @ {wheel.as_uri()}')
    found = {
        item['metadata']['name'].lower(): item['metadata']['version']
        for item in json.loads(report)['install']
    }
    assert (found['mmaction2'], found['mmcv-lite']) == ('1.1.0', '2.0.1')
    assert found['mmengine'].startswith('0.11.0')
    assert not {'mmcv', 'torchvision', 'opencv-python'} & set(found)


def test_installed_package_works_outside_the_checkout(site: Path) -> None:
    code = (
        'import mmtimesformer, torch; print(mmtimesformer.__file__);'
        'model = mmtimesformer.TimeSformer(num_frames=2, img_size=16, patch_size=8, '
        'embed_dims=8, num_layers=1, num_heads=2);'
        'print(tuple(model(torch.zeros(1, 3, 2, 16, 16)).shape))'
    )
    file, shape = _python(site, code).splitlines()
    assert Path(file).is_relative_to(site)
    assert shape == '(1, 8)'


def test_shipped_config_can_be_named_outside_the_checkout(site: Path) -> None:
    code = (
        'from mmengine.config import Config\n'
        'from mmtimesformer.config.find import find_config\n'
        f'path = find_config({CONFIG!r}); print(path)\n'
        'print(Config.fromfile(path).model.backbone.type)'
    )
    path, backbone = _python(site, code).splitlines()
    assert Path(path).is_relative_to(site)
    assert backbone == 'mmtimesformer.TimeSformer'


def _script(site: Path, *words: str) -> str:
    """Run the installed console script, away from the checkout."""
    environment = {**os.environ, 'PYTHONPATH': str(site)}
    script = site / 'bin' / 'mmtimesformer'
    return run_command(sys.executable, script, *words, cwd=site, env=environment)


def test_mmengine_finds_shipped_configs_by_package_and_name(site: Path, tmp_path: Path) -> None:
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = 'mmtimesformer::timesformer/{CONFIG}.py'\n")
    code = (
        'import mmtimesformer; from mmengine.config import Config; '
        'from mmengine.hub import get_config, get_model; '
        f"cfg = get_config('mmtimesformer::timesformer/{CONFIG}.py', pretrained=True); "
        'print(cfg.filename, cfg.model_path); '
        "model = get_model('mmtimesformer::timesformer/timesformer_divST-tiny_moving-shapes.py'); "
        f'print(type(model.backbone).__name__, Config.fromfile({str(mine)!r}).model.backbone.type)'
    )
    first, second = _python(site, code).splitlines()[-2:]
    path, weights = first.split()
    assert Path(path).is_relative_to(site / 'mmtimesformer' / '.mim')
    assert weights.endswith('_20220815-a4d0d01f.pth')
    assert second == 'TimeSformer mmtimesformer.TimeSformer'


def test_tools_run_by_name_outside_the_checkout(site: Path) -> None:
    environment = {**os.environ, 'PYTHONPATH': str(site)}
    for name in ('predict', 'visualize_attention', 'export', 'data/prepare'):
        command = [sys.executable, '-m', 'mmtimesformer', name, '--help']
        for output in (
            run_command(*command, cwd=site, env=environment),
            _script(site, name, '--help'),
        ):
            assert output.startswith(f'usage: mmtimesformer {Path(name).name} ')


def test_the_console_script_lists_tools_and_completes(site: Path, tmp_path: Path) -> None:
    assert _script(site, '--version') == f'mmtimesformer {_version()}\n'
    listed = _script(site, '--help')
    assert '\nPredict:\n  predict ' in listed and 'zoo_table' not in listed
    script = tmp_path / 'completion.bash'
    script.write_text(_script(site, 'completion', 'bash'))
    ask = 'COMP_WORDS=(mmtimesformer predict --topk 3 timesformer_divST-t); COMP_CWORD=4; '
    code = f'source {script}; {ask} _mmtimesformer; echo ${{COMPREPLY[@]}}'
    offered = run_command('bash', '--norc', '-c', code, cwd=tmp_path)
    assert offered == 'timesformer_divST-tiny_moving-shapes\n'
