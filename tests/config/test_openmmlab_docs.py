"""The Python of docs/openmmlab.md and of docs/migration.md for MMAction2 runs as printed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.hub import get_model
from mmengine.registry import DefaultScope

from mmtimesformer.config.find import shipped_configs
from mmtimesformer.engine import inferencers

DOCS = Path(__file__).parents[2] / 'docs'
PAGE = (DOCS / 'openmmlab.md').read_text()
MIGRATION = (DOCS / 'migration.md').read_text().partition('## From MMAction2\n')[2]
DEMO = 'timesformer_divST-tiny_moving-shapes'

pytestmark = pytest.mark.filterwarnings('ignore')


def blocks(text: str) -> list[str]:
    return re.findall(r'```python\n(.*?)```', text.partition('\n## From')[0], re.DOTALL)


@pytest.fixture(autouse=True)
def _scope_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


def test_the_two_lines_and_the_complete_example_for_mmaction2() -> None:
    two_lines, example = blocks(MIGRATION)
    assert all(line.partition('   #')[0] in example for line in two_lines.splitlines())
    exec(example, {'__name__': 'example'})  # it ends in assertions


def test_configs_and_models_by_name() -> None:
    names: dict[str, object] = {}
    exec(blocks(PAGE)[0], names)
    assert type(names['model'].backbone).__module__ == 'mmtimesformer.models.timesformer'


def test_the_inferencer_by_name(
    tiny_videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """With the demo's model in place of the large one, and weights that are here already."""
    model = get_model(f'mmtimesformer::timesformer/{DEMO}.py')
    torch.save({'state_dict': model.state_dict()}, 'weights.pth')
    monkeypatch.setattr(inferencers, 'weights_of', lambda name: 'weights.pth')
    Path('video.mp4').write_bytes((tiny_videos / '0.mp4').read_bytes())
    exec(re.sub(r"rec='[\w-]+'", f"rec='{DEMO}'", blocks(PAGE)[1]), {})
    assert re.search(r'\[\[0\.\d+', capsys.readouterr().out)


def test_every_config_that_is_named_is_shipped() -> None:
    named = re.findall(r'\b(timesformer_[\w-]+(?:rgb|shapes)(?:_\w+)?)\b', PAGE)
    assert len(named) > 4
    assert set(named) <= set(shipped_configs())
