"""Write the Moving Figures data set.

Short videos of people-like figures that walk, wave, bow, throw a ball, sit down and more, drawn by
code in textured scenes with a moving camera.

Examples:
    mmtimesformer moving_figures --out data/moving_figures
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, check_output, parse, whole_number
from mmtimesformer.terminal import echo

SEED, NUM_TRAIN, NUM_VAL = 0, 400, 100
WIDTH, HEIGHT, NUM_FRAMES = 128, 96, 24


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument('--out', default='data/moving_figures', help='folder of the data set')
    parser.add_argument('--seed', type=whole_number(0), default=SEED, help='of every decision')
    parser.add_argument(
        '--num-train', type=whole_number(1), default=NUM_TRAIN, help='videos to train on'
    )
    parser.add_argument(
        '--num-val', type=whole_number(1), default=NUM_VAL, help='videos to test on'
    )
    parser.add_argument('--width', type=whole_number(1), default=WIDTH, help='in pixels')
    parser.add_argument('--height', type=whole_number(1), default=HEIGHT, help='in pixels')
    parser.add_argument('--num-frames', type=whole_number(1), default=NUM_FRAMES, help='of a video')
    parser.add_argument('--workers', type=whole_number(1), default=2, help='threads')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def make(args: argparse.Namespace) -> None:
    """Write the data set and a picture of it, unless they are there."""
    from mmtimesformer.datasets.preparation.moving_figures import (
        PAIRS,
        Settings,
        draw_pair,
        make_moving_figures,
    )
    from mmtimesformer.visualization import draw_clips

    settings = Settings(
        args.num_train, args.num_val, args.seed, args.width, args.height, args.num_frames
    )
    check_output(args.out, '--out', folder=True)
    written = make_moving_figures(args.out, settings, args.workers)
    preview = Path(args.out) / 'preview.png'
    if not preview.exists():
        pairs = (draw_pair(settings, 'train', number) for number in range(len(PAIRS)))
        draw_clips({label: clip for pair in pairs for label, clip in pair.items()}, preview)
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
