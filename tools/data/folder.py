"""Prepare your own videos: python tools/data/folder.py VIDEOS --out OUT [options].

VIDEOS holds a folder per class; or folders train, val (and test) of class folders; or what a CSV
of path, label (and split) names. OUT gets train.txt, val.txt, test.txt, classes.txt, manifest.json.
Exit code: 0 all is there, 3 something is missing (OUT/missing.txt), 1 an error.
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import parse, whole_number
from mmtimesformer.datasets.preparation.annotations import prepare
from mmtimesformer.datasets.preparation.own_data import read_own_data
from mmtimesformer.terminal import ArgumentParser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('videos', type=Path, help='folder of the videos')
    parser.add_argument('--out', type=Path, required=True, help='folder of the annotation files')
    parser.add_argument('--csv', type=Path, help='path,label or path,label,split a line')
    parser.add_argument(
        '--val',
        type=float,
        help='part of each class to validate on (0.2, unless the split is given)',
    )
    parser.add_argument('--test', type=float, help='part of each class to test on (none)')
    parser.add_argument('--seed', type=whole_number(0), default=0, help='of the split')
    parser.add_argument(
        '--classes', type=Path, help='class names in the order of the labels (alphabetical)'
    )
    parser.add_argument(
        '--multi-label',
        action='store_true',
        help='videos in the CSV may have several labels: split by ";", or in several lines',
    )
    parser.add_argument(
        '--allow-missing', action='store_true', help='exit with 0 although something is missing'
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def list_and_look(args: argparse.Namespace) -> int:
    """List the videos, divide them, and write what a config names."""
    shares = {name: getattr(args, name) for name in ('val', 'test')}
    data = read_own_data(args.videos, args.csv, shares, args.seed, args.classes, args.multi_label)
    return prepare(data, args.out, args.allow_missing)


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(list_and_look(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
