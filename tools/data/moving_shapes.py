"""Write the Moving Shapes data set.

Short generated videos of moving shapes, in pairs that differ in the order of frames only: the data
set of `mmtimesformer demo`.

Examples:
    mmtimesformer moving_shapes --out data/moving_shapes
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, check_output, parse, whole_number
from mmtimesformer.terminal import echo

SEED, NUM_TRAIN, NUM_VAL = 0, 1600, 400


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument('--out', default='data/moving_shapes', help='folder of the data set')
    parser.add_argument('--seed', type=whole_number(0), default=SEED, help='of every decision')
    parser.add_argument(
        '--num-train', type=whole_number(1), default=NUM_TRAIN, help='videos to train on'
    )
    parser.add_argument(
        '--num-val', type=whole_number(1), default=NUM_VAL, help='videos to test on'
    )
    parser.add_argument('--workers', type=whole_number(1), default=2, help='threads')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def make(args: argparse.Namespace) -> None:
    """Write the data set and a picture of it, unless they are there."""
    from mmtimesformer.datasets.preparation.moving_shapes import (
        AXES,
        Settings,
        draw_twins,
        make_moving_shapes,
    )
    from mmtimesformer.visualization import draw_clips

    settings = Settings(args.num_train, args.num_val, args.seed)
    check_output(args.out, '--out', folder=True)
    written = make_moving_shapes(args.out, settings, args.workers)
    preview = Path(args.out) / 'preview.png'
    if not preview.exists():
        twins = (draw_twins(args.seed, 'train', number) for number in range(len(AXES)))
        draw_clips({motion: clip for pair in twins for motion, clip in pair.items()}, preview)
    echo(
        f'{args.out}: {settings.num_train} + {settings.num_val} videos '
        f'{"written" if written else "are there already"}; {preview} shows some'
    )


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    return run_tool(lambda: make(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
