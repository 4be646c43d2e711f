"""Train a model with a config.

Settings, data and schedule are those of the config; options change them. With --resume the same
command continues a training that was stopped.

Examples:
    mmtimesformer train CONFIG --work-dir work_dirs/mine
    mmtimesformer train CONFIG --resume
    mmtimesformer train CONFIG --amp bf16 --cfg-options optim_wrapper.optimizer.lr=1e-3
"""

import argparse
import os
import sys

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import (
    ConfigOptions,
    ToolParser,
    parse,
    resume_checkpoint,
    whole_number,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line: MMAction2's options and a few more."""
    parser = ToolParser(
        __doc__, {75: 'stopped by a signal, with its state saved; --resume continues'}
    )
    parser.add_argument('config', help='a config file, or the name of a shipped config')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        type=resume_checkpoint,
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without a value, from the newest valid one in the '
        'work_dir, if any. Settings of optimizer and schedulers are those of the checkpoint, '
        'except what --cfg-options changes: optim_wrapper.optimizer.lr=1e-5',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='fp16',
        choices=['fp16', 'bf16'],
        help='mixed precision: fp16 (without a value; GPU only) or bf16 (GPU and CPU)',
    )
    parser.add_argument('--no-validate', action='store_true', help='do not validate in training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by videos per step / auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--accumulate',
        action='store_true',
        help='accumulate gradients up to auto_scale_lr.base_batch_size videos per step',
    )
    parser.add_argument(
        '--seed', type=whole_number(0, 4294967295), help="random seed; wins over the config's"
    )
    parser.add_argument(
        '--diff-rank-seed', action='store_true', help='add the rank of a process to its seed'
    )
    parser.add_argument(
        '--deterministic', action='store_true', help='use only deterministic algorithms of cuDNN'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change the config: model.backbone.num_frames=16 key="[a,b]" key="[(a,b),(c,d)]"',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code (see ``mmtimesformer.cli``)."""
    args = parse_args(argv)
    from mmtimesformer.engine.launch.torchrun import report_stop_to_torchrun, stop_with_torchrun

    def job() -> None:
        require_mmaction()
        from mmtimesformer.engine.launch.train_and_test import train

        train(args)

    stop_with_torchrun()
    return report_stop_to_torchrun(
        run_tool(job, args.debug, resume_hint='the same command with --resume continues')
    )


if __name__ == '__main__':
    sys.exit(main())
