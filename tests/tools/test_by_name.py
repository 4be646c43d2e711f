"""`python -m mmtimesformer TOOL` starts the files of tools/."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmtimesformer import __main__ as names


def test_the_list_names_every_tool_with_a_sentence(
    tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert names.main([]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[2:]]
    files = {file.relative_to(tools).with_suffix('').as_posix() for file in tools.rglob('*.py')}
    assert {name for name, _ in lines} == files
    assert all(len(sentence) > 10 for _, sentence in lines)


@pytest.mark.parametrize('name', ['report', 'analysis_tools/report', 'analysis_tools/report.py'])
def test_a_tool_gets_its_arguments_and_returns_its_exit_code(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, 'argv', ['unchanged'])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    with pytest.raises(SystemExit, match='1'):
        names.main([name, str(tmp_path / 'nowhere')])
    assert f'{tmp_path / "nowhere"} holds no .pkl' in capfd.readouterr().err


def test_a_wrong_name_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert names.main(['predct']) == 2
    assert "there is no tool 'predct'; did you mean 'predict'?" in capsys.readouterr().err


def test_a_wheel_runs_its_own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to an installed package may be a folder `tools` of another project."""
    for folder in ('mmtimesformer/.mim/tools', 'tools'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / 'predict.py').write_text('')
    folders = (tmp_path / 'mmtimesformer/.mim/tools', tmp_path / 'tools')
    monkeypatch.setattr(names, 'FOLDERS', folders)
    assert names.tools() == {'predict': folders[0] / 'predict.py'}


def test_it_works_from_a_shell(tools: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'mmtimesformer', 'predict', '--help'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tools.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: predict.py')
