"""Frame exactness and speed of the readers of videos: python benchmarks/readers.py --install.

Exactness: small files of every kind (reader_files.py), whose frames have their number drawn into
them. The truth is all frames of a file, decoded in order. Each reader is asked for each frame: all
in one request, each alone in a random order, and in clips; the numbers are read from the pixels.
For each file a reader is

- right: each frame is the one asked for, and there are as many as in truth;
- wrong: another frame, damaged pixels or another number of frames came, and no error;
- refused: an error, and no wrong frame.

Speed: 10 seconds of H.264, 340 x 256, with textures and noise as of a camera (data.py), read with
one thread: CPU time of a clip of 8 frames, 32 apart, from opening the file on, and of all frames in
order. All readers in turn in each round; medians over rounds, and ratios *within* a round.

Each reader runs in a process of its own, with its own package in front of the others:

    python benchmarks/readers.py --install                       # packages into build/readers
    python benchmarks/readers.py --out benchmarks/results        # readers-exactness, readers-speed
"""

import argparse
import json
import os
import platform
import random
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from drawn_numbers import read_number
from reader_files import KINDS, make

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 120  # seconds for one answer
CLIP, INTERVAL = 8, 32
ANSWERS = 'right', 'wrong', 'refused', 'crashed'
CAPABILITIES = ('avx2', 'avx512f', 'avx512_bf16', 'avx512_vnni', 'amx_bf16')


@dataclass(frozen=True)
class Candidate:
    """A reader, and where its package comes from.

    Attributes:
        title: What it is called in the tables.
        name: Its name in reader_process.py.
        requirement: What is installed for it alone; ``''`` if it is in this environment.
    """

    title: str
    name: str
    requirement: str = ''

    @property
    def folder(self) -> str:
        """The folder of its package."""
        return self.requirement.replace('==', '-')


TORCHCODEC = 'torchcodec==0.13.0'  # the newest whose wheel works with torch's CPU build
CANDIDATES = [
    Candidate('ours (PyAV)', 'ours'),
    Candidate('decord', 'decord', 'decord==0.6.0'),
    Candidate('decord2', 'decord', 'decord2==3.4.0'),
    Candidate('torchcodec 0.12', 'torchcodec', 'torchcodec==0.12.0'),
    Candidate('torchcodec 0.13', 'torchcodec', TORCHCODEC),
    Candidate('torchcodec 0.13, approximate', 'torchcodec_approximate', TORCHCODEC),
    Candidate('OpenCV', 'opencv'),
    Candidate("ours, reader='decord'", 'ours_decord', 'decord==0.6.0'),
    Candidate("ours, reader='torchcodec'", 'ours_torchcodec', TORCHCODEC),
]


@dataclass(frozen=True)
class Verdict:
    """What a reader did with a file.

    Attributes:
        kind: ``'right'``, ``'wrong'`` (without an error), ``'refused'`` or ``'crashed'``.
        frames: The frames of the file.
        length: The frames that the reader finds.
        wrong: Frames in whose place another one came, in one of the requests.
        furthest: How many frames the furthest of these is from the one asked for.
        damaged: Frames that came with other pixels than those of decoding everything.
        missing: Frames for which an error came.
        error: The first error.
    """

    kind: str
    frames: int
    length: int | None = None
    wrong: int = 0
    furthest: int = 0
    damaged: int = 0
    missing: int = 0
    error: str = ''

    def in_words(self) -> str:
        """Write the cell of a table."""
        if self.kind != 'wrong':
            part = f' ({self.missing} of {self.frames})' if 0 < self.missing < self.frames else ''
            return self.kind + part
        found = []
        if self.wrong:
            found.append(f'{self.wrong} of {self.frames}, up to {self.furthest} off')
        if self.damaged:
            found.append(f'{self.damaged} damaged')
        if self.length != self.frames:
            found.append(f'finds {self.length} of {self.frames}')
        return f'**wrong**: {"; ".join(found)}'


def classify(answer: dict[str, Any], truth: Sequence[int]) -> Verdict:
    """Compare the frames that a reader returned with those that it was asked for.

    Args:
        answer: Of ``reader_process.check``.
        truth: The number drawn in each frame of the file.
    """
    frames = len(truth)
    if 'error' in answer:
        kind = 'crashed' if answer.get('crashed') else 'refused'
        return Verdict(kind, frames, missing=frames, error=answer['error'])
    wrong: dict[int, int] = {}
    damaged, missing, errors = set(), set(), []
    for index, number, alike in (item for request in answer['returned'] for item in request):
        if isinstance(number, str):
            missing.add(index)
            errors.append(number)
        elif number is not None and number != truth[index]:
            wrong[index] = max(wrong.get(index, 0), abs(number - truth[index]))
        elif number is None or not alike:
            damaged.add(index)
    length = answer['length']
    if wrong or damaged or length != frames:
        kind = 'wrong'
    else:
        kind = 'refused' if missing else 'right'
    return Verdict(
        kind, frames, length, len(wrong), max(wrong.values(), default=0),
        len(damaged), len(missing), next(iter(errors), ''),
    )  # fmt: skip


@dataclass
class Process:
    """A reader's process. It is started again if it ends or does not answer in time."""

    candidate: Candidate
    folder: Path
    running: Any = field(default=None, repr=False)

    @property
    def is_installed(self) -> bool:
        return not self.candidate.requirement or self.packages.is_dir()

    @property
    def packages(self) -> Path:
        return self.folder / self.candidate.folder

    def start(self) -> None:
        """Start the process."""
        own = [str(self.packages)] if self.candidate.requirement else []
        path = os.pathsep.join([*own, str(ROOT), os.environ.get('PYTHONPATH', '')])
        self.running = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name('reader_process.py')),
             self.candidate.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
        )  # fmt: skip

    def ask(self, **question: Any) -> dict[str, Any]:
        """Ask a question; an end of the process is an answer."""
        if self.running is None:
            self.start()
        self.running.stdin.write(json.dumps(question) + '\n')
        self.running.stdin.flush()
        answered, _, _ = select.select([self.running.stdout], [], [], LIMIT)
        line = self.running.stdout.readline() if answered else ''
        if line:
            return json.loads(line)
        self.stop()
        error = 'its process ended' if answered else f'no answer in {LIMIT} seconds'
        return {'error': error, 'crashed': True}

    def stop(self) -> None:
        """End the process."""
        if self.running is not None:
            self.running.kill()
            with self.running:  # which closes its pipes
                self.running = None


def install(folder: Path) -> None:
    """Install the package of each reader into a folder of its own, and nothing that it requires."""
    for requirement in sorted({item.requirement for item in CANDIDATES if item.requirement}):
        target = folder / requirement.replace('==', '-')
        if not target.is_dir():
            command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps']
            subprocess.run([*command, '--target', str(target), requirement], check=True)
            print(f'{requirement} is in {target}', flush=True)


def check_all(processes: list[Process], paths: list[Path]) -> list[dict[str, Any]]:
    """Ask each reader for the frames of each file."""
    rows = []
    for path in paths:
        truth = [read_number(frame) for frame in np.load(f'{path}.npy')]
        for process in processes:
            verdict = classify(process.ask(check=str(path)), truth)
            rows.append({
                'file': path.name, 'what': KINDS[path.name][0],
                'reader': process.candidate.title, **vars(verdict), 'cell': verdict.in_words(),
            })  # fmt: skip
        print(
            f'{path.name}: {", ".join(row["cell"] for row in rows[-len(processes) :])}', flush=True
        )
    return rows


def measure_all(processes: list[Process], path: Path, rounds: int) -> list[dict[str, Any]]:
    """Time clips and whole videos, all readers in turn in each round."""
    draw = random.Random(0)
    tasks = {'clip': lambda: [draw.randrange(300 - INTERVAL * (CLIP - 1)) + INTERVAL * i
                              for i in range(CLIP)],
             'in order': lambda: list(range(300))}  # fmt: skip
    rows = []
    for task, indices_of in tasks.items():
        times: dict[str, list[float]] = {process.candidate.title: [] for process in processes}
        for i in range(-1, rounds):  # the first is a warm-up
            indices = sorted(indices_of())
            for process in processes if i % 2 else processes[::-1]:
                answer = process.ask(measure=str(path), indices=indices)
                if 'ms' not in answer:
                    raise RuntimeError(f'{process.candidate.title}: {answer["error"]}')
                if i >= 0:
                    times[process.candidate.title].append(answer['ms'])
        first = times[processes[0].candidate.title]
        for title, taken in times.items():
            ratios = [mine / its for mine, its in zip(taken, first, strict=True)]
            rows.append({
                'task': task, 'reader': title, 'ms': round(statistics.median(taken), 2),
                'ratio': [round(value, 3) for value in statistics.quantiles(
                    ratios, n=4, method='inclusive')],
                'frames': len(indices), 'rounds': rounds,
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def machine() -> dict[str, str]:
    """Describe the machine."""
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    flags = next((line.split() for line in lines if line.startswith('flags')), [])
    return {
        'date': date.today().isoformat(),
        'cpu': f'{len(names)} x {names[0]}' if names else platform.processor(),
        'capability': ' '.join(flag for flag in CAPABILITIES if flag in flags),
        'python': platform.python_version(),
    }


def exactness_table(rows: list[dict[str, Any]]) -> list[str]:
    """Write which reader was right on which file as Markdown."""
    titles = list(dict.fromkeys(row['reader'] for row in rows))
    lines = [f'| file | {" | ".join(titles)} |', '|---' * (len(titles) + 1) + '|']
    for file in dict.fromkeys(row['file'] for row in rows):
        here = [row for row in rows if row['file'] == file]
        lines.append(f'| {here[0]["what"]} | {" | ".join(row["cell"] for row in here)} |')
    sums = []
    for title in titles:
        kinds = [row['kind'] for row in rows if row['reader'] == title]
        sums.append(', '.join(f'{kinds.count(kind)} {kind}' for kind in ANSWERS if kind in kinds))
    return [*lines, f'| **all {len(rows) // len(titles)}** | {" | ".join(sums)} |']


def speed_table(rows: list[dict[str, Any]]) -> list[str]:
    """Write the times as Markdown."""
    lines = [
        f'| reader | clip of {CLIP} frames, {INTERVAL} apart: ms | relative to ours |'
        ' all frames in order: ms a frame | relative to ours |',
        '|---|---|---|---|---|',
    ]
    for title in dict.fromkeys(row['reader'] for row in rows):
        clip, order = (row for row in rows if row['reader'] == title)
        cells = [title, f'{clip["ms"]:.1f}', as_ratio(clip), f'{order["ms"] / order["frames"]:.3f}']
        lines.append(f'| {" | ".join([*cells, as_ratio(order)])} |')
    return lines


def as_ratio(row: dict[str, Any]) -> str:
    """Write a ratio with its quartiles."""
    low, median, high = row['ratio']
    return f'**{median:.2f}** ({low:.2f} to {high:.2f})'


def page(title: str, about: dict[str, str], text: str, table: list[str]) -> str:
    """Write a page of results."""
    versions = ', '.join(f'{key} {value}' for key, value in about.items())
    return '\n'.join([f'# {title}', '', f'{versions}.', '', text, '', *table, ''])


EXACTNESS = f"""\
Small files of every kind, each frame with its number drawn into it; truth is all frames decoded in
order. Each frame is asked for in one request for all, alone in a random order, and in clips. Right:
each frame is the one asked for. Wrong: other frames ("up to 20 off": 20 frames from the one asked
for), damaged pixels, or another number of frames came, **without an error**. Refused: an error, and
no wrong frame. The last columns are this project's `reader=` options, which compare the reader's
frames with the file's index and refuse. {len(KINDS)} files."""
SPEED = """\
10 seconds of H.264, 340 x 256, 30 frames a second, a keyframe every 250 frames. CPU time of all
threads of the process, one decoding thread, from opening the file on. All readers in turn in each
round: median, and ratio to ours within a round (quartiles); above 1 is slower than ours."""


def save(folder: Path, name: str, about: dict[str, str], rows: list[Any], text: str) -> None:
    """Write a page and its numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{name}.md').write_text(text)
    (folder / f'{name}.json').write_text(json.dumps([about, *rows], indent=1) + '\n')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--install', action='store_true', help='install their packages')
    parser.add_argument('--envs', type=Path, default=ROOT / 'build/readers', help='their folder')
    parser.add_argument('--files', type=Path, help='folder in which the videos are kept')
    parser.add_argument('--rounds', type=int, default=11, help='of speed; 0 measures none')
    parser.add_argument('--skip-exactness', action='store_true')
    parser.add_argument('--out', type=Path, help='folder of the tables')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Install, or compare all readers that are installed."""
    args = parse_args(argv)
    if args.install:
        install(args.envs)
    processes = [Process(candidate, args.envs.resolve()) for candidate in CANDIDATES]
    for process in processes:
        if not process.is_installed:
            print(f'{process.candidate.title} is left out: run this with --install first')
    processes = [process for process in processes if process.is_installed]
    with tempfile.TemporaryDirectory() as temporary:
        try:
            compare(processes, args, (args.files or Path(temporary)).resolve())
        finally:
            for process in processes:
                process.stop()
    return 0


def compare(processes: list[Process], args: argparse.Namespace, folder: Path) -> None:
    """Make the files and both tables."""
    about = machine()
    for process in processes:
        about[process.candidate.title] = process.ask()['version']
    if not args.skip_exactness:
        rows = check_all(processes, make(folder))
        text = page('Frame exactness of readers', about, EXACTNESS, exactness_table(rows))
        print(text)
        if args.out:
            save(args.out, 'readers-exactness', about, rows, text)
    if args.rounds:
        rows = measure_all(processes, film(folder), args.rounds)
        text = page('Speed of readers', about, SPEED, speed_table(rows))
        print(text)
        if args.out:
            save(args.out, 'readers-speed', about, rows, text)


def film(folder: Path) -> Path:
    """Write the video that is timed."""
    from data import write

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'film.mp4'
    if not path.exists():
        write(path, '340x256', 250)
    return path


if __name__ == '__main__':
    sys.exit(main())
