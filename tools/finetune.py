"""Train a model on your own videos, from their folder to labels.

VIDEOS is a folder with a folder per class, or a CSV file with the columns path and label (and group
and split, if wanted). Every file is checked, the videos are split, a recipe is chosen by their
number and the memory there is, a config is written, and the model is trained and tested. The same
command continues after a stop.

Examples:
    mmtimesformer finetune my_videos --out work_dirs/mine
    mmtimesformer finetune my_videos.csv --pretrained CHECKPOINT --recipe last-blocks
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import ToolParser, parse, whole_number

ON_OFF = {'on': True, 'off': False}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument(
        'videos', type=Path, metavar='VIDEOS', help='a folder with a folder per class, or a CSV'
    )
    parser.add_argument(
        '--pretrained', metavar='CHECKPOINT', help='weights to start from, of any readable format'
    )
    parser.add_argument(
        '--out', type=Path, help='folder of the results (work_dirs/finetune/VIDEOS)'
    )
    parser.add_argument(
        '--recipe',
        choices=['probe', 'last-blocks', 'full'],
        help='what is trained (by the number of videos and the memory)',
    )
    parser.add_argument(
        '--freeze', type=whole_number(0), metavar='N', help='do not train the first N blocks'
    )
    parser.add_argument('--root', type=Path, help='what paths in the CSV are relative to')
    parser.add_argument(
        '--multi-label', action='store_true', help='a video may have several labels, or none'
    )
    parser.add_argument(
        '--label-separator',
        help='between labels in a cell of the CSV (";", or "|" where ";" separates columns)',
    )
    parser.add_argument('--val', type=float, default=0.2, help='part to validate on (0.2)')
    parser.add_argument('--test', type=float, default=0.0, help='part to test on (none)')
    parser.add_argument(
        '--flip', choices=ON_OFF, help='mirror half of the clips (by the names of the classes)'
    )
    parser.add_argument('--epochs', type=whole_number(1), help='of the training')
    parser.add_argument(
        '--quick-check', action='store_true', help='decode three frames of each video, not all'
    )
    parser.add_argument('--seed', type=whole_number(0), default=0, help='of split and training')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    args.flip = ON_OFF.get(args.flip)
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_args(argv)

    def job() -> None:
        require_mmaction()
        from mmtimesformer.finetuning.workflow import Options, finetune

        finetune(Options.of(args))

    return run_tool(job, args.debug, resume_hint='the same command continues')


if __name__ == '__main__':
    sys.exit(main())
