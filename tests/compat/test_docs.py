"""The commands and the Python of docs/stack.md, run as they are printed."""

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmtimesformer.__main__ import main as run_tool

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs' / 'stack.md').read_text(encoding='utf-8')
COMMANDS = re.findall(r'^(python (?:tools/\S+\.py|-m mmtimesformer) \S.*?)\s+#', TEXT, re.MULTILINE)


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Run a printed command in this process, without a terminal, and return its exit code."""
    words = shlex.split(command)
    tool = words[3:] if words[1] == '-m' else [Path(words[1]).stem, *words[2:]]
    monkeypatch.setattr(sys, 'argv', [*sys.argv])
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(sys, 'stdin', io.StringIO())
    with pytest.raises(SystemExit) as end:
        run_tool(tool)
    return end.value.code


def test_page_has_three_commands_of_doctor() -> None:
    assert [command.rpartition(' ')[2] for command in COMMANDS] == ['doctor', '--json', '--fix']


@pytest.mark.parametrize('command', COMMANDS)
def test_each_printed_command_runs(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal --fix changes nothing: it exits with 2 if there is something to fix."""
    code = run(command, monkeypatch)
    output = capsys.readouterr().out
    assert code == (2 if '--fix' in command and 'nothing was changed' in output else 0), output


def test_table_of_problems_is_that_of_doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run('python tools/doctor.py --list', monkeypatch) == 0
    assert capsys.readouterr().out in TEXT


def test_the_one_command_installs_the_pins_that_doctor_prints() -> None:
    (extra,) = re.findall(r'^pip install "mmtimesformer\[(\w+)\]"', TEXT, re.MULTILINE)
    text = (ROOT / 'pyproject.toml').read_text()
    block = re.search(rf'^{extra} = \[$(.*?)^\]', text, re.MULTILINE | re.DOTALL)[1]
    problems = TEXT.partition('## Known problems')[2].replace("'", '')
    for package in ('mmaction2', 'mmcv-lite', 'mmengine'):
        (line,) = re.findall(rf'"({package}[^"]*)"', block)
        assert line in problems


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
    assert line.startswith('import mmtimesformer')
    done = subprocess.run(  # the config's line alone
        [sys.executable, '-c', check], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
