"""The other stacks that work: train, test and resume, each in an environment of its own.

`make test` runs on the reference stack, whose versions requirements/constraints.txt pins. The other
constraints files in that folder list how another stack differs. Two more are the newest MMEngine
that pip resolves today, final and pre-release, unless a file has that version already. Environments
are made below .venv-stacks/ on first use, one to two minutes each, and kept.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STACKS = sorted((ROOT / 'requirements').glob('constraints-*.txt'))
NAMES = [file.stem.removeprefix('constraints-') for file in STACKS]

NEWEST = {'mmengine-newest': (), 'mmengine-newest-pre-release': ('--pre',)}

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', params=[*STACKS, *NEWEST], ids=[*NAMES, *NEWEST])
def stack_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with that stack."""
    if isinstance(request.param, Path):
        return _environment(request.param)
    version = _newest_mmengine(*NEWEST[request.param])
    for file in [ROOT / 'requirements/constraints.txt', *STACKS]:
        if re.search(rf'^mmengine=={re.escape(version)}$', file.read_text(), re.MULTILINE):
            pytest.skip(f'MMEngine {version} is the one of requirements/{file.name}')
    overlay = ROOT / '.venv-stacks' / f'constraints-{request.param}.txt'
    overlay.parent.mkdir(exist_ok=True)
    overlay.write_text(f'mmengine=={version}\n')
    return _environment(overlay)


def _newest_mmengine(*options: str) -> str:
    """Ask pip for the newest version that pyproject.toml allows; nothing is installed."""
    (requirement,) = re.findall(
        r'"(mmengine>=[^"]*,<[^"]*)"', (ROOT / 'pyproject.toml').read_text()
    )
    command = [sys.executable, '-m', 'pip', 'install', '-q', '--dry-run', '--ignore-installed']
    command += ['--no-deps', '--report', '-', *options, requirement]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f'pip finds no {requirement} here: {found.stderr[-300:]}')
    version: str = json.loads(found.stdout)['install'][0]['metadata']['version']
    return version


def _environment(file: Path) -> Path:
    """Make the environment of constraints.txt and this file, and return its interpreter."""
    venv = ROOT / '.venv-stacks' / file.stem.removeprefix('constraints-')
    make_env = [sys.executable, ROOT / 'requirements' / 'make_env.py', venv, file]
    made = subprocess.run(make_env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return venv / 'bin' / 'python'


def _run(python: Path, *arguments: str) -> None:
    # neither this interpreter's packages nor this pytest's worker
    ours = ('PYTHONPATH', 'PYTEST_')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [python, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]


def test_three_other_stacks_are_pinned() -> None:
    assert NAMES == ['mmaction2-1.2.0', 'mmengine-0.10.7', 'onedl-mmengine']


def test_a_newer_mmengine_than_the_pinned_ones_is_tried() -> None:
    final, newest = _newest_mmengine(), _newest_mmengine('--pre')
    assert re.fullmatch(r'[\d.]+', final) and not final.startswith('0.12')
    assert newest  # 0.10.7 and 0.11.0rc3 at the time of writing


def test_stack_has_the_private_names_that_we_rely_on(stack_python: Path) -> None:
    path = 'tests/packaging/test_upstream.py'
    _run(stack_python, '-m', 'pytest', '-q', '-W', 'default', '-p', 'no:cacheprovider', path)


def test_stack_has_no_trap_that_breaks_training(stack_python: Path) -> None:
    _run(stack_python, 'tools/doctor.py')


def test_stack_reads_configs_of_mmaction2_by_name(stack_python: Path) -> None:
    path = 'tests/compat/test_external_configs.py'
    _run(stack_python, '-m', 'pytest', '-q', '-W', 'default', '-p', 'no:cacheprovider', path)


def test_stack_trains_tests_and_resumes(stack_python: Path) -> None:
    """The tests of the tools themselves, run by that stack's Python; its warnings are not ours."""
    path = 'tests/tools/test_train_and_test.py'
    _run(stack_python, '-m', 'pytest', '-q', '-W', 'default', '-p', 'no:cacheprovider', path)


def test_page_to_try_a_model_works_with_the_packages_it_pins() -> None:
    python = _environment(ROOT / 'requirements' / 'demo.txt')
    _run(python, '-c', 'import gradio')  # without it the tests would be skipped
    path = 'tests/visualization/test_demo_app.py'
    _run(python, '-m', 'pytest', '-q', '-W', 'default', '-p', 'no:cacheprovider', path)
