"""tools/visualize_attention.py writes a picture, a video and a page, or an error."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tool(tools: Path, capsys: pytest.CaptureFixture) -> Iterator[Tool]:
    """Run the tool in this process; return its exit code, its output, and its errors."""
    scopes = dict(DefaultScope._instance_dict)

    def run(*words: object) -> tuple[int, str, str]:
        path = tools / 'visualize_attention.py'
        spec = importlib.util.spec_from_file_location('visualize_attention', path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        code = module.main([str(word) for word in words])
        printed = capsys.readouterr()
        errors = [line for line in printed.err.splitlines() if line.startswith('error: ')]
        return code, printed.out, '\n'.join(errors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('warnings.filterwarnings', lambda *args, **kwargs: None)
        yield run
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)


@pytest.fixture
def checkpoint(tiny_config: Path, tmp_path: Path) -> Path:
    """Weights for the tiny config, as its training would write them."""
    import mmaction.models  # noqa: F401

    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(Config.fromfile(tiny_config).model)
    path = tmp_path / 'weights.pth'
    meta = {'dataset_meta': {'classes': ['jumping', 'sitting']}}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, path)
    return path


def test_a_picture_a_video_and_a_page_are_written(
    tool: Tool, tiny_videos: Path, tiny_config: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    code, output, errors = tool(tiny_videos / '0.mp4', tiny_config, checkpoint, '--out', out)
    assert (code, errors) == (0, '')
    assert sorted(file.name for file in out.iterdir()) == ['grid.png', 'overlay.mp4', 'page.html']
    assert all(str(file) in output for file in out.iterdir())
    assert 'jumping' in output and 'layers 0, every head' in output
    page = (out / 'page.html').read_text()
    assert '"method":"rollout"' in page and 'jumping' in page


@pytest.mark.parametrize(
    'options', [('--method', 'last', '--layer', '0', '--head', '1'), ('--class', 'sitting')]
)
def test_options_reach_the_page(
    options: tuple[str, ...],
    tool: Tool,
    tiny_videos: Path,
    tiny_config: Path,
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    words = (tiny_videos / '0.mp4', tiny_config, checkpoint, '--out', tmp_path / 'out', *options)
    code, _, errors = tool(*words)
    assert code == 0, errors
    page = (tmp_path / 'out' / 'page.html').read_text()
    if options[0] == '--class':
        assert 'gradient relevance for \\u201csitting\\u201d' in page
    else:
        assert '"method":"last"' in page and '"head":1' in page


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (('--class', 'jumpin'), "there is no class jumpin; .*did you mean 'jumping'"),
        (('--class', '2'), 'there is no class 2; give a name, or a number from 0 to 1'),
        (('--method', 'last', '--layer', '5'), 'layer 5 is not one of the 1 of the model'),
        (('--method', 'last', '--head', '2'), 'head 2 is not one of 2; choose from 0 to 1'),
        (('--view', '3'), 'view 3 is not one of 3; choose from 0 to 2'),
        (('--layers', '4'), 'layer 4 is not stored; choose from 0'),
        (('--head', '7'), 'head 7 is not one of 2'),
        (('--layer', '7'), 'layer 7 is not stored'),
    ],
)
def test_a_wrong_option_is_told_in_one_sentence(
    options: tuple[str, ...],
    words: str,
    tool: Tool,
    tiny_videos: Path,
    tiny_config: Path,
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    arguments = (tiny_videos / '0.mp4', tiny_config, checkpoint, '--out', tmp_path / 'o', *options)
    code, _, errors = tool(*arguments)
    assert code == 1
    (message,) = [line for line in errors.splitlines() if line]

    assert re.search(words, message), message
    assert not (tmp_path / 'o').exists()


def test_a_video_that_is_not_there_is_told_in_one_sentence(
    tool: Tool, tiny_config: Path, checkpoint: Path, tmp_path: Path
) -> None:
    code, _, errors = tool('nowhere.mp4', tiny_config, checkpoint, '--out', tmp_path / 'o')
    assert code == 1 and 'video nowhere.mp4 does not exist' in errors
    code, _, errors = tool(tmp_path, tiny_config, checkpoint, '--out', tmp_path / 'o')
    assert code == 1 and 'is a folder; give one video' in errors
