"""Submit a training to a cluster by submitit.

Needs `pip install 'mmtimesformer[slurm]'`. Options after `--` are those of `mmtimesformer train`.
When the time of the job is over, or another job preempts it, the training saves, the job is queued
again and resumes. `--cluster local` runs it on this machine and waits, to try it out.

Examples:
    mmtimesformer submit CONFIG --nodes 2 --gpus-per-node 8 --partition video --hours 24
    mmtimesformer submit CONFIG --partition video -- --amp bf16 --work-dir work_dirs/a
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, parse
from mmtimesformer.terminal import echo

TRAIN = Path(__file__).resolve().parent / 'train.py'
REQUEUES = 1000  # how often a job whose time is over is queued again


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; options after ``--`` become ``training``."""
    words = sys.argv[1:] if argv is None else argv
    end = words.index('--') if '--' in words else len(words)
    parser = ToolParser(__doc__)
    parser.add_argument('config', help='a config file, or the name of a shipped config')
    parser.add_argument('--cluster', choices=['slurm', 'local'], default='slurm')
    parser.add_argument('--nodes', type=int, default=1, help='machines')
    parser.add_argument(
        '--gpus-per-node', type=int, default=8, help='processes on a machine, one per GPU'
    )
    parser.add_argument('--cpus-per-gpu', type=int, default=5, help='CPU cores for each process')
    parser.add_argument('--no-gpus', action='store_true', help='the processes use CPUs')
    parser.add_argument('--partition', help='partition of Slurm')
    parser.add_argument('--hours', type=float, default=24, help='time of the job')
    parser.add_argument(
        '--stop-seconds',
        type=int,
        default=120,
        help='seconds before its end to stop and save',
    )
    parser.add_argument(
        '--max-restarts', type=int, default=0, help='how often lost processes are restarted'
    )
    parser.add_argument('--job-name', help="instead of the config's name")
    parser.add_argument(
        '--slurm',
        type=slurm_parameter,
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='account=a qos=high mem=200G',
    )
    parser.add_argument('--logs', default='work_dirs/jobs', help='folder for the logs of jobs')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, words[:end])
    args.training = words[end + 1 :]
    return args


def slurm_parameter(text: str) -> str:
    """Return one of the values of ``--slurm``."""
    if '=' not in text or '/' in text.partition('=')[0]:
        raise argparse.ArgumentTypeError(f'{text} must be KEY=VALUE, as in account=vision')
    return text


def submit(args: argparse.Namespace) -> None:
    """Check the options, and submit the job."""
    from mmtimesformer.config.find import find_config
    from mmtimesformer.engine.launch.submitit_job import WARNING, Training

    config = find_config(args.config)
    check(args)
    os.environ['SUBMITIT_PREEMPT_SIGNAL'] = WARNING
    import submitit

    training = Training(
        [str(TRAIN), str(config), *args.training], args.gpus_per_node, args.max_restarts
    )
    executor = submitit.AutoExecutor(
        args.logs, cluster=args.cluster, **{f'{args.cluster}_max_num_timeout': REQUEUES}
    )
    executor.update_parameters(
        name=args.job_name or config.stem,
        nodes=args.nodes,
        tasks_per_node=1,
        timeout_min=max(1, round(args.hours * 60)),
        **parameters(args),
    )
    job = executor.submit(training)
    echo(f'job {job.job_id}; its log is {job.paths.stdout}', flush=True)
    if args.cluster == 'local':
        echo(job.result(), flush=True)


def parameters(args: argparse.Namespace) -> dict[str, object]:
    """Return the job's parameters under submitit's names."""
    gpus = 0 if args.no_gpus else args.gpus_per_node
    if args.cluster == 'local':
        return {'gpus_per_node': gpus}
    return {
        'gpus_per_node': gpus,
        'cpus_per_task': args.gpus_per_node * args.cpus_per_gpu,
        'slurm_signal_delay_s': args.stop_seconds,
        'slurm_partition': args.partition,
        'slurm_additional_parameters': dict(word.split('=', 1) for word in args.slurm),
    }


def check(args: argparse.Namespace) -> None:
    """Find mistakes before the job waits in a queue."""
    if importlib.util.find_spec('submitit') is None:
        raise ImportError("submitit is not installed; pip install 'mmtimesformer[slurm]'")
    if args.cluster == 'local' and args.nodes > 1:
        raise ValueError(f'--cluster local is one machine; leave --nodes {args.nodes} out')
    for name in ('nodes', 'gpus_per_node', 'cpus_per_gpu'):
        if getattr(args, name) < 1:
            option = '--' + name.replace('_', '-')
            raise ValueError(f'{option} {getattr(args, name)} must be at least 1')
    if args.stop_seconds >= args.hours * 3600:
        raise ValueError(
            f'--stop-seconds {args.stop_seconds} is all of --hours {args.hours:g}; '
            'make the job longer'
        )
    resumes = any(word.startswith('--resume') for word in args.training)
    if args.max_restarts and not resumes:
        raise ValueError(
            '--max-restarts would restart the training from its beginning; add -- --resume'
        )
    import train  # tools/train.py

    train.parse_args([args.config, *args.training])  # argparse reports mistakes


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code (see ``mmtimesformer.cli``)."""
    args = parse_args(argv)
    return run_tool(lambda: submit(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
