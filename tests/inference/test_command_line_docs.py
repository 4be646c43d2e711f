"""The commands and tables of docs/command_line.md are true."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from mmtimesformer import cli
from mmtimesformer.__main__ import main
from mmtimesformer.console.tools import COMPLETION, COMPLETION_SUMMARY, TOOLS, summary_of

TEXT = (Path(__file__).resolve().parents[2] / 'docs/command_line.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'^```bash\n(.*?)^```', TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


def run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command of the page, which must end with 0; return or write what it prints."""
    words, _, file = command.partition(' > ')
    name, *arguments = shlex.split(words)
    assert name == 'mmtimesformer'
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 0, printed.err
    if file:
        path = Path(file).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(printed.out)
    return printed.out


def test_the_commands_run_as_they_are_printed(
    config: Path, checkpoint: Path, tiny_videos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setattr(sys, 'argv', list(sys.argv))
    monkeypatch.setattr(sys, 'path', list(sys.path))
    config.rename('config.py')
    shutil.copy(checkpoint, 'model.pth')
    shutil.copy(tiny_videos / '0.mp4', 'clip.mp4')
    outputs = {command: run(command, capsys) for command in COMMANDS}
    assert len(outputs) == len(COMMANDS) == 11
    predicted = [text for command, text in outputs.items() if 'clip.mp4' in command]
    assert len(predicted) == 3 and predicted[1] == predicted[2]
    flops = [text for command, text in outputs.items() if 'get_flops' in command]
    assert len(flops) == 2 and flops[0] == flops[1] and '16 x ' in flops[0]
    assert '_mmtimesformer' in Path('.mmtimesformer.zsh').read_text()


def test_the_table_of_tools_is_that_of_the_command() -> None:
    rows = re.findall(r'^\| (\w+) \| `(\w+)` \| (.+) \|$', TEXT, re.MULTILINE)
    wanted = [(tool.group, tool.name, summary_of(tool)) for tool in TOOLS]
    assert rows == [*wanted, ('Environment', COMPLETION, COMPLETION_SUMMARY)]


def test_the_exit_codes_are_those_of_the_tools() -> None:
    codes = re.findall(r'^\| (\d+) \| ', TEXT, re.MULTILINE)
    assert codes == re.findall(r'^(\d+) +\w', cli.__doc__ or '', re.MULTILINE)
