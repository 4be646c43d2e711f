"""tools/predict.py and tools/extract_features.py, as a user starts them."""

import csv
import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer.datasets.transforms.decoding import Video

from .conftest import TEXT

Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tool(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Tool:
    """Run a tool in this process; return its exit code, and what it wrote to both streams."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: object) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(f'tool_{name}', tools / f'{name}.py')
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with warnings.catch_warnings():
            code = module.main([str(word) for word in words])
        output = capfd.readouterr()
        assert 'Traceback' not in output.err + output.out
        return code, output.out, output.err

    return run


@pytest.fixture(scope='session')
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_videos: Path) -> tuple[str, Path]:
    """The text of a config that opens videos by path, and a checkpoint of it."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    text = TEXT.replace('{videos}', str(tiny_videos))
    text = text.replace('DecordInit', 'mmtimesformer.VideoInit')
    text = text.replace('DecordDecode', 'mmtimesformer.VideoDecode')
    folder = tmp_path_factory.mktemp('trained')
    (folder / 'tiny.py').write_text(text.replace("['mmtimesformer']", "['mmtimesformer.datasets']"))
    cfg = Config.fromfile(folder / 'tiny.py')
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
    torch.nn.init.normal_(model.cls_head.fc_cls.weight)
    meta = {'cfg': cfg.pretty_text, 'dataset_meta': {'classes': ['left', 'right']}}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, folder / 'epoch_1.pth')
    return text, folder / 'epoch_1.pth'


@pytest.fixture
def checkpoint(trained: tuple[str, Path], tiny_config: Path, tmp_path: Path) -> Path:
    """A checkpoint in the folder of the test; ``tiny_config`` becomes its config."""
    tiny_config.write_text(trained[0])
    return Path(shutil.copy(trained[1], tmp_path))


@pytest.mark.parametrize(('bias', 'best'), [([30.0, 0.0], 'left'), ([0.0, 30.0], 'right')])
def test_one_video_is_labelled(
    tool: Tool,
    tiny_config: Path,
    checkpoint: Path,
    tiny_videos: Path,
    bias: list[float],
    best: str,
) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    saved['state_dict']['cls_head.fc_cls.bias'] = torch.tensor(bias)
    torch.save(saved, checkpoint)
    code, out, err = tool('predict', tiny_videos / '0.mp4', tiny_config, checkpoint, '--topk', 1)
    assert (code, err) == (0, '')
    first, answer = out.splitlines()
    assert first == str(tiny_videos / '0.mp4')
    label, score, unit = answer.split()
    assert (label, unit) == (best, '%') and float(score) > 99


def test_a_training_checkpoint_needs_no_config(
    tool: Tool, tiny_config: Path, checkpoint: Path, tiny_videos: Path
) -> None:
    with_config = tool('predict', tiny_videos / '0.mp4', tiny_config, checkpoint)
    assert tool('predict', tiny_videos / '0.mp4', checkpoint) == with_config


def test_a_folder_becomes_tables_and_videos(
    tool: Tool, checkpoint: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'folder'
    folder.mkdir()
    for i in range(2):
        (folder / f'{i}.mp4').write_bytes((tiny_videos / f'{i}.mp4').read_bytes())
    (folder / 'broken.mp4').write_bytes(b'')
    for name in ('x.json', 'x.csv'):
        code, out, _ = tool('predict', folder, checkpoint, '--out', name, '--save-video', 'drawn')
        assert code == 3
        assert f'{folder}/broken.mp4\n  skipped: is an empty file' in out
    written = json.loads(Path('x.json').read_text())
    assert [len(one['top']) for one in written['videos']] == [2, 2]
    assert written['score'] == 'mean of softmax'
    assert written['skipped'] == [
        {'video': str(folder / 'broken.mp4'), 'reason': 'is an empty file'}
    ]
    with Path('x.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['rank'] for row in rows] == ['1', '2', '1', '2', '']
    assert rows[-1]['skipped'] == 'is an empty file'
    assert sorted(path.name for path in Path('drawn').iterdir()) == ['0.mp4', '1.mp4']


def test_a_long_video_becomes_a_timeline(tool: Tool, checkpoint: Path, tiny_videos: Path) -> None:
    code, out, _ = tool(
        'predict', tiny_videos / '0.mp4', checkpoint, '--window', 0.4, '--stride', 0.1,
        '--timeline', 't.png', 't.csv', '--out', 't.json', '--save-video', 'drawn.mp4',
    )  # fmt: skip
    assert code == 0
    assert '0:00.0 - ' in out
    with Path('t.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['start'] for row in rows] == ['0.0', '0.1', '0.2', '0.267']
    assert rows[0]['label_1'] in ('left', 'right')
    assert len(json.loads(Path('t.json').read_text())['moments']) == 4
    assert Path('t.png').read_bytes().startswith(b'\x89PNG')
    assert len(Video('drawn.mp4')) == 20


def test_numbers_in_the_place_of_names_are_explained(
    tool: Tool, tiny_config: Path, checkpoint: Path, tiny_videos: Path
) -> None:
    state = torch.load(checkpoint)['state_dict']
    torch.save({'state_dict': state}, 'bare.pth')
    code, out, err = tool('predict', tiny_videos / '0.mp4', tiny_config, 'bare.pth')
    assert code == 0
    assert 'give --classes NAMES.txt' in err
    Path('names.txt').write_text('up\ndown\n')
    words = (tiny_videos / '0.mp4', tiny_config, 'bare.pth', '--classes', 'names.txt')
    code, out, err = tool('predict', *words)
    assert (code, err) == (0, '')
    assert 'up' in out


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['nowhere.mp4', 'epoch_1.pth'], 'the video nowhere.mp4 does not exist'),
        (['epoch_1.pth', 'epoch_1.pth'], 'the video epoch_1.pth'),
        (['nowhere.mp4', 'nowhere.pth'], 'checkpoint nowhere.pth does not exist'),
        (['nowhere.mp4', 'nowhere', 'epoch_1.pth'], 'config nowhere is neither a file'),
        (['nowhere.mp4', 'epoch_1.pth', '--device', 'gpu'], "device 'gpu' is not known"),
        (['nowhere.mp4', 'epoch_1.pth', '--topk', '0'], 'topk=0 is not positive'),
        (['nowhere.mp4', 'epoch_1.pth', '--window', '-1'], 'window=-1.0 is not positive'),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    tool: Tool, checkpoint: Path, words: list[str], message: str
) -> None:
    code, _, err = tool('predict', *words)
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith('error: ')]
    assert message in line


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--stride', '1'], '--stride and --timeline go with --window'),
        (['--window', '1', '--timeline', 't.pdf'], 'must end in .png or .csv'),
        (['--out', 'x.txt'], 'must end in .json or .csv'),
    ],
)
def test_a_wrong_command_line_is_told(
    tool: Tool, capfd: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match='2'):
        tool('predict', 'a.mp4', 'b.pth', *words)
    assert message in capfd.readouterr().err


def test_labelled_videos_do_not_go_into_the_folder_of_the_videos(
    tool: Tool, tmp_path: Path
) -> None:
    (tmp_path / 'videos').mkdir()
    code, _, message = tool('predict', 'videos', 'x.pth', '--save-video', 'videos')
    assert code == 1
    assert 'is the folder of the videos themselves' in message


def test_the_name_of_a_labelled_video_has_an_ending_that_can_be_written(
    tool: Tool, capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        tool('predict', 'x.mp4', 'x.pth', '--save-video', 'out.webm')
    assert 'must end in .mp4, .mkv or .mov' in capfd.readouterr().err
