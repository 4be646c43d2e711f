"""`make test-all` runs every folder of tests once, in parts, and fails if any part failed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ['cases', 'engine', 'tools', 'stacks', 'rest']

pytestmark = pytest.mark.skipif(not shutil.which('make'), reason='there is no make here')


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A Makefile whose Python prints its arguments, and fails on a folder named in ``failing``."""
    shutil.copy(ROOT / 'Makefile', tmp_path)
    (tmp_path / 'requirements').mkdir()
    (tmp_path / 'requirements/make_env.py').touch()
    (tmp_path / 'requirements/notebooks.txt').touch()
    python = tmp_path / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/sh\necho pytest "$@"\nfor x in $(cat failing); do '
        'case " $* " in *" $x "*) exit 3;; esac; done\n'
    )
    python.chmod(0o755)
    (tmp_path / 'failing').touch()
    return tmp_path


def _make(checkout: Path, target: str) -> tuple[int, str]:
    done = subprocess.run(
        ['make', '-s', target, 'PYTHON=python3'],
        cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_all_parts_run_and_print_their_time(checkout: Path) -> None:
    code, out = _make(checkout, 'test-all')
    assert code == 0, out
    assert re.findall(r'^test-all-(\w+): \d+ s, exit code 0$', out, re.MULTILINE) == PARTS


@pytest.mark.parametrize('part', PARTS)
def test_a_part_runs_alone_and_ends_with_the_code_of_pytest(checkout: Path, part: str) -> None:
    (checkout / 'failing').write_text('tests/cases tests/engine tests/tools tests/packaging tests')
    code, out = _make(checkout, f'test-all-{part}')
    assert code != 0
    assert re.findall(r'test-all-(\w+): \d+ s, exit code 3', out) == [part]


def test_a_part_that_fails_stops_no_other_and_fails_the_whole(checkout: Path) -> None:
    (checkout / 'failing').write_text('tests/engine')
    code, out = _make(checkout, 'test-all')
    assert code != 0
    assert re.findall(r'^test-all-(\w+): ', out, re.MULTILINE) == PARTS
    assert 'failed: test-all-engine' in out


def test_every_folder_of_tests_is_in_exactly_one_part(checkout: Path) -> None:
    _, out = _make(checkout, 'test-all')
    *named, rest = (line.split('-n 2 ')[1].split() for line in out.splitlines() if '-n 2' in line)
    assert rest == ['tests', *(f'--ignore={folder}' for (folder,) in named)]
    assert all((ROOT / folder).is_dir() for (folder,) in named)
