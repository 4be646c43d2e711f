"""The commands and the Python of docs/usage.md, run as they are printed, on small files."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer.engine.configs import find_config

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'docs' / 'usage.md').read_text(encoding='utf-8')
COMMANDS = re.findall(r'^python tools/(?:predict|extract_features)\.py .*$', TEXT, re.MULTILINE)
SECTIONS = ('From Python', 'Features')  # whose Python goes together
CONFIG = 'timesformer_divST-tiny_moving-shapes'


@pytest.fixture
def made_by_the_demo(
    tmp_path: Path, tiny_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder that looks as after ``make demo``, with random weights."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    monkeypatch.chdir(tmp_path)
    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(find_config(CONFIG))
    before = dict(DefaultScope._instance_dict)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
    work_dir, videos = Path('work_dirs/demo/divST'), Path('data/moving_shapes/videos_val')
    for folder in (work_dir, videos):
        folder.mkdir(parents=True)
    checkpoint = {'meta': {'cfg': cfg.pretty_text}, 'state_dict': model.state_dict()}
    torch.save(checkpoint, work_dir / 'epoch_28.pth')
    for name, source in {'00000_left.mp4': '0.mp4', '00000_right.mp4': '1.mp4'}.items():
        (videos / name).write_bytes((tiny_videos / source).read_bytes())
    Path('long.mp4').write_bytes((tiny_videos / '2.mp4').read_bytes())
    Path('data/moving_shapes/val.txt').write_text('00000_left.mp4 0\n00000_right.mp4 1\n')
    Path('data/moving_shapes/classes.txt').write_text('\n'.join('abcdefgh'))
    yield tmp_path
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


def test_each_printed_command_runs_as_printed(made_by_the_demo: Path) -> None:
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        tool, *words = shlex.split(command)[1:]
        spec = importlib.util.spec_from_file_location('tool', ROOT / tool)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.main(words) == 0, command
    for name in ('labels.csv', 'labels.json', 'labelled.mp4', 'timeline.png', 'timeline.csv'):
        assert Path(name).stat().st_size, name
    assert np.load('features/features/00000_left.mp4.npy').shape == (3, 64)


@pytest.mark.filterwarnings('ignore')  # MMAction2's
def test_the_printed_python_runs_as_printed(made_by_the_demo: Path) -> None:
    names: dict[str, object] = {}
    for section in re.split(r'^## ', TEXT, flags=re.MULTILINE):
        if section.startswith(SECTIONS):
            for block in re.findall(r'^```python\n(.*?)^```', section, re.DOTALL | re.MULTILINE):
                exec(compile(block, 'usage.md', 'exec'), names)
    assert 'inferencer' in names


def test_every_option_that_the_page_lists_is_one() -> None:
    tool = (ROOT / 'tools' / 'predict.py').read_text()
    for option in set(re.findall(r'`(--[a-z-]+)', TEXT.split('## From Python')[0])):
        assert f"'{option}'" in tool, option
