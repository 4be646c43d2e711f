"""Threads of one process that read clips, against a process for each DataLoader worker.

PyAV releases the GIL while it decodes, so threads could read several clips at once, with the memory
of one process. Both read the same clips by our training pipeline (data.py), in turn:

    python benchmarks/decoder_threads.py --out benchmarks/results

Each round gives clips per second of wall time. A second row of each has a main process that runs
Python between clips, as one that drives a GPU does for a part of each step: threads share its GIL,
workers do not. Memory is what all processes hold, shared pages counted once (PSS).
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import torch
from data import annotation, machine, ours, run, write
from mmaction.registry import TRANSFORMS
from mmaction.utils import register_all_modules
from torch.utils.data import DataLoader, Dataset


class Clips(Dataset):
    """Clips of one video, read by our training pipeline."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.steps = [TRANSFORMS.build(step) for step in ours('pyav')]

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> torch.Tensor:
        return run(self.steps, annotation(self.path))['inputs']


def by_workers(clips: Clips, workers: int) -> Iterator[Any]:
    """Read clips by processes."""
    loader = DataLoader(
        clips, batch_size=1, num_workers=workers, prefetch_factor=2, collate_fn=lambda batch: batch
    )
    return iter(loader)


def by_threads(clips: Clips, threads: int) -> Iterator[Any]:
    """Read clips by threads of this process."""
    pool = ThreadPoolExecutor(threads)
    return iter(pool.map(clips.__getitem__, range(len(clips))))


def run_python(seconds: float) -> None:
    """Keep the GIL busy, in CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def pss_mib() -> float:
    """Return the memory of this process and of its workers, shared pages counted once, in MiB."""
    pids = ['self', *(str(child.pid) for child in multiprocessing.active_children())]
    kib = 0
    for pid in pids:
        try:
            text = Path(f'/proc/{pid}/smaps_rollup').read_text()
        except OSError:  # it has just ended
            continue
        kib += next(int(line.split()[1]) for line in text.splitlines() if line.startswith('Pss:'))
    return kib / 1024


def measure(
    read: Callable[[Clips, int], Iterator[Any]], clips: Clips, number: int, busy: bool
) -> dict[str, float]:
    """Read clips; the first of each worker is not counted. Memory is read behind the last one."""
    times: list[float] = []
    for _ in read(clips, number):
        if busy:  # as long as a step of a small model takes on a GPU
            run_python(0.02)
        times.append(time.perf_counter())
        if len(times) == len(clips):
            mib = pss_mib()
    start, end = times[number - 1], times[-1]
    return {'clips_per_s': (len(times) - number) / (end - start), 'mib': mib}


WAYS = {'workers': by_workers, 'threads': by_threads}


def compare(clips: Clips, rounds: int) -> list[dict[str, Any]]:
    """Measure all ways in turn."""
    lanes = [(way, number, busy) for busy in (False, True) for number in (2, 4) for way in WAYS]
    found: dict[Any, list[dict[str, float]]] = {lane: [] for lane in lanes}
    for i in range(rounds):
        for lane in lanes if i % 2 else reversed(lanes):
            way, number, busy = lane
            found[lane].append(measure(WAYS[way], clips, number, busy))
            print(i, lane, found[lane][-1], flush=True)
    rows = []
    for way, number, busy in lanes:
        mine, base = found[way, number, busy], found['workers', number, busy]
        ratios = [one['clips_per_s'] / other['clips_per_s']
                  for one, other in zip(mine, base, strict=True)]  # fmt: skip
        rows.append({
            'way': way, 'number': number, 'busy': busy, 'rounds': rounds,
            'clips_per_s': round(statistics.median(one['clips_per_s'] for one in mine), 2),
            'ratio': [round(value, 3) for value in statistics.quantiles(
                ratios, n=4, method='inclusive')],
            'mib': round(max(one['mib'] for one in mine)),
        })  # fmt: skip
    return rows


def as_table(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """Write results as Markdown."""
    lines = [
        '# Threads against processes for reading clips', '',
        ', '.join(f'{key} {value}' for key, value in about.items()) + '.', '',
        '10 s of H.264, 340 x 256, a keyframe every 250 frames; 8 frames, 32 apart, our training',
        'pipeline. Clips per second of wall time (median), relative to as many DataLoader workers',
        'in the same round (quartiles), and memory of all processes together. "Busy": the main',
        'process runs 20 ms of Python after each clip.', '',
        '| | main process | clips/s | relative to workers | MiB |', '|---|---|---|---|---|',
    ]  # fmt: skip
    for row in rows:
        low, median, high = row['ratio']
        lines.append(
            f'| {row["number"]} {row["way"]} | {"busy" if row["busy"] else "waits"} | '
            f'{row["clips_per_s"]:.1f} | **{median:.2f}** ({low:.2f} to {high:.2f}) | '
            f'{row["mib"]} |'
        )
    return '\n'.join(lines) + '\n'


def main(argv: list[str] | None = None) -> int:
    """Make the video, read it in both ways, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--clips', type=int, default=40, help='of each measurement')
    parser.add_argument('--video', type=Path, help='file that is kept')
    parser.add_argument('--out', type=Path, help='folder of decoder_threads.md and .json')
    args = parser.parse_args(argv)
    register_all_modules(init_default_scope=True)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        path = args.video or Path(temporary) / 'film.mp4'
        if not path.exists():
            write(path, '340x256', 250)
        rows = compare(Clips(path, args.clips), args.rounds)
    about = machine()
    print(as_table(rows, about))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / 'decoder_threads.md').write_text(as_table(rows, about))
        (args.out / 'decoder_threads.json').write_text(json.dumps([about, *rows], indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
