"""Prepare HowTo100M, long-term tasks: python tools/data/howto100m.py [ROOT] [options].

With --train and --test, the lists of the TimeSformer paper's authors, the task is the paper's. With
--videos-csv, HowTo100M_v1.csv, a split of the same kind is made. ROOT/videos holds <id>.mp4.
Exit code: 0 all is there, 3 something is missing (data/howto100m/missing.txt), 1 an error.
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import parse, whole_number
from mmtimesformer.datasets.preparation.annotations import prepare
from mmtimesformer.datasets.preparation.howto100m import make_split, read_split_lists
from mmtimesformer.terminal import ArgumentParser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'root', type=Path, nargs='?', default=Path('data/howto100m'), help='folder of the data set'
    )
    parser.add_argument('--train', type=Path, help='training list: a video and its label a line')
    parser.add_argument('--test', type=Path, help='test list')
    parser.add_argument('--videos-csv', type=Path, help='HowTo100M_v1.csv, to make a split from')
    parser.add_argument('--task-names', type=Path, help='task_ids.csv, to name the classes')
    parser.add_argument(
        '--min-videos',
        type=whole_number(0),
        default=100,
        help='leave out tasks with fewer (with --videos-csv)',
    )
    parser.add_argument(
        '--seed', type=whole_number(0), default=0, help='of the split (with --videos-csv)'
    )
    parser.add_argument('--videos', type=Path, help='folder of the videos (ROOT/videos)')
    parser.add_argument(
        '--allow-missing', action='store_true', help='exit with 0 although something is missing'
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    if (args.train is None) != (args.test is None) or (args.train is None) == (
        args.videos_csv is None
    ):
        parser.error('give --train and --test, or --videos-csv')
    return args


def list_and_look(args: argparse.Namespace) -> int:
    """Read the lists, look for the videos, and write what the configs name."""
    videos = args.videos or args.root / 'videos'
    if args.videos_csv:
        data = make_split(args.videos_csv, videos, args.task_names, args.min_videos, args.seed)
    else:
        data = read_split_lists(args.train, args.test, videos, args.task_names)
    return prepare(data, args.root, args.allow_missing)


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(list_and_look(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
