"""Configs, commands and numbers of docs/choose.md are those of the metafiles and other pages."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from mmtimesformer.config.find import shipped_configs
from mmtimesformer.console.tools import TOOLS
from tests.packaging.scripts import load_script

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/choose.md').read_text()


@pytest.fixture(scope='module')
def tool(request: pytest.FixtureRequest) -> object:
    sys.path.insert(0, str(ROOT / 'tools/dev'))
    request.addfinalizer(lambda: sys.path.remove(str(ROOT / 'tools/dev')))
    return load_script('tools/dev/memory_table.py')


def test_tables_are_those_of_the_metafiles_and_the_computed_memory(tool: object) -> None:
    assert tool.main(['--check']) == 0


def test_every_config_of_the_page_is_shipped() -> None:
    names = set(re.findall(r'(?:pp-)?timesformer[\w.-]*_[\w-]+xb[\w-]+', PAGE))
    assert len(names) > 15
    assert names <= set(shipped_configs())


def test_every_data_set_of_the_zoo_with_a_score_is_on_the_page(tool: object) -> None:
    scored = {
        result['Dataset']
        for model in tool.models()
        for result in model['Results']
        if 'Top 1 Accuracy' in result['Metrics']
    }
    rows = {line.split(' | ')[0].removeprefix('| ') for line in PAGE.splitlines()}
    assert scored <= rows


def test_measured_memory_and_time_are_those_of_the_performance_page() -> None:
    measured = (ROOT / 'docs/performance.md').read_text()
    for level, number in re.findall(
        r"^\| `('?\w+'?)` \| [\d,]+ MiB \| ([\d,]+ MiB) \|", PAGE, re.M
    ):
        assert f'| `with_cp={level}` | {number} |' in measured
    slower = dict(re.findall(r"^\| `with_cp='(\w+)'` .* ([\d.]+) \|$", measured, re.M))
    assert f'about {round(100 * float(slower["mlp"])) - 100} % of time' in PAGE
    assert f"`'block'` {round(100 * float(slower['block'])) - 100} %" in PAGE


def test_commands_name_tools() -> None:
    names = {tool.name for tool in TOOLS}
    for command in re.findall(r'`(mmtimesformer [^`]+)`', PAGE):
        assert shlex.split(command)[1] in names, command
    for script in re.findall(r'tools/[\w/]+\.(?:py|sh)', PAGE):
        assert (ROOT / script).is_file()


@pytest.mark.slow
def test_computed_memory_is_near_the_measured_one(tool: object) -> None:
    """Of 2 clips in fp32; the computation has no data, so each of these takes seconds."""
    rows = re.findall(r"^\| `'?(\w+)'?` \| ([\d,]+) MiB \| ([\d,]+) MiB \|", PAGE, re.M)
    assert len(rows) == 5
    for level, computed, measured in rows:
        backbone = dict(num_frames=8, with_cp=False if level == 'False' else level)
        peak = tool.peak_of_step(backbone, 2, bf16=False) / 2**20
        assert f'{peak:,.0f}' == computed
        assert abs(peak - float(measured.replace(',', ''))) < 60
