"""The commands and the Python of docs/usage.md, run as they are printed, on small files."""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer.__main__ import main as run_tool
from mmtimesformer.config.find import find_config

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'docs' / 'usage.md').read_text(encoding='utf-8')
COMMANDS = re.findall(r'^(?:python tools/\S+\.py|mmtimesformer) .*$', TEXT, re.MULTILINE)
WRITTEN = (
    'labels.csv', 'labels.json', 'labelled.mp4', 'timeline.png', 'timeline.csv',
    'attention/page.html', 'relevance_for_clockwise/grid.png', 'model.onnx',
    'work_dirs/demo/divST/report.html',
)  # fmt: skip
SECTIONS = ('From Python', 'Features')  # whose Python goes together
CONFIG = 'timesformer_divST-tiny_moving-shapes'
CLASSES = ['left', 'right', 'up', 'down', 'clockwise', 'other', 'growing', 'shrinking']


@pytest.fixture
def made_by_the_demo(
    tmp_path: Path, tiny_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder as after ``make demo``, with random weights."""
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
    meta = {'cfg': cfg.pretty_text, 'dataset_meta': {'classes': CLASSES}}
    checkpoint = {'meta': meta, 'state_dict': model.state_dict()}
    torch.save(checkpoint, work_dir / 'epoch_28.pth')
    for i, name in enumerate(('00000_left', '00000_right', '00002_clockwise')):
        (videos / f'{name}.mp4').write_bytes((tiny_videos / f'{i}.mp4').read_bytes())
    Path('long.mp4').write_bytes((tiny_videos / '2.mp4').read_bytes())
    Path('data/moving_shapes/val.txt').write_text('00000_left.mp4 0\n00000_right.mp4 1\n')
    Path('data/moving_shapes/classes.txt').write_text('\n'.join(CLASSES))
    yield tmp_path
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.mark.slow  # each tool has tests of its own
@pytest.mark.filterwarnings('ignore')  # of others: exporters, and MMEngine's Runner
def test_each_printed_command_runs_as_printed(
    made_by_the_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(COMMANDS) >= 13
    monkeypatch.setattr(sys, 'argv', [])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    for command in COMMANDS:
        words = shlex.split(re.sub('^(python tools/|mmtimesformer )', '', command))
        if 'model.onnx' in words and find_spec('onnxruntime') is None:
            Path('model.onnx').write_text('not written here: pip install "mmtimesformer[export]"')
            continue
        with pytest.raises(SystemExit) as ended:
            run_tool(words)
        assert ended.value.code == 0, command
    for name in WRITTEN:
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
    files = ROOT / 'tools' / 'predict.py', ROOT / 'mmtimesformer' / 'config' / 'speed.py'
    tool = ''.join(file.read_text() for file in files)
    for option in set(re.findall(r'`(--[a-z-]+)', TEXT.split('## From Python')[0])):
        assert f"'{option}'" in tool, option


def test_every_option_of_the_demo_page_is_one() -> None:
    (section,) = re.findall(r'^## Demo page$(.*?)^## ', TEXT, re.DOTALL | re.MULTILINE)
    tool = (ROOT / 'tools' / 'demo_app.py').read_text()
    options = set(re.findall(r'`(--[a-z-]+)', section))
    assert len(options) == 12
    for option in options:
        assert f"'{option}'" in tool, option
