"""Prepare Kinetics-400, -600 or -700: python tools/data/kinetics.py 400 [ROOT] [options].

ROOT/annotations holds train.csv, val.csv (or validate.csv) and perhaps test.csv as published,
ROOT/videos_train, videos_val and videos_test the files <id>_<start>_<end>.mp4 or <id>.mp4, flat or
in folders.
Exit code: 0 all is there, 3 something is missing (ROOT/missing.txt), 1 an error.
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import parse
from mmtimesformer.datasets.preparation.annotations import prepare
from mmtimesformer.datasets.preparation.publishers import KINETICS, read_kinetics
from mmtimesformer.datasets.preparation.reading import folder_of_lists
from mmtimesformer.terminal import ArgumentParser

SPLITS = ('train', 'val', 'test')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('version', choices=sorted(KINETICS), help='which Kinetics')
    parser.add_argument(
        'root', type=Path, nargs='?', help='folder of the data set (data/kinetics<version>)'
    )
    parser.add_argument(
        '--annotations', type=Path, help="folder of the publisher's lists (ROOT/annotations)"
    )
    for split in SPLITS:
        parser.add_argument(
            f'--videos-{split}', type=Path, help=f'folder of its videos (ROOT/videos_{split})'
        )
    parser.add_argument(
        '--classes', type=Path, help='class names in the order of the labels (alphabetical)'
    )
    parser.add_argument(
        '--allow-missing', action='store_true', help='exit with 0 although something is missing'
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    args.root = args.root or Path(f'data/kinetics{args.version}')
    return args


def list_and_look(args: argparse.Namespace) -> int:
    """Read the lists, look for the videos, and write what the configs name."""
    lists = folder_of_lists(args.root, args.annotations)
    folders = {
        split: getattr(args, f'videos_{split}') or args.root / f'videos_{split}' for split in SPLITS
    }
    if args.videos_test is None and not folders['test'].is_dir():
        del folders['test']  # its list comes with the others, its videos often do not
    data = read_kinetics(args.version, lists, folders, args.classes)
    return prepare(data, args.root, args.allow_missing)


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(list_and_look(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
