"""Pack listed videos into tar shards.

OUT gets shard-000000.tar, ... and index.tsv, which the config names as ann_file of a
mmtimesformer.TarShardVideoDataset. Plain tar and WebDataset read the tar shards too. VIDEOS is not
changed. Run it again after an interruption: finished tar shards stay, the others are written.

Examples:
    mmtimesformer write_shards train.txt videos shards --shard-size 500
"""

import argparse
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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__, {3: 'done, but some videos could not be read (OUT/failed.txt)'})
    parser.add_argument('list', type=Path, metavar='LIST', help='annotation file of the videos')
    parser.add_argument(
        'videos', type=Path, metavar='VIDEOS', help='folder that the names in LIST are relative to'
    )
    parser.add_argument('out', type=Path, metavar='OUT', help='folder of the tar shards')
    parser.add_argument(
        '--shard-size',
        type=positive_number,
        default=1000,
        metavar='MB',
        help='megabytes of videos in each',
    )
    parser.add_argument(
        '--num-workers', type=whole_number(1), default=os.cpu_count() or 1, help='processes'
    )
    parser.add_argument(
        '--timeout', type=positive_number, default=7200, help='seconds for one tar shard'
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def pack(args: argparse.Namespace) -> int:
    """Write the tar shards that are not there, then the index, and list what was left out."""
    from mmtimesformer.datasets.preparation import COMPLETE, INCOMPLETE
    from mmtimesformer.datasets.preparation.finding import list_line
    from mmtimesformer.datasets.preparation.packing import (
        list_entries,
        list_labelled,
        plan_tar_shards,
        write_tar_shards,
    )
    from mmtimesformer.datasets.tar_shards.index import INDEX, format_index

    videos = list_labelled(args.list)
    check_output(args.out, 'OUT', folder=True)
    size = int(args.shard_size * 1e6)
    shards = plan_tar_shards(videos, args.videos, args.out, size, args.timeout)
    todo = [shard for shard in shards if not shard.path.exists()]
    wrong = {}
    results = write_tar_shards(todo, args.num_workers, args.timeout)
    with closing(results):  # ends the processes in any case
        for shard, error in track(results, str(args.out), total=len(todo)):
            if error:
                wrong[shard.path] = error
    if wrong:
        path, error = min(wrong.items())
        raise ValueError(
            f'{len(wrong)} of {len(shards)} tar shards could not be written, the first is {path}: '
            f'{error}; correct this and run it again, the others stay. If a process crashed, '
            'tools/data/check_videos.py finds the video'
        )
    entries, failed = list_entries(shards)
    if failed:
        lines = [f'{list_line(file)}\t{list_line(why)}' for file, why in failed.items()]
        write_lines_atomically(args.out / 'failed.txt', lines, 'surrogateescape')
        echo(
            f'{len(failed):,} videos could not be read; {args.out / "failed.txt"} lists the reasons'
        )
    else:
        (args.out / 'failed.txt').unlink(missing_ok=True)
    write_lines_atomically(args.out / INDEX, format_index(entries))
    total = sum(shard.path.stat().st_size for shard in shards)
    echo(f'{len(todo):,} tar shards written, {len(shards) - len(todo):,} there already')
    echo(
        f'{args.out / INDEX}: {len(entries) - len(failed):,} videos in {len(shards):,} tar shards, '
        f'{total / 1e9:,.3f} GB'
    )
    return INCOMPLETE if failed else COMPLETE


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(pack(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
