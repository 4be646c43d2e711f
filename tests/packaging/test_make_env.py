"""An environment is made once, mended after an interruption, and never somebody else's."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / 'requirements' / 'make_env.py'


class Commands(list):
    """The commands that make_env would have run; may fail at the n-th one."""

    fail_at: int | None = None

    def run(self, command: list[str], **options: object) -> None:
        self.append(command[1:])
        if len(self) == self.fail_at:
            raise subprocess.CalledProcessError(1, command)
        if command[1:3] == ['-m', 'venv']:
            python = Path(command[3]) / 'bin' / 'python'
            python.parent.mkdir(parents=True)
            python.touch()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    monkeypatch.setattr(subprocess, 'run', commands.run)
    return commands


@pytest.fixture
def make_env() -> ModuleType:
    spec = importlib.util.spec_from_file_location('make_env', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A path with a space, as some people's folders have."""
    return tmp_path / 'a folder' / '.venv'


def test_first_make_installs_and_the_second_does_nothing(
    make_env: ModuleType, commands: Commands, venv: Path
) -> None:
    assert make_env.main([str(venv)]) == 0
    assert [command[1] for command in commands] == ['venv', 'pip', 'pip', 'pip']
    assert make_env.main([str(venv)]) == 0
    assert len(commands) == 4


def test_torch_comes_with_its_libraries_and_the_rest_exactly_as_pinned(
    make_env: ModuleType, commands: Commands, venv: Path
) -> None:
    make_env.main([str(venv)])
    _, torch, pins, ours = commands
    assert torch[-1].startswith('torch==')
    assert '--no-deps' not in torch
    assert pins[-3:] == ['--no-deps', '-r', str(venv / 'constraints.txt')]
    assert ours[-2:] == ['-e', str(make_env.ROOT)]


def test_changed_pins_update_the_environment_in_place(
    make_env: ModuleType, commands: Commands, venv: Path, tmp_path: Path
) -> None:
    make_env.main([str(venv)])
    (venv / 'kept').touch()
    overlay = tmp_path / 'overlay.txt'
    overlay.write_text('mmengine==0.10.7\n')
    assert make_env.main([str(venv), str(overlay)]) == 0
    assert [command[1] for command in commands[4:]] == ['pip', 'pip', 'pip']
    assert (venv / 'kept').exists()


@pytest.mark.parametrize('step', [1, 2, 3, 4])
def test_interrupted_install_is_made_anew(
    make_env: ModuleType,
    commands: Commands,
    venv: Path,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    commands.fail_at = step
    assert make_env.main([str(venv)]) == 1
    assert 'see its own message' in capsys.readouterr().err
    (venv / 'half a package').mkdir(exist_ok=True)
    commands.fail_at = None
    assert make_env.main([str(venv)]) == 0
    assert 'was interrupted: making it again' in capsys.readouterr().out
    assert not (venv / 'half a package').exists()
    assert (venv / '.made').is_file()


def test_interrupted_update_is_made_anew(
    make_env: ModuleType, commands: Commands, venv: Path, tmp_path: Path
) -> None:
    make_env.main([str(venv)])
    overlay = tmp_path / 'overlay.txt'
    overlay.write_text('mmengine==0.10.7\n')
    commands.fail_at = 6
    assert make_env.main([str(venv), str(overlay)]) == 1
    commands.fail_at = None
    assert make_env.main([str(venv), str(overlay)]) == 0
    assert [command[1] for command in commands[6:]] == ['venv', 'pip', 'pip', 'pip']


def test_environment_of_another_python_is_made_anew(
    make_env: ModuleType, commands: Commands, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_env.main([str(venv)])
    monkeypatch.setattr(sys, 'version_info', (3, 12 if sys.version_info[1] != 12 else 13, 0))
    assert make_env.main([str(venv)]) == 0
    assert [command[1] for command in commands[4:]] == ['venv', 'pip', 'pip', 'pip']


def test_environment_whose_python_is_gone_is_made_anew(
    make_env: ModuleType, commands: Commands, venv: Path
) -> None:
    make_env.main([str(venv)])
    (venv / 'bin' / 'python').unlink()
    assert make_env.main([str(venv)]) == 0
    assert commands[4][1] == 'venv'


def test_a_folder_that_make_did_not_make_is_left_alone(
    make_env: ModuleType, commands: Commands, venv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (venv / 'bin').mkdir(parents=True)
    (venv / 'pyvenv.cfg').write_text('mine\n')
    assert make_env.main([str(venv)]) == 1
    assert 'name another folder with VENV=' in capsys.readouterr().err
    assert commands == []
    assert (venv / 'pyvenv.cfg').read_text() == 'mine\n'


@pytest.mark.parametrize('version', [(3, 9), (3, 14)])
def test_wrong_python_is_named_with_the_way_out(
    make_env: ModuleType, version: tuple[int, int]
) -> None:
    with pytest.raises(
        ValueError, match=rf'is Python 3\.{version[1]}; .* 3\.10 to 3\.13 .*PYTHON=python3'
    ):
        make_env.check_python(version)


def test_overlay_replaces_all_lines_of_a_package_and_keeps_the_rest(make_env: ModuleType) -> None:
    pins = make_env.merge_pins(
        '# a comment\na-b==1; python_version < "3.11"\na-b==2; python_version >= "3.11"\nc==1\n',
        'A_b==3\nd==1\n',
    )
    assert pins == ['c==1', 'A_b==3', 'd==1']


def test_words_for_an_old_python_can_be_read_by_it() -> None:
    """Python 3.6's grammar has f-strings, and neither `:=` nor `match`."""
    compile(SCRIPT.read_text(), SCRIPT, 'exec')
    import ast

    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
