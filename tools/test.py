"""Test a checkpoint on the test videos of a config.

Prints the metrics of the config. --dump saves the scores, for `mmtimesformer report` and
`mmtimesformer calibrate`.

Examples:
    mmtimesformer test CONFIG work_dirs/mine/epoch_15.pth --work-dir work_dirs/mine_test
    mmtimesformer test CONFIG CHECKPOINT --dump work_dirs/mine/result.pkl
"""

import argparse
import os
import sys

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import ConfigOptions, ToolParser, parse, whole_number
from mmtimesformer.config.speed import Speed, add_speed


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line: MMAction2's options and a few more."""
    parser = ToolParser(__doc__)
    parser.add_argument('config', help='a config file, or the name of a shipped config')
    parser.add_argument('checkpoint', help='the weights to test')
    parser.add_argument('--work-dir', help='folder for logs and metrics')
    parser.add_argument(
        '--dump', metavar='RESULT.pkl', help="save all predictions, for MMAction2's analysis tools"
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='fp16',
        choices=['fp16', 'bf16'],
        help='mixed precision: fp16 (without a value; GPU only) or bf16 (GPU and CPU)',
    )
    add_speed(parser)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change the config: test_dataloader.batch_size=4 key="[a,b]" key="[(a,b),(c,d)]"',
    )
    parser.add_argument(
        '--calibrated',
        action='store_true',
        help='divide logits by the temperature in the checkpoint (mmtimesformer calibrate)',
    )
    parser.add_argument(
        '--preprocessing',
        choices=('checkpoint', 'config'),
        help='whose mean, std, sizes and frames to use where they differ; an error if not given',
    )
    parser.add_argument('--show-dir', help='folder for a picture of each video and its prediction')
    parser.add_argument('--show', action='store_true', help='open a window with each such picture')
    parser.add_argument(
        '--interval', type=whole_number(1), default=1, help='number of videos per picture'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that a window stays open'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    if args.amp and not Speed.parse(args.speed).is_exact:
        parser.error(f'--amp {args.amp} and --speed {args.speed} exclude each other; give --speed')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code (see ``mmtimesformer.cli``)."""
    args = parse_args(argv)
    from mmtimesformer.engine.launch.torchrun import stop_with_torchrun

    def job() -> None:
        require_mmaction()
        from mmtimesformer.engine.launch.train_and_test import test
        from mmtimesformer.inference.speed import prepare

        speed = Speed.parse(args.speed)
        test(args, None if speed.is_exact else lambda model, device: prepare(model, speed, device))

    stop_with_torchrun()
    return run_tool(job, args.debug)


if __name__ == '__main__':
    sys.exit(main())
