"""The two other stacks that work: train, test and resume, each in an environment of its own.

`make test` runs on the reference stack, whose versions requirements/constraints.txt pins. The files
beside it say how another stack differs. Its environment is made below .venv-stacks/ on first use,
about two minutes each, and kept.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STACKS = sorted((ROOT / 'requirements').glob('constraints-*.txt'))
NAMES = [file.stem.removeprefix('constraints-') for file in STACKS]

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module', params=STACKS, ids=NAMES)
def stack_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with that stack."""
    return _environment(request.param)


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


def test_both_other_stacks_are_held() -> None:
    assert NAMES == ['mmaction2-1.2.0', 'mmengine-0.10.7']


def test_stack_has_no_trap_that_breaks_training(stack_python: Path) -> None:
    _run(stack_python, 'tools/check_env.py')


def test_stack_trains_tests_and_resumes(stack_python: Path) -> None:
    """The tests of the tools themselves, run by that stack's Python; its warnings are not ours."""
    path = 'tests/tools/test_train_and_test.py'
    _run(stack_python, '-m', 'pytest', '-q', '-W', 'default', '-p', 'no:cacheprovider', path)


def test_page_to_try_a_model_works_with_the_packages_it_pins() -> None:
    python = _environment(ROOT / 'requirements' / 'demo.txt')
    _run(python, '-c', 'import gradio')  # without it the tests would be skipped
    path = 'tests/visualization/test_demo_app.py'
    _run(python, '-m', 'pytest', '-q', '-W', 'default', '-p', 'no:cacheprovider', path)
