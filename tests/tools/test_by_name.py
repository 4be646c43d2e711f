"""`mmtimesformer TOOL` and `python -m mmtimesformer TOOL` start the files of tools/."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mmtimesformer import __main__ as command
from mmtimesformer.console import tools as table
from mmtimesformer.console.tools import GROUPS, TOOLS, Tool, file_of
from mmtimesformer.version import __version__

by_name = pytest.mark.parametrize('tool', TOOLS, ids=[tool.name for tool in TOOLS])
MAINTAINERS = 'dev'  # a folder of tools/ that does not ship


@pytest.fixture(autouse=True)
def _unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['unchanged'])
    monkeypatch.setattr(sys, 'path', list(sys.path))


def test_the_table_has_every_shipped_tool_once(tools: Path) -> None:
    files = [file.relative_to(tools).as_posix() for file in tools.rglob('*.py')]
    shipped = sorted(file for file in files if not file.startswith(f'{MAINTAINERS}/'))
    assert sorted(tool.file for tool in TOOLS) == shipped
    assert len({tool.name for tool in TOOLS}) == len(TOOLS)
    assert {tool.group for tool in TOOLS} == set(GROUPS)


@pytest.mark.parametrize('arguments', [[], ['--help'], ['-h'], ['help']])
def test_the_help_has_each_tool_in_its_group_with_a_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 0
    group = ''
    found: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line.endswith(':') and not line.startswith(' '):
            group = line[:-1]
        elif line.startswith('  '):
            name, sentence = line.split(maxsplit=1)
            found.setdefault(group, []).append(name)
            assert len(sentence) > 10 and ': python' not in sentence and len(line) <= 115
    wanted = {group: [t.name for t in TOOLS if t.group == group] for group in GROUPS}
    wanted['Environment'].append('completion')
    assert found == wanted


def _printed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    assert end.value.code == 0
    return capsys.readouterr().out


@by_name
def test_the_help_of_each_tool_has_the_name_it_was_started_by(
    tool: Tool, tools: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_command = _printed(capsys, [tool.name, '--help'])
    assert by_command.startswith(f'usage: mmtimesformer {tool.name} [')
    monkeypatch.setattr(sys, 'argv', [str(tools / tool.file), '--help'])
    monkeypatch.setattr(sys, 'path', [str(file_of(tool).parent), *sys.path])
    with pytest.raises(SystemExit, match='0'):
        runpy.run_path(str(tools / tool.file), run_name='__main__')
    by_file = capsys.readouterr().out
    assert by_file.startswith(f'usage: tools/{tool.file} [')
    if tool.name == 'doctor':  # its file needs the standard library alone
        return
    for text in (by_command, by_file):
        assert '\nexit codes:\n  0   done\n' in text
        assert max(map(len, text.splitlines())) <= 100
    if '\nexamples:\n' in by_command:
        examples = by_command.partition('\nexamples:\n')[2].partition('\n\n')[0].splitlines()
        assert all(line.startswith(f'  mmtimesformer {tool.name}') for line in examples)
        assert f'  python tools/{tool.file}' in by_file


@pytest.mark.parametrize('name', ['report', 'analysis_tools/report', 'analysis_tools/report.py'])
def test_a_tool_gets_its_arguments_and_returns_its_exit_code(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match='1'):
        command.main([name, str(tmp_path / 'nowhere')])
    assert f'{tmp_path / "nowhere"} holds no .pkl' in capfd.readouterr().err


@pytest.mark.parametrize(
    ('name', 'near'),
    [('predct', 'predict'), ('data/prepar', 'prepare'), ('completions', 'completion')],
)
def test_a_wrong_name_is_refused_with_the_nearest(
    name: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([name]) == 2
    assert f'there is no tool {name!r}; did you mean {near!r}?' in capsys.readouterr().err


def test_the_version_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, 'argv', ['mmtimesformer', '--version'])
    assert command.command() == 0
    assert capsys.readouterr().out == f'mmtimesformer {__version__}\n'


def test_a_wheel_runs_its_own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to an installed package may be a folder `tools` of another project."""
    folders = (tmp_path / 'mmtimesformer/.mim/tools', tmp_path / 'tools')
    monkeypatch.setattr(table, 'FOLDERS', folders)
    with pytest.raises(FileNotFoundError, match='install the package again'):
        file_of(TOOLS[0])
    for folder in folders:
        folder.mkdir(parents=True)
    assert file_of(TOOLS[0]) == folders[0] / TOOLS[0].file


def _shell(tools: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(tools.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_works_from_a_shell(tools: Path, tmp_path: Path) -> None:
    done = _shell(tools, tmp_path, '-m', 'mmtimesformer', 'predict', '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: mmtimesformer predict ')


@pytest.mark.parametrize(('word', 'code'), [('--help', 0), ('--version', 0), ('predct', 2)])
def test_help_version_and_wrong_names_import_nothing_slow(
    tools: Path, tmp_path: Path, word: str, code: int
) -> None:
    done = _shell(tools, tmp_path, '-X', 'importtime', '-m', 'mmtimesformer', word)
    assert done.returncode == code
    assert ' mmtimesformer.console.tools\n' in done.stderr
    assert ' torch\n' not in done.stderr and ' mmengine\n' not in done.stderr


def test_the_console_script_imports_what_is_asked_for(tools: Path, tmp_path: Path) -> None:
    code = (
        'import sys; sys.argv = ["/bin/mmtimesformer", "--version"]\n'
        'from mmtimesformer.__main__ import command\n'
        'command(); print("torch" in sys.modules)\n'
        'from mmtimesformer import TimeSformer; print(TimeSformer.__name__)\n'
    )
    done = _shell(tools, tmp_path, '-c', code)
    assert done.stdout.splitlines()[1:] == ['False', 'TimeSformer'], done.stderr


def test_the_doctor_runs_where_pytorch_is_broken(tools: Path, tmp_path: Path) -> None:
    (tmp_path / 'torch').mkdir()
    (tmp_path / 'torch/__init__.py').write_text('raise OSError("broken")')
    code = (
        f'import sys\nsys.path.insert(0, {str(tmp_path)!r})\n'
        'sys.argv = ["/bin/mmtimesformer", "doctor"]\n'
        'from mmtimesformer.__main__ import command; sys.exit(command())'
    )
    done = _shell(tools, tmp_path, '-c', code)
    assert 'known traps' in done.stdout and 'Traceback' not in done.stderr


def test_other_starts_register_the_components(tools: Path, tmp_path: Path) -> None:
    script = tmp_path / 'own.py'
    script.write_text(
        'import mmtimesformer\nfrom mmengine.registry import HOOKS\n'
        'print(HOOKS.get("mmtimesformer.EvalProtocolHook").__name__, "torch" in __import__("sys").'
        'modules)\n'
    )
    done = _shell(tools, tmp_path, str(script))
    assert done.stdout == 'EvalProtocolHook True\n', done.stderr
