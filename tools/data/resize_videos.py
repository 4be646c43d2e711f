"""Make videos smaller.

DST is laid out as SRC, each video as H.264 in .mp4 without sound; a video that is small enough is
copied. Two videos that would become one file (a.avi, a.mp4) are both left out and listed as failed.
Started again, the tool resumes; no unfinished file ever has a final name.

Examples:
    mmtimesformer resize_videos videos videos_320 --short-side 320
"""

import argparse
import os
import shutil
import sys
from collections import Counter
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
    parser = ToolParser(__doc__, {3: 'done, but some videos could not be read (DST/failed.txt)'})
    parser.add_argument('src', type=Path, help='folder of the videos')
    parser.add_argument('dst', type=Path, help='folder of the small ones')
    parser.add_argument(
        '--short-side', type=whole_number(2), default=320, help='pixels, an even number'
    )
    parser.add_argument(
        '--crf',
        type=whole_number(0, 51),
        default=18,
        help='x264 quality: 18 looks like the source, 23 is smaller',
    )
    parser.add_argument(
        '--num-workers', type=whole_number(1), default=os.cpu_count() or 1, help='processes'
    )
    parser.add_argument(
        '--timeout', type=positive_number, default=1800, help='seconds for one video'
    )
    parser.add_argument(
        '--with',
        dest='program',
        choices=['auto', 'ffmpeg', 'pyav'],
        default='auto',
        help='what does it; auto: the program ffmpeg if there is one, else PyAV',
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    if args.num_workers < 1:
        parser.error('--num-workers is at least 1')
    return args


def resize(args: argparse.Namespace) -> int:
    """Resize what is not done yet, print and write what could not be."""
    from mmtimesformer.datasets.preparation import COMPLETE, INCOMPLETE
    from mmtimesformer.datasets.preparation.finding import SkippedFiles, list_line
    from mmtimesformer.datasets.preparation.isolation import write_isolated
    from mmtimesformer.datasets.preparation.resizing import plan_resizes, resize_video

    ffmpeg = None if args.program == 'pyav' else shutil.which('ffmpeg')
    if args.program == 'ffmpeg' and ffmpeg is None:
        raise FileNotFoundError('there is no program ffmpeg on the PATH; leave --with out for PyAV')
    skipped = SkippedFiles()
    todo, done, refused = plan_resizes(
        args.src, args.dst, args.short_side, args.crf, ffmpeg, args.timeout, skipped
    )
    if todo:
        check_output(args.dst, 'DST', folder=True)
    counts: Counter[str] = Counter({'there already': done})
    failed = [f'{list_line(args.src.absolute() / name)}\t{list_line(why)}' for name, why in refused]
    results = write_isolated(resize_video, todo, args.num_workers, args.timeout)
    with closing(results):  # which ends the processes, whatever happens
        for job, how, wrong in track(results, str(args.dst), total=len(todo)):
            if how:
                counts[how] += 1
            else:
                failed.append(f'{list_line(job.source)}\t{list_line(wrong)}')
    if skipped.note():
        echo(skipped.note())
    if failed:
        write_lines_atomically(args.dst / 'failed.txt', sorted(failed), 'surrogateescape')
        echo(
            f'{len(failed):,} videos were not written; {args.dst / "failed.txt"} lists the reasons'
        )
    else:
        (args.dst / 'failed.txt').unlink(missing_ok=True)
    echo(', '.join(f'{number:,} {how}' for how, number in counts.items()))
    return INCOMPLETE if failed else COMPLETE


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(resize(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
