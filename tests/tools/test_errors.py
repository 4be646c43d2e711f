"""A mistake ends in a one-line message with the value and the key to change, and an exit code."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

Tool = Callable[..., tuple[int, str]]


@pytest.fixture
def tool(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Iterator[Tool]:
    """Run a tool in this process; return its exit code and what it wrote to stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    scopes = dict(DefaultScope._instance_dict)

    def run(name: str, *words: object) -> tuple[int, str]:
        spec = importlib.util.spec_from_file_location(f'tool_{name}', tools / f'{name}.py')
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        code = module.main([str(word) for word in words])
        output = capfd.readouterr()
        assert 'Traceback' not in output.err + output.out
        errors = [line for line in output.err.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1, output.err
        return code, errors[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('warnings.filterwarnings', lambda *args, **kwargs: None)
        yield run
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()


def change(config: Path, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def annotations(config: Path, folder: Path, text: str) -> Path:
    """Let the training list of a config be another."""
    path = folder / 'list.txt'
    path.write_text(text)
    lines = config.read_text().splitlines(keepends=True)
    config.write_text(
        ''.join(
            line.split("ann_file='")[0] + f"ann_file='{path}',\n" if 'train.txt' in line else line
            for line in lines
        )
    )
    return path


def test_an_unknown_config_is_refused_with_similar_names(tool: Tool) -> None:
    code, message = tool('train', 'timesformer_divST_8xb8-8x32x1_kinetics400')
    assert code == 1
    assert 'config timesformer_divST_8xb8-8x32x1_kinetics400 is neither a file' in message
    assert 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb' in message


def test_a_config_that_is_not_python_is_refused(tool: Tool, tiny_config: Path) -> None:
    tiny_config.write_text('model = dict(\n')
    code, message = tool('train', tiny_config)
    assert code == 1
    assert 'tiny.py cannot be read' in message


def test_an_option_for_no_section_is_refused(tool: Tool, tiny_config: Path) -> None:
    code, message = tool('train', tiny_config, '--cfg-options', 'trian_cfg.max_epochs=3')
    assert code == 1
    assert "the config has no section 'trian_cfg'; did you mean 'train_cfg'?" in message


def test_an_unknown_argument_is_refused(tool: Tool, tiny_config: Path) -> None:
    code, message = tool('train', tiny_config, '--cfg-options', 'model.backbone.num_framez=3')
    assert code == 1
    assert 'model.backbone.num_framez: TimeSformer has no such argument' in message
    assert "did you mean 'num_frames'?" in message


def test_an_unknown_attention_type_is_refused(tool: Tool, tiny_config: Path) -> None:
    option = 'model.backbone.attention_type=sideways'
    code, message = tool('train', tiny_config, '--cfg-options', option)
    assert code == 1
    assert 'sideways' in message and 'divided_space_time' in message


def test_an_unknown_type_is_refused(tool: Tool, tiny_config: Path) -> None:
    code, message = tool('train', tiny_config, '--cfg-options', 'model.backbone.type=TimesFormer')
    assert code == 1
    assert "there is no model named 'TimesFormer' in mmaction; check the spelling of " in message
    assert "model.backbone.type, and its prefix; did you mean 'TimeSformer'?" in message


def test_a_missing_annotation_file_is_refused(tool: Tool, tiny_config: Path) -> None:
    change(tiny_config, 'train.txt', 'nowhere.txt')
    code, message = tool('train', tiny_config)
    assert code == 1
    assert 'nowhere.txt does not exist' in message
    assert 'set train_dataloader.dataset.ann_file' in message


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('', 'is empty; write one "video label" a line'),
        ('0.mp4 0\n\n1.mp4 1\n', 'list.txt, line 2 is blank'),
        ('0.mp4 0\n1.mp4 7\n', 'line 2: label 7 is not in 0..1; correct it, or set model.cls_head'),
        ('0.mp4 -1\n', 'line 1: label -1 is not in 0..1'),
        ('0.mp4 left\n', "line 1: label 'left' is not a whole number"),
        ('0.mp4\n', 'line 1 has no label'),
        ('my video.mp4 0\n', "line 1 has 3 parts, 'my video.mp4 0'"),
        ('0.mp4 0\nnowhere.mp4 1\n', 'nowhere.mp4 does not exist'),
    ],
)
def test_a_wrong_annotation_is_refused_with_file_and_line(
    tool: Tool, tiny_config: Path, tmp_path: Path, text: str, expected: str
) -> None:
    path = annotations(tiny_config, tmp_path, text)
    code, message = tool('train', tiny_config)
    assert code == 1
    assert expected in message
    assert str(path) in message


def test_a_missing_video_folder_is_refused(tool: Tool, tiny_config: Path) -> None:
    code, message = tool(
        'train', tiny_config, '--cfg-options', 'train_dataloader.dataset.data_prefix.video=nowhere'
    )
    assert code == 1
    assert 'video folder nowhere does not exist' in message
    assert 'set train_dataloader.dataset.data_prefix.video' in message


def test_a_broken_video_in_training_is_named(tool: Tool, tiny_config: Path, tmp_path: Path) -> None:
    """Across the border of a data-loading process, whose exception is a printed stack trace."""
    broken = tmp_path / 'broken.mp4'
    broken.write_bytes(b'no video at all')
    annotations(tiny_config, tmp_path, f'{broken} 0\n{broken} 1\n')
    code, message = tool('train', tiny_config, '--cfg-options', 'train_dataloader.num_workers=1')
    assert code == 1
    assert message.startswith('error: a DataLoader worker failed: ')
    assert (tmp_path / 'work_dirs/tiny/failure.txt').read_text().startswith('Traceback')


@pytest.mark.parametrize('frames', [0, -1, 2.5])
def test_a_clip_without_frames_is_refused(tool: Tool, tiny_config: Path, frames: float) -> None:
    code, message = tool(
        'train',
        tiny_config,
        '--cfg-options',
        f'train_dataloader.dataset.pipeline.1.clip_len={frames}',
    )
    assert code == 1
    assert f'clip_len={frames} is not a positive whole number' in message
    assert 'set train_dataloader.dataset.pipeline.1.clip_len' in message


def test_a_video_of_wrong_shape_is_refused(tool: Tool, tiny_config: Path) -> None:
    change(tiny_config, "format_shape='NCTHW'", "format_shape='NCHW'")
    change(tiny_config, "input_format='NCTHW'", "input_format='NCHW'")
    code, message = tool('train', tiny_config)
    assert code == 1
    assert 'b c t H W' in message or 'shape' in message


def test_fp16_on_a_cpu_is_refused(
    tool: Tool, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('mmtimesformer.engine.optim.amp.get_device', lambda: 'cpu')
    code, message = tool('train', tiny_config, '--amp')
    assert code == 1
    assert 'float16 training needs a GPU' in message and 'use --amp bf16' in message


def test_a_foreign_optimiser_wrapper_is_not_changed_in_silence(
    tool: Tool, tiny_config: Path
) -> None:
    code, message = tool(
        'train',
        tiny_config,
        '--amp',
        'bf16',
        '--cfg-options',
        'optim_wrapper.type=ApexOptimWrapper',
    )
    assert code == 1
    assert "optim_wrapper.type='ApexOptimWrapper'" in message


@pytest.mark.parametrize('option', ['--auto-scale-lr', '--accumulate'])
def test_a_missing_base_batch_is_refused(tool: Tool, tiny_config: Path, option: str) -> None:
    change(tiny_config, 'auto_scale_lr = dict(enable=False, base_batch_size=8)', '')
    code, message = tool('train', tiny_config, option)
    assert code == 1
    assert f'{option} needs the number of videos' in message
    assert 'add auto_scale_lr = dict(base_batch_size=64) to the config' in message


def test_the_pytorch_launcher_without_torchrun_is_refused(
    tool: Tool, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('RANK', raising=False)
    code, message = tool('train', tiny_config, '--launcher', 'pytorch')
    assert code == 1
    assert 'tools/dist_train.sh' in message


def test_a_lost_last_checkpoint_is_refused(tool: Tool, tiny_config: Path, tmp_path: Path) -> None:
    (tmp_path / 'last_checkpoint').write_text('/gone/epoch_3.pth')
    code, message = tool('train', tiny_config, '--work-dir', tmp_path, '--resume')
    assert code == 1
    assert '/gone/epoch_3.pth' in message and '--resume PATH' in message


@pytest.mark.parametrize('words', [['test'], ['train', '--resume']], ids=['test', 'resume'])
def test_a_missing_checkpoint_is_refused(tool: Tool, tiny_config: Path, words: list[str]) -> None:
    code, message = tool(words[0], tiny_config, *words[1:], 'nowhere.pth')
    assert code == 1
    assert 'checkpoint nowhere.pth does not exist' in message


def test_a_file_that_is_no_checkpoint_is_refused(
    tool: Tool, tiny_config: Path, tmp_path: Path
) -> None:
    other = tmp_path / 'other.pth'
    other.write_text('some text')
    code, message = tool('test', tiny_config, other)
    assert code == 1
    assert 'other.pth is not a checkpoint' in message or 'other.pth is not a torch file' in message


def test_a_checkpoint_of_another_model_is_refused(
    tool: Tool, tiny_config: Path, tmp_path: Path
) -> None:
    """MMEngine would load nothing, log it, and test a model of random weights."""
    torch.save({'state_dict': {'conv.weight': torch.zeros(3)}}, tmp_path / 'other.pth')
    code, _ = tool('test', tiny_config, tmp_path / 'other.pth')
    assert code == 1


def test_a_dump_of_unknown_kind_is_refused(tool: Tool, tiny_config: Path, tmp_path: Path) -> None:
    torch.save({}, tmp_path / 'some.pth')
    code, message = tool('test', tiny_config, tmp_path / 'some.pth', '--dump', 'result.json')
    assert code == 1
    assert '--dump result.json must end in .pkl' in message


def test_windows_without_a_screen_are_refused(
    tool: Tool, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, 'platform', 'linux')
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    code, message = tool('test', tiny_config, 'some.pth', '--show')
    assert code == 1
    assert 'use --show-dir' in message


@pytest.mark.parametrize('package', ['mmcv', 'mmaction'])
def test_a_missing_mmaction2_is_reported_with_the_command(
    tool: Tool, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, message = tool('train', tiny_config)
    assert code == 1
    assert message.endswith('run: pip install "mmtimesformer[mmaction]"')
