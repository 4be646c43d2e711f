"""Train a classifier on frozen features.

In minutes, without training the backbone. The lists are annotation files: a video and its class in
each line. --out gets probe.pth and probe.py, an ordinary checkpoint and its config, and the
features, so the same command resumes after an interruption.

Examples:
    mmtimesformer probe base.pth train.txt val.txt --out work_dirs/probe
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import (
    ToolParser,
    check_output,
    parse,
    whole_number,
)
from mmtimesformer.terminal import echo

SHOWN = 10  # unreadable videos on the terminal; probe.json has all


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument('checkpoint', help='the model, as for `mmtimesformer predict`')
    parser.add_argument('train_list', help='annotation file of the training videos')
    parser.add_argument('test_list', nargs='?', help='annotation file of the test videos')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the results')
    parser.add_argument('--kind', choices=('linear', 'knn', 'attentive'), default='linear')
    parser.add_argument('--config', help='of the checkpoint, if it holds none')
    parser.add_argument('--root', default='', help='what the names are relative to (their list)')
    parser.add_argument('--test-root', help='the same for the test list, where it differs')
    parser.add_argument('--classes', metavar='NAMES.txt', help='names of the classes, one a line')
    parser.add_argument(
        '--multi-label', action='store_true', help='several classes in a line, or none'
    )
    parser.add_argument(
        '--class-weights', choices=('balanced',), help='rare classes weigh as much as frequent ones'
    )
    parser.add_argument(
        '--groups', metavar='GROUPS.txt', help='a group a line: its videos stay in one fold'
    )
    parser.add_argument(
        '--folds', type=whole_number(0), default=5, help='of the cross-validation; 0 for none'
    )
    parser.add_argument(
        '--draws', type=whole_number(0), default=5,
        help='of each number of clips per class, for the picture; 0 for no picture',
    )  # fmt: skip
    parser.add_argument('--features', metavar='DIR', help='folder of the features (in --out)')
    parser.add_argument('--seed', type=whole_number(0), default=0)
    parser.add_argument('--device', default='auto', help='cpu, cuda, cuda:1')
    parser.add_argument('--batch-size', type=whole_number(1), default=8, help='videos at a time')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def probe(args: argparse.Namespace) -> None:
    """Train, test and save a probe."""
    require_mmaction()
    from mmtimesformer.datasets.preparation.reading import read_lines
    from mmtimesformer.inference.model_source import model_source
    from mmtimesformer.probing import run_probe

    source = model_source(args.config, args.checkpoint)
    check_output(args.out, '--out', folder=True)

    def lines(path: str | None, option: str) -> list[str] | None:
        return None if path is None else read_lines(Path(path), f'correct {option}')

    result = run_probe(
        source.checkpoint,
        args.train_list,
        args.test_list,
        out_dir=args.out,
        kind=args.kind,
        multi_label=args.multi_label,
        class_weights=args.class_weights,
        class_names=lines(args.classes, '--classes'),
        groups=lines(args.groups, '--groups'),
        folds=args.folds,
        seed=args.seed,
        batch_size=args.batch_size,
        data_root=args.root,
        test_root=args.test_root,
        device=args.device,
        config=source.config,
        cache_dir=args.features,
        draws=args.draws,
    )
    for video, reason in list(result.skipped.items())[:SHOWN]:
        echo(f'{video}: {reason}')
    for line in result.summary():
        echo(line)
    if result.curve.points:
        from mmtimesformer.visualization.probe import draw_clips_per_class

        path = Path(args.out) / 'clips_per_class.png'
        curve = result.curve
        ((name, value),) = result.setting.items()
        source = 'chosen on all training clips' if result.folds else 'the default'
        draw_clips_per_class(
            curve.points,
            path,
            metric=curve.metric,
            chance=curve.chance,
            skipped=curve.skipped,
            setting=f'{name} {value:g}, {source}',
        )
        echo(f'picture: {path} (scores of {curve.scored_on})')


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_args(argv)
    return run_tool(lambda: probe(args), args.debug, resume_hint='the same command resumes')


if __name__ == '__main__':
    sys.exit(main())
