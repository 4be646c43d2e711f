"""Steps and videos per second in 1, 2 and 4 processes: python benchmarks/scaling.py.

A small TimeSformer trains on clips of noise by the Runner, one thread to a process, the same number
of clips in each process (weak scaling: ideally a step takes as long in any number of processes).
The numbers of processes take turns, round by round, and what is printed are medians over all steps
of all rounds, with the quartiles.

    python benchmarks/scaling.py                        # a few minutes, on a quiet machine
    python benchmarks/scaling.py --processes 1 8 --clips 8 --rounds 5

What follows from it for larger machines is computed by benchmarks/scaling_plan.py.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import nn

from mmtimesformer import TimeSformer
from mmtimesformer.engine.runner import Runner

ROOT = Path(__file__).resolve().parents[1]
MODEL = dict(
    num_frames=8, img_size=112, patch_size=16, embed_dims=192, num_layers=6, num_heads=3,
    drop_path_rate=0.0,
)  # fmt: skip
WARM_UP = 3  # steps of a round that are not counted


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train in several numbers of processes.')
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2, 4])
    parser.add_argument('--clips', type=int, default=4, help='of a step, in each process')
    parser.add_argument('--steps', type=int, default=12, help='that are counted, of a round')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--worker', type=Path, help=argparse.SUPPRESS)  # where it writes its times
    return parser.parse_args(argv)


class Noise(torch.utils.data.Dataset):
    """Clips as they come from a pipeline, uint8."""

    metainfo: dict[str, Any] = {}

    def __init__(self, clips: int) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> dict[str, Any]:
        size = MODEL['img_size']
        clip = torch.randint(0, 256, (3, MODEL['num_frames'], size, size), dtype=torch.uint8)
        return {'inputs': clip, 'data_samples': BaseDataElement(label=index % 10)}


class Recognizer(BaseModel):
    """The backbone, a linear classifier and its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TimeSformer(**MODEL)
        self.head = nn.Linear(MODEL['embed_dims'], 10)

    def forward(
        self, inputs: list[torch.Tensor], data_samples: list[Any], mode: str = 'tensor'
    ) -> dict[str, torch.Tensor]:
        """Compute the loss."""
        clips = torch.stack(list(inputs)).float() / 128 - 1
        labels = torch.tensor([sample.label for sample in data_samples])
        return {'loss': nn.functional.cross_entropy(self.head(self.backbone(clips)), labels)}


class Clock(Hook):
    """Note when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def work(args: argparse.Namespace) -> None:
    """Train, as one of the processes, and let the first tell how long its steps took."""
    torch.set_num_threads(1)
    clock = Clock()
    steps = WARM_UP + 1 + args.steps
    processes = int(os.environ.get('WORLD_SIZE', 1))
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            model=Recognizer(),
            work_dir=folder,
            launcher='pytorch' if processes > 1 else 'none',
            train_dataloader=dict(
                dataset=Noise(steps * args.clips * processes),
                sampler=dict(type='DefaultSampler', shuffle=True, round_up=True),
                batch_size=args.clips,
                num_workers=0,
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-4)),
            default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=1000)),
            custom_hooks=[clock],
            randomness=dict(seed=0),
            log_level='ERROR',
            cfg={},
        )
        runner.train()
        if dist.get_rank() == 0:
            ends = clock.ends[WARM_UP:]
            times = [after - before for before, after in itertools.pairwise(ends)]
            args.worker.write_text(json.dumps(times))
        dist.barrier()


def measure(processes: int, args: argparse.Namespace) -> list[float]:
    """Train in so many processes; return the seconds of each step."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / 'times.json'
        launcher = []
        if processes > 1:
            launcher = [
                '-m',
                'mmtimesformer.engine.launch.torchrun',
                '--standalone',
                '--nproc-per-node',
            ]
            launcher.append(str(processes))
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
        command = [
            sys.executable, *launcher, __file__, '--worker', str(result),
            '--clips', str(args.clips), '--steps', str(args.steps),
        ]  # fmt: skip
        environment = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return json.loads(result.read_text())


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    args = parse_args(argv)
    if args.worker:
        work(args)
        return 0
    times: dict[int, list[float]] = {n: [] for n in args.processes}
    for _ in range(args.rounds):
        for n in args.processes:
            times[n] += measure(n, args)
    parameters = sum(p.numel() for p in Recognizer().parameters())
    print(
        f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch '
        f'{torch.__version__}; {parameters / 1e6:.1f}M parameters, {args.clips} clips of '
        f'{MODEL["num_frames"]} x {MODEL["img_size"]} x {MODEL["img_size"]} in each process; '
        f'{args.rounds} rounds of {args.steps} steps\n'
    )
    print('| processes | steps/s | videos/s | quartiles | of one process |')
    print('|---|---|---|---|---|')
    first = None
    for n, seconds in times.items():
        low, middle, high = (n * args.clips / x for x in statistics.quantiles(seconds, n=4)[::-1])
        first = first or middle / n
        print(
            f'| {n} | {middle / n / args.clips:.2f} | {middle:.1f} | {low:.1f} to {high:.1f} '
            f'| {middle / first:.2f} |'
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
