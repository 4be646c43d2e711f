"""The commands of the pages on imbalance, regression and small data run as they are printed."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
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


SMALL = (
    'model.backbone.embed_dims=24', 'model.backbone.num_layers=1', 'model.backbone.num_heads=2',
    'model.cls_head.in_channels=24', 'model.cls_head.num_classes=2', 'load_from=None',
    'default_hooks.checkpoint.save_best=None',
    *(f'{one}_dataloader.{option}' for one in ('train', 'val', 'test')
      for option in ('num_workers=0', 'persistent_workers=False', 'batch_size=2')),
)  # fmt: skip


@pytest.mark.slow
def test_the_commands_on_channels_run_as_printed_but_for_the_size_of_the_model(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for label in ('clap', 'wave'):
        folder = tmp_path / 'data/your_own/videos' / label
        folder.mkdir(parents=True)
        for i in range(1, 3):
            shutil.copy(tiny_videos / f'{i}.mp4', folder)
            np.save(folder / f'{i}_depth.npy', np.zeros((20, 64, 96, 1), np.uint8))
    code, said = tool(
        'data/prepare', 'folder', 'data/your_own/videos', '--out', 'data/your_own', '--val', 0.5
    )
    assert code == 0, said
    printed = commands('datasets/channels.md')
    assert [script for script, *_ in printed] == ['train.py', 'train.py', 'predict.py']
    for script, *given in printed:
        if script == 'train.py':
            given += ['--cfg-options', f'experiment_name={len(given[0])}', *SMALL]
        else:  # the config of the training, whose model is smaller
            given[1] = str(next(Path('work_dirs/depth').glob('*.py')))
        code, said = tool(script.removesuffix('.py'), *given)
        assert code == 0, said


def test_the_config_of_the_page_on_small_data_is_there() -> None:
    ((script, config),) = commands('small_data.md')
    assert script == 'train.py' and Path(find_config(config)).is_file()
