"""Prepare Something-Something V2: python tools/data/ssv2.py [ROOT] [options].

ROOT/annotations holds labels.json, train.json, validation.json and test.json (also as
something-something-v2-labels.json and so on), ROOT/videos the files <id>.webm.
Exit code: 0 all is there, 3 something is missing (data/sthv2/missing.txt), 1 an error.
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import parse
from mmtimesformer.datasets.preparation.annotations import prepare
from mmtimesformer.datasets.preparation.publishers import read_ssv2
from mmtimesformer.datasets.preparation.reading import folder_of_lists
from mmtimesformer.terminal import ArgumentParser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'root', type=Path, nargs='?', default=Path('data/sthv2'), help='folder of the data set'
    )
    parser.add_argument(
        '--annotations', type=Path, help="folder of the publisher's lists (ROOT/annotations)"
    )
    parser.add_argument('--videos', type=Path, help='folder of the videos (ROOT/videos)')
    parser.add_argument(
        '--allow-missing', action='store_true', help='exit with 0 although something is missing'
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def list_and_look(args: argparse.Namespace) -> int:
    """Read the lists, look for the videos, and write what the configs name."""
    lists = folder_of_lists(args.root, args.annotations)
    data = read_ssv2(lists, args.videos or args.root / 'videos')
    return prepare(data, args.root, args.allow_missing)


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(list_and_look(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
