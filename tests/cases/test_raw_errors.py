"""Mistakes on a command line end in one sentence with the key or option to change."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmtimesformer.checkpoints import save_checkpoint
from mmtimesformer.cli import error_message
from mmtimesformer.config.command_line import ToolParser, check_output, parse
from mmtimesformer.engine.optim import amp as precision
from tests.checkpoints.conftest import Recognizer
from tests.tools.conftest import tiny_config, tools  # noqa: F401
from tests.tools.test_errors import Tool, tool  # noqa: F401

ROOT = Path(__file__).parents[2]
TOOLS = [path for path in (ROOT / 'tools').rglob('*.py') if path.name != 'doctor.py']
INTERMIXED = {
    'predict': ['a.mp4', '--topk', '3', 'c.py', 'b.pth'],
    'export': ['c.py', '--format', 'torch-export', 'b.pth'],
    'visualize_attention': ['a.mp4', '--method', 'last', 'c.py', 'b.pth'],
    'test': ['c.py', '--interval', '2', 'b.pth'],
    'extract_features': ['c.py', '--out', 'x', 'b.pth', '--half', 'videos'],
    'convert_checkpoint': ['a.pth', '--to', 'official', 'b.pth'],
    'analysis_tools/compare_precision': ['a.mp4', '--device', 'cpu', 'c.py', 'b.pth'],
    'data/resize_videos': ['videos', '--short-side', '32', 'out'],
    'data/transcode': ['videos', '--crf', '20', 'out'],
}


def load(name: str) -> Any:
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def refused(capfd: pytest.CaptureFixture) -> Callable[..., str]:
    """Parse a command line that is wrong; return argparse's message."""

    def run(name: str, *words: str) -> str:
        with pytest.raises(SystemExit, match='2'):
            load(name).parse_args(list(words))
        return capfd.readouterr().err.splitlines()[-1]

    return run


@pytest.mark.parametrize('name', INTERMIXED)
def test_options_may_stand_between_positional_arguments(name: str) -> None:
    parse_args = load(name).parse_args
    words = INTERMIXED[name]
    options = {word for word in words if word.startswith('--')}
    ends = {i for i, word in enumerate(words) if word in options}
    ends |= {i + 1 for i in ends if words[i] != '--half'}
    first = [word for i, word in enumerate(words) if i in ends]
    last = [word for i, word in enumerate(words) if i not in ends]
    assert vars(parse_args(words)) == vars(parse_args([*first, *last]))


def test_a_config_that_is_left_out_stays_left_out_wherever_options_stand() -> None:
    for words in (['a.mp4', '--topk', '3', 'b.pth'], ['--topk', '3', 'a.mp4', 'b.pth']):
        args = load('predict').parse_args(words)
        assert (args.video, args.config, args.checkpoint, args.topk) == ('a.mp4', None, 'b.pth', 3)


def test_every_tool_parses_options_between_positional_arguments() -> None:
    for path in TOOLS:
        if path.name == 'submit.py':  # which parts its own options from those of the training
            continue
        assert '.parse_args(argv)' not in path.read_text().replace('parse(parser, argv)', ''), path


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['a='], '--cfg-options a=: a has no value; write None or'),
        (['=3'], '--cfg-options =3: write KEY=VALUE'),
        (['a'], '--cfg-options a: write KEY=VALUE'),
        (['model..x=3'], '--cfg-options model..x=3: write KEY=VALUE'),
        (["a=[dict(type='A'),dict(type='B',n=8)]"], 'a dict cannot be given here; write its keys'),
        (["a={'type':'A'}"], 'such as a.type=X or a.0.type=X'),
        (['a=(1,2),(3,4)'], 'a=(1,2),(3,4): the brackets do not make a list or a tuple; write'),
        (['a=[1,'], 'a=[1,: a [ or ] is missing'),
        (['a=(1,2'], 'a=(1,2: a ( or ) is missing'),
        (['a="[(1,2]"'], 'a ( or ) is missing'),
    ],
)
@pytest.mark.parametrize('name', ['train', 'test', 'analysis_tools/get_flops'])
def test_malformed_config_options_are_named(refused, name: str, words, expected: str) -> None:
    positional = {'train': ['c.py'], 'test': ['c.py', 'b.pth']}.get(name, [])
    assert expected in refused(name, *positional, '--cfg-options', *words)


def test_config_options_are_read_as_before() -> None:
    args = load('train').parse_args(
        ['c.py', '--cfg-options', 'a=3', 'b=[1,2]', 'c="[(1,x),(2,y)]"', 'd=None', 'e=a=b']
    )
    expected = {'a': 3, 'b': [1, 2], 'c': [(1, 'x'), (2, 'y')], 'd': None, 'e': 'a=b'}
    assert args.cfg_options == expected


@pytest.mark.parametrize(
    ('command', 'expected'),
    [
        ('test c.py b.pth --interval 0', "--interval: '0' is not a whole number from 1 on"),
        ('train c.py --seed -1', "--seed: '-1' is not a whole number from 0 to 4294967295"),
        ('convert_checkpoint a b.pth --num-frames 0', "--num-frames: '0' is not a whole"),
        ('convert_checkpoint a b.pth --img-size -16', "--img-size: '-16' is not a whole"),
        ('convert_checkpoint a b.pth --num-heads x', "--num-heads: 'x' is not a whole number"),
        ('extract_features a b c --out d --batch-size 0', "--batch-size: '0' is not a whole"),
        ('visualize_attention a b --page-megabytes nan', "'nan' is not a number above 0"),
        ('analysis_tools/get_flops --shape -16', "--shape: '-16' is not a whole number from 1"),
        ('analysis_tools/report a --mistakes -1', "--mistakes: '-1' is not a whole number from 0"),
        ('analysis_tools/compare_precision a b --speeds int9', "'int9' is not known; give 'exact'"),
        ('data/check_videos a --timeout nan', "--timeout: 'nan' is not a number above 0"),
        ('data/resize_videos a b --num-workers 0', "--num-workers: '0' is not a whole number"),
        ('data/resize_videos a b --crf 99', "--crf: '99' is not a whole number from 0 to 51"),
        ('data/transcode a b --gop 0', "--gop: '0' is not a whole number from 1 on"),
        ('data/write_shards a b c --shard-size inf', "--shard-size: 'inf' is not a number above"),
        ('data/moving_shapes --num-train 0', "--num-train: '0' is not a whole number from 1 on"),
        ('demo --epochs -1', "--epochs: '-1' is not a whole number from 1 on"),
        ('demo_app --port 99999', "--port: '99999' is not a whole number from 0 to 65535"),
    ],
)
def test_a_number_out_of_range_is_refused_with_its_range(
    refused, command: str, expected: str
) -> None:
    assert re.search(expected, refused(*command.split()))


@pytest.mark.parametrize(
    ('option', 'expected'),
    [
        ('test_pipeline.99.type=A', '--cfg-options test_pipeline.99.type=A: Index 99 exceeds'),
        ('test_pipeline.a.type=A', 'an item of a list is named by its index, from 0'),
        ('model.backbone.num_frames.x=3', 'num_frames.x=3: num_frames='),
        ('model.backbone.num_frames=abc', "model.backbone.num_frames='abc' is text"),
        ('train_dataloader.batch_size=True', 'batch_size=True is not a whole number from 1 on'),
        ('train_dataloader.num_workers=-1', 'num_workers=-1 is not a whole number from 0 on'),
        ('train_dataloader.num_workers=1.5', 'num_workers=1.5 is not a whole number from 0 on'),
        (
            'train_dataloader.persistent_workers=True',
            'train_dataloader.persistent_workers=True: persistent_workers option needs num_workers',
        ),
        (
            'train_dataloader.prefetch_factor=2',
            'train_dataloader.prefetch_factor=2: prefetch_factor',
        ),
        (
            'train_dataloader.timeout=-1',
            'train_dataloader.timeout=-1: timeout option should be non',
        ),
        ('train_dataloader.timeout=5', 'train_dataloader.timeout=5 needs worker processes; set'),
        ('train_cfg.max_epochs=0', 'train_cfg.max_epochs=0 is not a whole number from 1 on'),
        ('train_cfg.max_epochs=-1', 'train_cfg.max_epochs=-1 is not a whole number from 1 on'),
        ('train_cfg.val_interval=0', 'train_cfg.val_interval=0 is not a whole number from 1 on'),
        ('optim_wrapper.accumulative_counts=0', 'accumulative_counts=0 is not a whole number'),
        ('auto_scale_lr.base_batch_size=0', 'base_batch_size=0 is not a whole number from 1 on'),
        ('default_hooks.logger.interval=0', 'default_hooks.logger.interval=0 is not a whole'),
        ('optim_wrapper.optimizer.lr=-1', 'optimizer.lr=-1: Invalid learning rate: -1'),
        ('val_evaluator.metric_options.top_k_accuracy.topk=[1,2]', 'topk=[1, 2] is no positive'),
        ('val_evaluator.metric_options.top_k_accuracy.topk=0', 'topk=0 is no positive'),
        ('val_evaluator.metric_options.top_k_acuracy.topk=1', 'top_k_acuracy would be ignored'),
        ('val_evaluator.metric_options.top_k_accuracy.tpk=1', 'accuracy.tpk would be ignored'),
        ('default_scope=nonsense', "default_scope='nonsense' is no package"),
        (
            'optim_wrapper.type=AmpOptimWrapper optim_wrapper.dtype=bfloat16',
            "optim_wrapper.type='AmpOptimWrapper' (bfloat16) needs a GPU",
        ),
        (
            'optim_wrapper.type=AmpOptimWrapper optim_wrapper.dtype=abc',
            "optim_wrapper.dtype='abc' is not known; set it to one of float16, bfloat16",
        ),
        (
            'train_dataloader.drop_last=True train_dataloader.batch_size=5',
            'the 4 videos of a process are fewer than batch_size=5',
        ),
    ],
)
def test_a_wrong_setting_of_a_training_is_named(
    tool: Tool,  # noqa: F811
    tiny_config: Path,  # noqa: F811
    option: str,
    expected: str,
) -> None:
    code, message = tool('train', tiny_config, '--work-dir', 'w', '--cfg-options', *option.split())
    assert code == 1
    assert expected in message


def test_a_validation_without_a_batch_is_named(tool: Tool, tiny_config: Path) -> None:  # noqa: F811
    options = 'val_dataloader.drop_last=True', 'val_dataloader.batch_size=9'
    code, message = tool('train', tiny_config, '--work-dir', 'w', '--cfg-options', *options)
    assert code == 1
    assert 'the 3 videos of a process are fewer than batch_size=9' in message
    assert 'in val_dataloader or test_dataloader set batch_size to 3 or less' in message


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_checkpoint(Recognizer(), tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


@pytest.mark.parametrize(
    'command',
    [
        'predict v.mp4 {config} a.pth',
        'visualize_attention v.mp4 {config} a.pth',
        'extract_features {config} a.pth . --out out',
        'analysis_tools/compare_precision v.mp4 {config} a.pth',
    ],
)
@pytest.mark.parametrize('device', ['cuda:9', 'mps', 'meta', 'xpu', 'nonsense'])
def test_a_device_that_is_not_there_is_named(
    tool: Tool,  # noqa: F811
    tiny_config: Path,  # noqa: F811
    tiny_videos: Path,
    checkpoint: Path,
    command: str,
    device: str,
) -> None:
    (checkpoint.parent / 'v.mp4').symlink_to(tiny_videos / '0.mp4')
    words = command.format(config=tiny_config).split()
    code, message = tool(*words, '--device', device)
    assert code == 1
    assert device in message and 'give cpu' in message


@pytest.mark.parametrize(
    ('command', 'expected'),
    [
        ('predict v.mp4 {config}', 'is a config, and a model needs weights; add a checkpoint'),
        ('predict v.mp4 {config} {config}', 'are both configs; give CONFIG and CHECKPOINT'),
        ('export a.pth a.pth', 'a.pth and a.pth are both checkpoints; give CONFIG and CHECKPOINT'),
        ('visualize_attention v.mp4 {config}', 'is a config, and a model needs weights'),
        ('extract_features {config} . --out out', 'is a config, and a model needs weights'),
        ('test a.pth {config}', 'a.pth is a checkpoint, where a config is expected'),
        ('test {config} {config}', 'is a config, where a checkpoint is expected'),
        ('train a.pth', 'a.pth is no config; name a file that ends in .py'),
        ('analysis_tools/get_flops a.pth', 'a.pth is no config; name a file that ends in .py'),
    ],
)
def test_a_config_and_a_checkpoint_in_the_wrong_order_are_told_apart(
    tool: Tool,  # noqa: F811
    tiny_config: Path,  # noqa: F811
    tiny_videos: Path,
    checkpoint: Path,
    command: str,
    expected: str,
) -> None:
    (checkpoint.parent / 'v.mp4').symlink_to(tiny_videos / '0.mp4')
    code, message = tool(*command.format(config=tiny_config).split())
    assert code == 1
    assert expected in message


@pytest.mark.parametrize(
    ('command', 'expected'),
    [
        ('predict v.mp4 {config} a.pth --out folder.json', '--out folder.json is a folder'),
        ('predict v.mp4 {config} a.pth --out file/x.json', '--out file/x.json cannot be written'),
        ('predict v.mp4 {config} a.pth --out /proc/x.json', '--out /proc/x.json cannot be written'),
        ('predict v.mp4 {config} a.pth --save-video file/x.mp4', '--save-video file/x.mp4 cannot'),
        ('predict v.mp4 {config} a.pth --save-video file', '--save-video file cannot be written'),
        ('visualize_attention v.mp4 {config} a.pth --out file', '--out file cannot be written'),
        ('extract_features {config} a.pth . --out file/x', '--out file/x cannot be written'),
        ('export {config} a.pth --format torchscript --out file/x.torchscript', '--out file/x.tor'),
        ('convert_checkpoint a.pth file/x.pth', 'DST file/x.pth cannot be written'),
        ('convert_checkpoint a.pth file --to huggingface', 'DST file cannot be written'),
        ('test {config} a.pth --dump file/x.pkl', '--dump file/x.pkl cannot be written'),
        ('test {config} a.pth --dump folder.pkl', '--dump folder.pkl is a folder'),
        ('test {config} a.pth --show-dir file', '--show-dir file cannot be written'),
        ('test {config} a.pth --work-dir file', 'work_dir file cannot be written'),
        ('data/resize_videos videos file', 'DST file cannot be written'),
        ('data/transcode videos file', 'DST file cannot be written'),
        ('data/moving_shapes --out file', '--out file cannot be written'),
    ],
)
def test_an_output_that_cannot_be_written_is_named_before_the_work(
    tool: Tool,  # noqa: F811
    tiny_config: Path,  # noqa: F811
    tiny_videos: Path,
    checkpoint: Path,
    command: str,
    expected: str,
) -> None:
    folder = checkpoint.parent
    (folder / 'file').touch()
    for name in ('folder.json', 'folder.pkl', 'videos'):
        (folder / name).mkdir()
    (folder / 'v.mp4').symlink_to(tiny_videos / '0.mp4')
    (folder / 'videos' / 'v.mp4').symlink_to(tiny_videos / '0.mp4')
    code, message = tool(*command.format(config=tiny_config).split())
    assert code == 1
    assert expected in message


def test_an_output_in_a_missing_folder_is_right_and_the_check_leaves_nothing(tmp_path) -> None:
    check_output(tmp_path / 'a' / 'b' / 'c.json', '--out')
    check_output(tmp_path / 'a' / 'b', '--out', folder=True)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_named(
    tool: Tool,  # noqa: F811
    tiny_config: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules
    from mmengine.registry import DefaultScope

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(Config.fromfile(tiny_config).model)
    torch.save(model.state_dict(), tmp_path / 'b.pth')
    (tmp_path / 'empty').mkdir()
    code, message = tool('predict', 'empty', tiny_config, 'b.pth')
    assert code == 1
    assert 'the folder empty holds no video' in message


@pytest.mark.parametrize(
    ('heads', 'expected'), [(7, 'does not divide the width 20'), (5, 'differs')]
)
def test_a_number_of_heads_that_cannot_be_is_refused(
    tool: Tool,  # noqa: F811
    checkpoint: Path,
    heads: int,
    expected: str,
) -> None:
    code, message = tool('convert_checkpoint', checkpoint, 'b.pth', '--num-heads', heads)
    assert code == 1
    assert f'num_heads={heads} {expected}' in message


def test_an_error_of_the_system_names_its_file_without_a_number() -> None:
    error = OSError(21, 'Is a directory', 'folder')
    assert error_message(error) == 'folder cannot be read or written (Is a directory)'


def test_amp_in_bfloat16_asks_whether_the_gpu_knows_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(precision, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(precision, 'check_device', asked.append)
    precision.check_wrapper({'type': 'AmpOptimWrapper', 'dtype': 'bfloat16'})
    precision.check_wrapper({'type': 'AmpOptimWrapper', 'dtype': torch.bfloat16})
    precision.check_wrapper({'type': 'AmpOptimWrapper', 'dtype': 'float16'})
    precision.check_wrapper({'type': 'OptimWrapper'})
    assert asked == ['bf16', 'bf16']


def test_parse_keeps_the_errors_of_argparse(capfd: pytest.CaptureFixture) -> None:
    parser = ToolParser(prog='x')
    parser.add_argument('a')
    with pytest.raises(SystemExit, match='2'):
        parse(parser, ['1', '--nonsense'])
    assert 'unrecognized arguments: --nonsense' in capfd.readouterr().err
