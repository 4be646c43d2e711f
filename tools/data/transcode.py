"""Re-encode videos so that training reads them faster.

DST is laid out as SRC, each video as H.264 in .mp4 without sound, its keyframes close together. SRC
is not touched. Two videos that would become one file (a.avi, a.mp4) are both left out and listed as
failed. Started again, the tool resumes; no unfinished file ever has a final name.
With --annotations only the videos they list are written, and DST gets annotation files of the same
names that list the new ones.

Examples:
    mmtimesformer transcode videos videos_fast --preset balanced
    mmtimesformer transcode videos videos_fast --annotations train.txt val.txt
"""

import argparse
import dataclasses
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from mmtimesformer.datasets.preparation.transcoding import Written

#: Names in ``transcoding.PRESETS``: short side in pixels, frames from keyframe to keyframe.
PRESETS = {'storage': (320, 16), 'balanced': (320, 8), 'speed': (256, 4)}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__, {3: 'done, but some videos could not be read (DST/failed.txt)'})
    parser.add_argument('src', type=Path, help='folder of the videos')
    parser.add_argument('dst', type=Path, help='folder of the new ones')
    parser.add_argument(
        '--annotations',
        type=annotation_file,
        nargs='+',
        default=[],
        metavar='LIST.txt',
        help='annotation files of the videos, whose names are relative to SRC',
    )
    parser.add_argument(
        '--preset',
        choices=PRESETS,
        default='balanced',
        help='; '.join(
            f'{name}: short side {side}, a keyframe every {gop} frames'
            for name, (side, gop) in PRESETS.items()
        ),
    )
    parser.add_argument(
        '--short-side', type=whole_number(2), help="pixels, an even number; the preset's"
    )
    parser.add_argument(
        '--gop', type=whole_number(1), help="frames from keyframe to keyframe; the preset's"
    )
    parser.add_argument(
        '--crf', type=whole_number(0, 51), help="x264 quality, less is better; the preset's"
    )
    parser.add_argument(
        '--num-workers', type=whole_number(1), default=os.cpu_count() or 1, help='processes'
    )
    parser.add_argument(
        '--timeout', type=positive_number, default=1800, help='seconds for one video'
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    if args.num_workers < 1:
        parser.error('--num-workers is at least 1')
    if len({path.name for path in args.annotations}) < len(args.annotations):
        parser.error('--annotations: two files have the same name, and DST can hold one')
    return args


def annotation_file(text: str) -> Path:
    """Return the value of ``--annotations``; SRC and DST are none, and may follow it."""
    if Path(text).is_file() or text.endswith(('.txt', '.csv')):
        return Path(text)
    raise argparse.ArgumentTypeError(f'{text} is no annotation file')


def transcode(args: argparse.Namespace) -> int:
    """Write what is not done yet; print what it took and gives, and list what could not be."""
    from mmtimesformer.datasets.preparation import COMPLETE, INCOMPLETE, transcoding
    from mmtimesformer.datasets.preparation.finding import SkippedFiles, list_line
    from mmtimesformer.datasets.preparation.isolation import write_isolated

    changes = {name: getattr(args, name) for name in ('short_side', 'gop', 'crf')}
    preset = dataclasses.replace(
        transcoding.PRESETS[args.preset],
        **{name: value for name, value in changes.items() if value is not None},
    )
    skipped = SkippedFiles()
    names = transcoding.list_sources(args.src, args.annotations, skipped)
    todo, done, refused = transcoding.plan_transcodes(
        args.src, args.dst, names, preset, args.timeout
    )
    if todo:
        check_output(args.dst, 'DST', folder=True)
    written = []
    failed = [
        f'{list_line(args.src.absolute() / name)}\t{list_line(why)}'
        for name, why in [*skipped.faults, *refused]
    ]
    results = write_isolated(transcoding.transcode_video, todo, args.num_workers, args.timeout)
    with closing(results):  # which ends the processes, whatever happens
        for job, what, wrong in track(results, str(args.dst), total=len(todo)):
            if what:
                written.append(what)
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
    for path in args.annotations:
        refused_names = {name for name, _ in refused}
        lines, missing = transcoding.rewrite_annotation(path, args.dst, refused_names)
        write_lines_atomically(args.dst / path.name, lines)
        without = f', {missing:,} left out' if missing else ''
        echo(f'{args.dst / path.name}: {len(lines):,} videos{without}')
    report(written, done)
    return INCOMPLETE if failed else COMPLETE


def report(written: 'Sequence[Written]', done: Sequence[tuple[int, int]]) -> None:
    """Print how many there are, how large, how good, and how fast to read."""
    echo(f'{len(written):,} written, {len(done):,} there already')
    sizes = [*done, *((what.before, what.after) for what in written)]
    before, after = (sum(size[i] for size in sizes) for i in (0, 1))
    if before:
        echo(f'{before / 1e9:,.3f} GB before, {after / 1e9:,.3f} GB after (x {after / before:.2f})')
    if written:
        psnr = statistics.median(what.psnr for what in written)
        echo(f'{psnr:.1f} dB of signal to noise against the sources (median; 40 is hardly visible)')
    speedups = [what.speedup for what in written if what.speedup is not None]
    if speedups:
        echo(
            f'a clip of 8 frames, 32 apart, is read {statistics.median(speedups):.1f} times as '
            f'fast as from the sources by the same reader (median of {len(speedups)} videos)'
        )


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(transcode(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
