"""Options may stand anywhere among the arguments, and take no argument for their value."""

import argparse
import itertools
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from mmtimesformer.config.command_line import ToolParser, parse, program_name
from mmtimesformer.console.tools import TOOLS, file_of

TINY = 'timesformer_divST-tiny_moving-shapes'
OPTIONS = {'model.backbone.num_frames': 4, 'a.b': [1, 2]}
CFG_OPTIONS = ('--cfg-options', 'model.backbone.num_frames=4', 'a.b=[1,2]')


def parsed(tool: str, *words: str) -> argparse.Namespace:
    """Parse a tool's command line."""
    (found,) = (one for one in TOOLS if one.name == tool)
    sys.path.insert(0, str(file_of(found).parent))
    try:
        return runpy.run_path(str(file_of(found)))['parse_args'](list(words))
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(
    ('tool', 'arguments', 'options', 'expected'),
    [
        ('train', ('c.py',), (CFG_OPTIONS,), dict(config='c.py', cfg_options=OPTIONS)),
        ('train', (TINY,), (('--resume',), CFG_OPTIONS), dict(config=TINY, resume='auto')),
        ('train', ('c.py',), (('--resume', 'a.pth'),), dict(config='c.py', resume='a.pth')),
        ('train', ('c.py',), (('--amp',), ('--resume',)), dict(config='c.py', amp='fp16')),
        ('train', ('c.py',), (('--amp', 'bf16'),), dict(config='c.py', amp='bf16')),
        (
            'test',
            ('c.py', 'runs/lr=0.1/a.pth'),
            (CFG_OPTIONS, ('--amp',)),
            dict(config='c.py', checkpoint='runs/lr=0.1/a.pth', cfg_options=OPTIONS),
        ),
        (
            'predict',
            ('v.mp4', 'c.py', 'a.pth'),
            (('--window', '2', '--timeline', 'x.png', 'y.csv'), ('--topk', '3')),
            dict(video='v.mp4', config='c.py', checkpoint='a.pth', topk=3),
        ),
        (
            'predict',
            ('v.mp4', 'a.pth'),
            (('--calibrated',),),
            dict(config=None, checkpoint='a.pth'),
        ),
        (
            'extract_features',
            ('a.pth', 'videos'),
            (('--layers', '1', '-1'), ('--out', 'f')),
            dict(config=None, checkpoint='a.pth', source=Path('videos'), layers=[1, -1]),
        ),
        (
            'visualize_attention',
            ('v.mp4', 'a.pth'),
            (('--layers', '0', '2'),),
            dict(video='v.mp4', checkpoint='a.pth', layers=[0, 2]),
        ),
        ('get_flops', ('c.py',), (('--shape', '448'), CFG_OPTIONS), dict(config=['c.py'])),
        (
            'compare_precision',
            ('v.mp4', 'a.pth'),
            (('--speeds', 'bf16', 'int8+compiled'),),
            dict(video='v.mp4', checkpoint='a.pth', speeds=['bf16', 'compiled+int8']),
        ),
        (
            'convert_checkpoint',
            ('a.pth', 'b.pth'),
            (('--img-size', '224', '280'), ('--source-size', '224')),
            dict(src='a.pth', dst='b.pth', img_size=(224, 280)),
        ),
        (
            'transcode',
            ('src', 'dst'),
            (('--annotations', 'a.txt', 'b.txt'),),
            dict(src=Path('src'), annotations=[Path('a.txt'), Path('b.txt')]),
        ),
        (
            'submit',
            ('c.py',),
            (('--slurm', 'account=a', 'qos=b'), ('--nodes', '2')),
            dict(config='c.py', slurm=['account=a', 'qos=b']),
        ),
    ],
)
def test_options_stand_anywhere(
    tool: str,
    arguments: tuple[str, ...],
    options: tuple[tuple[str, ...], ...],
    expected: dict[str, Any],
) -> None:
    """In every order of options and arguments the result is the same."""
    in_order = [(one,) for one in arguments]
    rows = list(itertools.permutations([*in_order, *options]))
    rows = [row for row in rows if [one for one in row if one[0] in arguments] == in_order]
    assert len(rows) > 1
    first = parsed(tool, *itertools.chain(*rows[0]))
    for row in rows:
        assert vars(parsed(tool, *itertools.chain(*row))) == vars(first)
    assert {key: getattr(first, key) for key in expected} == expected


@pytest.mark.parametrize('words', ['--csv x.csv folder videos --out o', 'folder --out o videos'])
def test_options_of_prepare_stand_before_the_data_set_too(words: str) -> None:
    args = parsed('prepare', *words.split())
    assert (args.videos, args.root) == (Path('videos'), Path('o'))


@pytest.mark.parametrize(
    ('tool', 'words', 'message'),
    [
        ('train', 'c.py --cfg-options lr 3', '--cfg-options lr: write KEY=VALUE'),
        ('train', '--cfg-options c.py', '--cfg-options c.py: write KEY=VALUE'),
        ('train', 'c.py --cfg-options a=1 3', 'unrecognized arguments: 3'),
        ('train', 'c.py --amp fp17', "invalid choice: 'fp17'"),
        ('train', '--resume=c.py d.py', 'c.py is a config, where a checkpoint is expected'),
        ('train', '--resume', 'required: CONFIG'),
        ('get_flops', '--shape c.py', "'c.py' is not a whole number"),
        (
            'compare_precision',
            'v a --speeds int9',
            "speed='int9': 'int9' is not known; give 'exact'",
        ),
        ('predict', 'v a --speed bf16+int8', 'bf16 and int8 exclude each other'),
        ('predict', 'v a --speed-cost', 'goes with a --speed other than exact'),
        ('test', 'c a --speed int8 --amp bf16', '--amp bf16 and --speed int8 exclude each other'),
        ('predict', 'v a --window 1 --timeline t.pdf', 'must end in .png or .csv'),
        ('predict', 'v', 'required: CHECKPOINT'),
    ],
)
def test_a_wrong_value_is_refused(
    tool: str, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match='2'):
        parsed(tool, *words.split())
    assert message in capsys.readouterr().err


def test_an_existing_path_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path('lr=1.pth').touch()
    args = parsed('test', '--cfg-options', 'a=1', 'lr=1.py', 'lr=1.pth', 'c.py')
    assert args.cfg_options == {'a': 1, 'lr': '1.py'}
    assert (args.config, args.checkpoint) == ('lr=1.pth', 'c.py')


def test_words_after_two_dashes_are_arguments() -> None:
    parser = ToolParser()
    parser.add_argument('names', nargs='*')
    parser.add_argument('--layers', type=int, nargs='+')
    args = parse(parser, ['--lay', '1', '2', 'a', '--', '3', '--layers'])
    assert args.names == ['a', '3', '--layers'] and args.layers == [1, 2]


def test_the_program_is_named_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules['__main__']
    for started, shown in (
        ('/x/tools/old/tools/data/prepare.py', 'tools/data/prepare.py'),
        ('predict.py', 'predict.py'),
    ):
        monkeypatch.setattr(sys, 'argv', [started])
        assert program_name() == shown
    monkeypatch.setattr(main, 'COMMAND', 'mmtimesformer predict', raising=False)
    assert program_name() == 'mmtimesformer predict'


def test_examples_of_a_file_name_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    doc = 'Do it.\n\nMore.\n\nExamples:\n    mmtimesformer it a b\n'
    ToolParser(doc, {3: 'done in part'}, prog='tools/it.py').print_help()
    shown = capsys.readouterr().out
    assert 'examples:\n  python tools/it.py a b\n\nexit codes:\n  0   done\n' in shown
    assert shown.endswith('  3   done in part\n')
