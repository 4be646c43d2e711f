"""The commands and the Python of docs/datasets/your_own.md, run as they are printed."""

import ast
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from mmtimesformer.__main__ import main as run_tool
from tests.conftest import write_video

TEXT = (Path(__file__).parents[2] / 'docs/datasets/your_own.md').read_text(encoding='utf-8')
COMMANDS = re.findall(r'^python (?:tools/\S+\.py|-m mmtimesformer) .*$', TEXT, re.MULTILINE)


@pytest.fixture
def my_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the page, with ten videos a class."""
    monkeypatch.chdir(tmp_path)
    for label in ('clap hands', 'wave'):
        (tmp_path / 'my_videos' / label).mkdir(parents=True)
    source = write_video(tmp_path / 'source.mp4', 16, 80, 64)
    for label in ('clap hands', 'wave'):
        for i in range(1, 11):
            shutil.copy(source, tmp_path / 'my_videos' / label / f'{i}.mp4')
    return tmp_path / 'my_videos'


def test_the_page_starts_with_the_command_and_its_groups_are_those_of_the_code() -> None:
    assert COMMANDS[0].startswith('python -m mmtimesformer finetune my_videos')
    from mmtimesformer.finetuning.splitting import group_of_name

    for name, group in re.findall(r'^ +\| `(\w*\d\w*)`.* \| `(\w+)` \|$', TEXT, re.MULTILINE):
        assert group_of_name(f'{name}.mp4')[0] == group
    assert len(re.findall(r'^ +\| `\w*\d\w*`', TEXT, re.MULTILINE)) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # of others: MMEngine's Runner
def test_each_printed_command_runs_as_printed(
    my_videos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shorter = ['--epochs', '2']  # than 360: what is learned is shown by test_runs.py
    for command in COMMANDS:
        words = shlex.split(command)
        tool = words[3:] if words[1] == '-m' else [words[1].removeprefix('tools/'), *words[2:]]
        monkeypatch.setattr(sys, 'argv', ['mmtimesformer', *tool])
        with pytest.raises(SystemExit) as end:
            run_tool([*tool, *(shorter if tool[0] == 'finetune' else [])])
        assert not end.value.code, command
    output = capfd.readouterr().out
    for code in re.findall(r'```python\n(from mmtimesformer.*?)```', TEXT, re.DOTALL):
        ast.parse(code)
        exec(code, {})
    printed = output[output.index('from Python:') :].splitlines()[1:4]
    scope: dict[str, object] = {}
    exec('\n'.join(line.strip() for line in printed), scope)
    assert scope['clf'].classes == ['clap hands', 'wave']
    assert Path('work_dirs/mine/report.html').is_file()
