"""Decode every video, and list those that cannot be read.

SOURCE is an annotation file or a folder. Each file is decoded in a process that may crash or hang.

Examples:
    mmtimesformer check_videos videos/
    mmtimesformer check_videos train.txt --root videos --good train_good.txt
"""

import argparse
import csv
import io
import os
import sys
from contextlib import closing
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import (
    ToolParser,
    check_output,
    parse,
    positive_number,
    whole_number,
)
from mmtimesformer.fileio.atomic import write_lines_atomically
from mmtimesformer.terminal import echo, track

SHOWN = 10  # bad files on the terminal; --out has all


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__, {3: 'done, but some videos are bad'})
    parser.add_argument('source', type=Path, help='an annotation file, or a folder of videos')
    parser.add_argument(
        '--root',
        type=Path,
        help='what the names in the annotation file are relative to (its folder)',
    )
    parser.add_argument(
        '--num-workers', type=whole_number(1), default=os.cpu_count() or 1, help='processes'
    )
    parser.add_argument(
        '--timeout', type=positive_number, default=120, help='seconds for one video'
    )
    parser.add_argument(
        '--quick', action='store_true', help='decode the first, middle and last frame only'
    )
    parser.add_argument(
        '--out', type=Path, metavar='BAD.csv', help='write the bad files: path,reason'
    )
    parser.add_argument(
        '--good', type=Path, metavar='GOOD.txt', help='write the annotation file without bad files'
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    if args.num_workers < 1:
        parser.error('--num-workers is at least 1')
    if args.good and args.source.is_dir():
        parser.error('--good needs an annotation file, not a folder')
    return args


def check(args: argparse.Namespace) -> int:
    """Decode all, print and write what is bad."""
    from mmtimesformer.datasets.preparation import COMPLETE, INCOMPLETE
    from mmtimesformer.datasets.preparation.checking import check_videos, list_videos, name_in
    from mmtimesformer.datasets.preparation.finding import SkippedFiles
    from mmtimesformer.datasets.preparation.reading import read_lines

    taken = {args.source.resolve(): 'SOURCE'}
    for option, path in (('--out', args.out), ('--good', args.good)):
        if path is None:
            continue
        check_output(path, option)
        if (other := taken.setdefault(path.resolve(), option)) != option:
            raise ValueError(f'{option} {path} would overwrite {other}; give another path')
    skipped = SkippedFiles()
    folder, names = list_videos(args.source, args.root, skipped)
    results = check_videos(folder, names, args.num_workers, args.timeout, args.quick)
    with closing(results):  # which ends the processes, whatever happens
        progress = track(results, str(args.source), total=len(names))
        bad = {name: wrong for name, wrong in progress if wrong is not None}
    bad = dict(sorted({**bad, **dict(skipped.faults)}.items()))
    if skipped.note():
        echo(skipped.note())
    for name, wrong in list(bad.items())[:SHOWN]:
        echo(f'{name}: {wrong}')
    if len(bad) > SHOWN:
        echo(f'… and {len(bad) - SHOWN:,} more')
    if args.out:
        lines = [as_csv('path', 'reason'), *(as_csv(*item) for item in bad.items())]
        write_lines_atomically(args.out, lines, 'surrogateescape')
    if args.good:
        write_lines_atomically(
            args.good, [line for line in read_lines(args.source) if name_in(line) not in bad]
        )
    total = len(names) + len(skipped.faults)
    echo(f'{total:,} videos: {total - len(bad):,} good, {len(bad):,} bad')
    return INCOMPLETE if bad else COMPLETE


def as_csv(*cells: str) -> str:
    """Write a line of CSV, its cells quoted where they must be."""
    line = io.StringIO()
    csv.writer(line, lineterminator='').writerow(cells)
    return line.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(check(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
