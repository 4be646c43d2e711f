"""The commands and the Python of docs/stack.md, run as they are printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs' / 'stack.md').read_text(encoding='utf-8')
COMMANDS = re.findall(r'^(python (?:tools/\S+\.py|-m mmtimesformer) \S.*?)\s+#', TEXT, re.MULTILINE)


def run(command: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *shlex.split(command)[1:]]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def test_page_has_three_commands_of_doctor() -> None:
    assert [command.rpartition(' ')[2] for command in COMMANDS] == ['doctor', '--json', '--fix']


@pytest.mark.parametrize('command', COMMANDS)
def test_each_printed_command_runs(command: str) -> None:
    """Without a terminal --fix changes nothing: it exits with 2 if there is something to fix."""
    done = run(command)
    fixable = '--fix' in command and 'nothing was changed' in done.stdout
    assert done.returncode == (2 if fixable else 0), done.stdout + done.stderr


def test_table_of_problems_is_that_of_doctor() -> None:
    done = run('python tools/doctor.py --list')
    assert done.returncode == 0 and done.stdout in TEXT


def test_the_one_command_installs_the_pins_that_doctor_prints() -> None:
    (extra,) = re.findall(r'^pip install "mmtimesformer\[(\w+)\]"', TEXT, re.MULTILINE)
    text = (ROOT / 'pyproject.toml').read_text()
    block = re.search(rf'^{extra} = \[$(.*?)^\]', text, re.MULTILINE | re.DOTALL)[1]
    pins = run('python tools/doctor.py --list').stdout.replace("'", '')
    for package in ('mmaction2', 'mmcv-lite', 'mmengine'):
        (line,) = re.findall(rf'"({package}[^"]*)"', block)
        assert line in pins


def test_lines_for_a_script_and_a_config_apply_the_fixes(tmp_path: Path) -> None:
    line, config = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
    (tmp_path / 'config.py').write_text(config)
    check = (
        'from mmengine.config import Config\n'
        "Config.fromfile('config.py')\n"
        'from mmengine.hub import get_config\n'
        "name = 'mmaction::recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_'\n"
        "assert get_config(name + 'kinetics400-rgb.py').model.type\n"
    )
    for code in (line + check, check):  # the second applies them by the config alone
        done = subprocess.run(
            [sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
