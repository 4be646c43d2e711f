"""The completion script completes in a real bash."""

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from mmtimesformer.__main__ import main
from mmtimesformer.config.find import shipped_configs
from mmtimesformer.console.completion import SHELLS, parser_of, script
from mmtimesformer.console.tools import TOOLS, file_of

TINY = 'timesformer_divST-tiny_moving-shapes'
ASK = """
source "$SCRIPT"
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
_mmtimesformer
printf '%s\\n' "${COMPREPLY[@]}"
"""

needs_bash = pytest.mark.skipif(not shutil.which('bash'), reason='needs bash')
needs_fish = pytest.mark.skipif(not shutil.which('fish'), reason='needs fish')


@pytest.fixture(scope='module')
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp('completion')
    written = {}
    for shell in SHELLS:
        written[shell] = folder / shell
        written[shell].write_text(script(shell) + '\n')
    return written


def complete(scripts: dict[str, Path], folder: Path, *words: str) -> list[str]:
    """Return what bash offers for the last word of a command line."""
    done = subprocess.run(
        ['bash', '--norc', '-c', ASK, 'bash', 'mmtimesformer', *words],
        cwd=folder, env={'SCRIPT': str(scripts['bash']), 'PATH': '/usr/bin:/bin'},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ''
    return [line for line in done.stdout.splitlines() if line]


@needs_bash
@pytest.mark.parametrize(
    ('words', 'offered'),
    [
        (['pre'], ['predict', 'prepare']),
        (['predict', '--spe'], ['--speed', '--speed-cost']),
        (
            ['predict', '--speed', ''],
            ['exact', 'compiled', 'bf16', 'int8', 'compiled+bf16', 'compiled+int8'],
        ),
        (['predict', 'clip.mp4', '--speed', 'b'], ['bf16']),
        (['predict', 'clip.mp4', '--speed', '=', 'b'], ['bf16']),  # as bash splits =
        (
            ['predict', 'clip.mp4', '--speed', '='],
            ['exact', 'compiled', 'bf16', 'int8', 'compiled+bf16', 'compiled+int8'],
        ),
        (['predict', '--topk', 'c'], []),
        (['predict', 'clip.mp4', 'timesformer_divST-tiny_moving-s'], [TINY]),
        (['predict', 'c'], ['clip one.mp4', 'clip$two.mp4']),
        (['predict', '--topk', '3', 'clip o'], ['clip one.mp4']),
        (['predict', 'x', '--out', 'clip o'], ['clip one.mp4']),
        (['train', '--re'], ['--resume']),
        (['train', TINY, '--amp', ''], ['fp16', 'bf16']),
        (['prepare', 'h'], ['hmdb51', 'howto100m']),
        (['prepare', 'kinetics', '4'], ['400']),
        (['prepare', 'kinetics', '400', 's'], ['sub']),
        (['prepare', 'kinetics', '--videos-'], [f'--videos-{x}' for x in ('train', 'val', 'test')]),
        (['prepare', 'folder', '--videos-'], []),
        (['completion', ''], list(SHELLS)),
        (['nonsense', '--'], []),
    ],
)
def test_bash_completes(
    scripts: dict[str, Path], tmp_path: Path, words: list[str], offered: list[str]
) -> None:
    for name in ('clip one.mp4', 'clip$two.mp4'):
        (tmp_path / name).touch()
    (tmp_path / 'sub').mkdir()
    assert sorted(complete(scripts, tmp_path, *words)) == sorted(offered)


@needs_bash
def test_bash_offers_every_tool_option_and_config(scripts: dict[str, Path], tmp_path: Path) -> None:
    names = {*(tool.name for tool in TOOLS), 'completion', '--help', '--version'}
    assert set(complete(scripts, tmp_path, '')) == names
    assert set(complete(scripts, tmp_path, 'test', '')) == set(shipped_configs())
    for tool in TOOLS:
        options = set(parser_of(file_of(tool))._option_string_actions) - {'--local_rank'}
        assert set(complete(scripts, tmp_path, tool.name, '-')) == options


@needs_bash
def test_bash_reads_the_script_of_bash_and_of_zsh(scripts: dict[str, Path]) -> None:
    for shell in ('bash', 'zsh'):
        subprocess.run(['bash', '-n', scripts[shell]], check=True)
    assert 'bashcompinit' in scripts['zsh'].read_text()


@needs_fish
def test_fish_completes(scripts: dict[str, Path], tmp_path: Path) -> None:
    code = f'source {scripts["fish"]}; complete -C "mmtimesformer predict --speed "'
    done = subprocess.run(
        ['fish', '--no-config', '-c', code], capture_output=True, text=True, check=True
    )
    found = [line.split()[0] for line in done.stdout.splitlines()]
    assert {'exact', 'compiled', 'bf16', 'int8'} <= {*found}


def test_finding_a_parser_leaves_argparse_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = argparse.ArgumentParser.print_help
    parser_of(file_of(TOOLS[0]))
    assert argparse.ArgumentParser.print_help is before
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('arguments', 'code', 'expected'),
    [
        (['bash'], 0, 'complete -o filenames -F _mmtimesformer mmtimesformer'),
        (['--help'], 0, 'mmtimesformer completion bash > ~/.local/share/bash-completion'),
        ([], 2, 'error: give one of bash, zsh, fish'),
        (['powershell'], 2, '(powershell was given)'),
    ],
)
def test_the_command_prints_the_script(
    arguments: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['completion', *arguments]) == code
    printed = capsys.readouterr()
    assert expected in printed.out + printed.err
