"""Training with track dropout: step time, memory, accuracy: python benchmarks/track_dropout.py.

    python benchmarks/track_dropout.py --parts step          # B size, a few minutes
    python benchmarks/track_dropout.py --parts accuracy --seeds 3
    python benchmarks/track_dropout.py --parts               # the tables again

Step: a training step of TimeSformer-B, 8 x 224 x 224, two clips, random weights. Keeping all and
keeping a part take turns in one process; a ratio is the median over rounds. Peak memory is that of
a process of its own.

Accuracy: the tiny model of Moving Shapes, with its recipe, on clips drawn into memory. "Equal
epochs" trains every way equally long. "Equal time" trains with dropout for as many epochs as take
the CPU time of training without.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import moving_shapes_clips as shapes
from machine import machine_name
from peers import memory_of_this_process, quartiles

from mmtimesformer import TimeSformer

KEEP = (0.25, 0.5)
WAYS = (('none', 1.0), ('track', 0.5), ('tube', 0.5), ('frame', 0.5))
SCHEMES = ('divided_space_time', 'joint_space_time')


class Step:
    """A training step of a B-size model with a classifier, on two clips of noise."""

    def __init__(self, scheme: str, keep: float) -> None:
        torch.manual_seed(0)
        self.model = TimeSformer(attention_type=scheme, token_keep=keep).train()
        self.head = nn.Linear(768, 400)
        self.video = torch.randn(2, 3, 8, 224, 224)
        self.parameters = [*self.model.parameters(), *self.head.parameters()]

    def __call__(self) -> None:
        """Forward and backward; the optimizer's step does not depend on the number of tokens."""
        loss = F.cross_entropy(self.head(self.model(self.video)), torch.tensor([1, 2]))
        loss.backward()
        for parameter in self.parameters:
            parameter.grad = None


def seconds(action: Callable[[], Any]) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_steps(rounds: int, schemes: list[str]) -> list[dict[str, Any]]:
    """Return time and memory of a step for each scheme and share, as ratios to keeping all."""
    rows = []
    for scheme in schemes:
        steps = {keep: Step(scheme, keep) for keep in (1.0, *KEEP)}
        times: dict[float, list[tuple[float, float]]] = {keep: [] for keep in steps}
        for _ in range(rounds):
            for keep, step in steps.items():
                times[keep].append(seconds(step))
                print(f'{scheme} keep={keep}: {times[keep][-1]}', flush=True)
        full = peak_memory(scheme, 1.0)
        for keep in KEEP:
            pairs = list(zip(times[keep], times[1.0], strict=True))
            wall, cpu = ([one[i] / other[i] for one, other in pairs] for i in range(2))
            rows.append(
                {
                    'scheme': scheme,
                    'keep': keep,
                    'rounds': rounds,
                    'full_cpu_seconds': statistics.median(cpu for _, cpu in times[1.0]),
                    'wall': quartiles(wall),
                    'cpu': quartiles(cpu),
                    'full_memory': full,
                    'memory': peak_memory(scheme, keep) / full,
                }
            )
    return rows


def peak_memory(scheme: str, keep: float) -> float:
    """Return the growth of the peak memory over one step, in MiB, in a process of its own."""
    command = [sys.executable, __file__, '--measure-memory', scheme, str(keep)]
    env = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': '65536'}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return float(done.stdout)


def print_memory(scheme: str, keep: float) -> None:
    """Print the growth of this process's peak memory over one step, less the gradients."""
    torch.set_num_threads(1)
    step = Step(scheme, keep)
    for parameter in step.parameters:
        parameter.grad = torch.zeros_like(parameter)
    before = memory_of_this_process('VmRSS')
    step()
    print(memory_of_this_process('VmHWM') - before)


class Training:
    """The tiny model on Moving Shapes in memory."""

    def __init__(self, pairs: int, patch_size: int) -> None:
        self.train, self.labels = shapes.draw('train', pairs)
        videos, self.val_labels = shapes.draw('val', 100)
        self.val = shapes.to_input(shapes.middle_clips(videos))
        self.patch_size = patch_size

    def run(self, mode: str, keep: float, epochs: int, seed: int) -> dict[str, float]:
        """Train; return the top-1 accuracy in percent and the CPU seconds of the steps."""
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        model = self._model(mode, keep)
        optimizer, steps = Optimizer(model), len(self.train) // 16
        cpu = time.process_time()
        for epoch in range(epochs):
            order = rng.permutation(len(self.train) // 2)  # pairs of opposite classes stay together
            for number, pairs in enumerate(order[: 8 * steps].reshape(steps, 8)):
                optimizer.step_at(epoch + number / steps, epochs)
                chosen = np.stack([2 * pairs, 2 * pairs + 1]).flatten()
                scores = model(self._clips(chosen, rng))
                optimizer.update(F.cross_entropy(scores, self.labels[chosen]))
        cpu = time.process_time() - cpu
        return {'top1': self.accuracy(model), 'cpu_seconds': cpu, 'epochs': epochs}

    def _model(self, mode: str, keep: float) -> nn.Sequential:
        drop = {} if mode == 'none' else {'token_keep': keep, 'token_drop_mode': mode}
        backbone = TimeSformer(**{**shapes.BACKBONE, 'patch_size': self.patch_size, **drop})
        for layer in backbone.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, gain=1.6)
        return nn.Sequential(backbone, nn.Linear(shapes.BACKBONE['embed_dims'], 8)).train()

    def _clips(self, chosen: np.ndarray, rng: np.random.Generator) -> Tensor:
        starts, xs = rng.integers(0, 6, len(chosen)), rng.integers(0, 17, len(chosen))
        clips = zip(chosen, starts, xs, strict=True)
        return shapes.to_input([shapes.clip_of(self.train[i], s, x) for i, s, x in clips])

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Return the top-1 accuracy on the middle of each validation video, in percent."""
        model.eval()
        scores = torch.cat([model(clips) for clips in self.val.split(50)])
        return 100 * (scores.argmax(1) == self.val_labels).double().mean().item()


class Optimizer:
    """AdamW with the warm-up, the cosine and the clipped gradients of the recipe."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())
        self.adam = torch.optim.AdamW(
            self.parameters, shapes.LEARNING_RATE, shapes.BETAS, weight_decay=shapes.DECAY
        )

    def step_at(self, epoch: float, epochs: int) -> None:
        """Set the learning rate of a point in the training."""
        warmup = min(shapes.WARMUP, epochs / 4)
        share = epoch / warmup if epoch < warmup else 1.0
        if epoch >= warmup:
            share = 0.5 + 0.5 * math.cos(math.pi * (epoch - warmup) / (epochs - warmup))
        for group in self.adam.param_groups:
            group['lr'] = shapes.LEARNING_RATE * max(share, 0.01)

    def update(self, loss: Tensor) -> None:
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, shapes.CLIP)
        self.adam.step()


def measure_accuracy(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Train every way at equal epochs, and with whole tracks dropped at equal CPU time.

    The results are written after each training.
    """
    training = Training(args.pairs, args.patch_size)
    rows = results['accuracy'] = []

    def add(mode: str, keep: float, epochs: int, at: str, seed: int) -> dict[str, Any]:
        row: dict[str, Any] = {'mode': mode, 'keep': keep, 'at': at, 'seed': seed}
        row |= {'pairs': args.pairs, **training.run(mode, keep, epochs, seed)}
        rows.append(row)
        write(args, results)
        return row

    for seed in range(args.seeds):
        spent = {mode: add(mode, keep, args.epochs, 'epochs', seed) for mode, keep in WAYS}
        ratio = spent['none']['cpu_seconds'] / spent['track']['cpu_seconds']
        add('track', 0.5, max(1, round(args.epochs * ratio)), 'time', seed)


def write(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Write the results and their tables."""
    file = args.out / 'track_dropout.json'
    file.write_text(json.dumps(results, indent=1) + '\n')
    file.with_suffix('.md').write_text(as_tables(results))
    print(as_tables(results), flush=True)


def as_tables(results: dict[str, Any]) -> str:
    """Write the results as Markdown."""
    lines = ['# Training with track dropout', '', results['machine'], '']
    if rows := results.get('step'):
        lines += ['| attention | `token_keep` | CPU time | wall time | peak memory |']
        lines += ['|---|---|---|---|---|']
        for row in rows:
            cpu, wall = (row[kind] for kind in ('cpu', 'wall'))
            lines.append(
                f'| {row["scheme"]} | {row["keep"]} | **{cpu[1]:.2f}** ({cpu[0]:.2f} to '
                f'{cpu[2]:.2f}) | {wall[1]:.2f} ({wall[0]:.2f} to {wall[2]:.2f}) | '
                f'{row["memory"]:.2f} of {row["full_memory"]:,.0f} MiB |'
            )
        lines.append('')
    if rows := results.get('accuracy'):
        lines += ['| dropped | kept | at equal | epochs | top-1 by seed | CPU seconds |']
        lines += ['|---|---|---|---|---|---|']
        for mode, at in dict.fromkeys((row['mode'], row['at']) for row in rows):
            same = [row for row in rows if (row['mode'], row['at']) == (mode, at)]
            scores = ', '.join(f'{row["top1"]:.1f}' for row in same)
            cpu = statistics.mean(row['cpu_seconds'] for row in same)
            keep, epochs = same[0]['keep'], same[0]['epochs']
            lines.append(f'| {mode} | {keep} | {at} | {epochs} | {scores} | {cpu:.0f} |')
        lines.append('')
    return '\n'.join(lines)


def main() -> int:
    """Measure what was asked for; add it to the results and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--parts', nargs='*', default=['step', 'accuracy'])
    parser.add_argument('--rounds', type=int, default=5, help='of the training steps')
    parser.add_argument('--schemes', nargs='*', default=list(SCHEMES))
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--epochs', type=int, default=28)
    parser.add_argument('--pairs', type=int, default=800, help='of training videos')
    parser.add_argument('--patch-size', type=int, default=16)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--out', type=Path, default=Path(__file__).parent / 'results')
    parser.add_argument('--measure-memory', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure_memory:
        print_memory(args.measure_memory[0], float(args.measure_memory[1]))
        return 0
    torch.set_num_threads(args.threads)
    file = args.out / 'track_dropout.json'
    results = json.loads(file.read_text()) if file.exists() else {}
    results['machine'] = machine_name(args.threads)
    if 'step' in args.parts:
        results['step'] = measure_steps(args.rounds, args.schemes)
    if 'accuracy' in args.parts:
        measure_accuracy(args, results)
    write(args, results)
    return 0


if __name__ == '__main__':
    sys.exit(main())
