"""The commands of the pages on imbalance, regression and small data run as they are printed."""

import re
import shlex
from pathlib import Path

import pytest

from mmtimesformer.config.find import find_config
from tests.cases import test_imbalance, test_regression
from tests.cases.test_multi_label import tool

DOCS = Path(__file__).resolve().parents[2] / 'docs'


def commands(page: str) -> list[list[str]]:
    text = (DOCS / page).read_text(encoding='utf-8')
    return [shlex.split(line) for line in re.findall(r'^python tools/(.*)$', text, re.MULTILINE)]


@pytest.mark.slow
@pytest.mark.parametrize('page', ['datasets/imbalance.md', 'datasets/regression.md'])
def test_each_printed_command_runs(
    page: str, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = test_regression if 'regression' in page else test_imbalance
    config = write.write_config(tmp_path, tiny_videos)
    monkeypatch.chdir(tmp_path)
    words = {'CONFIG': str(config), 'VIDEO': str(tiny_videos / '0.mp4')}
    assert len(commands(page)) >= 2
    for script, *given in commands(page):
        name = script.removesuffix('.py')
        code, output = tool(name, *(words.get(word, word) for word in given))
        assert code == 0, output


def test_the_config_of_the_page_on_small_data_is_there() -> None:
    ((script, config),) = commands('small_data.md')
    assert script == 'train.py' and Path(find_config(config)).is_file()
