"""A training under fire: python benchmarks/soak.py --minutes 3, or 60.

A tiny TimeSformer learns Moving Shapes, of which a few videos are broken, once undisturbed and once
with faults thrown at it at random, until both are done. Then the two are compared, to the last bit:
weights, moving average, optimiser, schedulers and the loss of every step.

    python benchmarks/soak.py --minutes 3      # eight faults or so
    python benchmarks/soak.py --minutes 60     # the hour in docs/reliability.md

``--minutes`` is the length of the disturbed training, roughly, of which half is spent on steps and
half on starting again; the undisturbed one goes before it. The same seed throws the same faults,
though not at the same step.
"""

import argparse
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmtimesformer.checkpoints.pickles import load_torch
from mmtimesformer.engine.configs import find_config
from mmtimesformer.engine.letters import STOPPED, run_job
from mmtimesformer.engine.resuming import latest_checkpoint

ROOT = Path(__file__).resolve().parents[1]
VIDEOS, BATCH = 320, 16
BROKEN = 3  # of the videos; another one takes the place of each
LARGEST_FILE = 300_000  # bytes on a full disk; the checkpoints have two million
CONFIG = """
_base_ = {base!r}
work_dir = None
custom_hooks = [dict(type='EMAHook', momentum=0.01)]
default_hooks = dict(
    logger=dict(interval=5),
    checkpoint=dict(
        by_epoch=False, interval=15, max_keep_ckpts=2, save_best='auto', retry_interval=10))
train_cfg = dict(max_epochs={epochs}, val_interval=5)
param_scheduler = [dict(type='CosineAnnealingLR', T_max={epochs}, convert_to_iter_based=True)]
randomness = dict(seed={seed}, deterministic=True)
metainfo = dict(classes='{data}/classes.txt')
train_dataloader = dict(
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='{data}/train.txt', data_prefix=dict(video='{data}/videos_train'),
                 metainfo=metainfo))
val_dataloader = dict(
    dataset=dict(ann_file='{data}/val.txt', data_prefix=dict(video='{data}/videos_val'),
                 metainfo=metainfo))
test_dataloader = val_dataloader
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train under faults, and compare.')
    parser.add_argument('--minutes', type=float, default=3, help='of disturbed training, about')
    parser.add_argument('--pause', type=float, help='seconds between two faults, on average')
    parser.add_argument('--epochs', type=int, help='instead of as many as fit the minutes')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/soak'))
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parser.parse_args(argv)


class Training:
    """One training in a folder, started and started again.

    Args:
        config: Its config file.
        work_dir: Its folder; what it says goes to ``said.txt`` in it.
    """

    def __init__(self, config: Path, work_dir: Path) -> None:
        self.config, self.work_dir = config, work_dir
        self.process: subprocess.Popen | None = None
        work_dir.mkdir(parents=True, exist_ok=True)
        self.said = work_dir / 'said.txt'
        self.starts = 0

    def command(self) -> list[str]:
        """Return the command line, which is the same for the first start and every other."""
        return [
            sys.executable, str(ROOT / 'tools/train.py'), str(self.config), '--work-dir',
            str(self.work_dir), '--resume',
        ]  # fmt: skip

    def start(self) -> None:
        """Start it where it stopped."""
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        path = [str(ROOT), environment.get('PYTHONPATH', '')]
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, path))
        with self.said.open('a') as file:
            self.process = subprocess.Popen(
                self.command(), stdout=file, stderr=file, env=environment, start_new_session=True
            )
        self.starts += 1

    @property
    def pid(self) -> int:
        """The number of the running process."""
        assert self.process is not None
        return self.process.pid

    def runs(self) -> bool:
        """Whether it is not over."""
        return self.process is not None and self.process.poll() is None

    def trains(self, seconds: float = 120) -> bool:
        """Wait until it has taken steps since its last start; whether it came to that."""
        size = self.said.stat().st_size
        given_up = time.monotonic() + seconds
        while self.runs() and time.monotonic() < given_up:
            if b'Epoch(train)' in self.said.read_bytes()[size:]:
                return True
            time.sleep(0.2)
        return False

    def end(self, number: int = signal.SIGKILL, whole_group: bool = True) -> int:
        """Send a signal, and return the exit code that follows."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number) if whole_group else os.kill(self.pid, number)
        return self.process.wait(60)

    def loaders(self) -> list[int]:
        """List its data-loading processes."""
        children = Path(f'/proc/{self.pid}/task/{self.pid}/children')
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []


class Fire:
    """The faults, and what must follow each of them.

    Args:
        training: What is disturbed.
        lists: The annotation file of the training.
    """

    def __init__(self, training: Training, annotations: Path, chance: random.Random) -> None:
        self.training, self.annotations, self.chance = training, annotations, chance
        self.thrown: Counter[str] = Counter()
        self.slowest_stop = 0.0
        self.faults: list[Callable[[], None]] = [
            self.kill_a_loader,
            self.kill_everything,
            self.kill_the_main_process,
            self.ask_to_stop,
            self.damage_the_newest_checkpoint,
            self.take_the_list_of_videos_away,
            self.start_a_second_one,
            self.fill_the_disk,
        ]

    def throw(self, fault: Callable[[], None]) -> None:
        """Throw one, count it, and start again what it ended."""
        name = fault.__name__
        fault()
        self.thrown[name.replace('_', ' ')] += 1
        if not self.training.runs() and self.training.process.returncode != 0:  # type: ignore[union-attr]
            self.training.start()

    def kill_a_loader(self) -> None:
        """The training goes on by itself."""
        loaders = self.training.loaders()
        if loaders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(loaders), signal.SIGKILL)

    def kill_everything(self) -> None:
        """As a machine does that goes down."""
        self.training.end()

    def kill_the_main_process(self) -> None:
        """As the system does when memory is out; the loaders must go with it."""
        loaders = self.training.loaders()
        self.training.end(whole_group=False)
        time.sleep(0.5)
        orphans = [pid for pid in loaders if _lives(pid)]
        check(not orphans, f'{orphans} live on without their parent')

    def ask_to_stop(self) -> None:
        """As a cluster does."""
        number = self.chance.choice([signal.SIGTERM, signal.SIGUSR1])
        began = time.monotonic()
        code = self.training.end(number)
        self.slowest_stop = max(self.slowest_stop, time.monotonic() - began)
        check(code in (STOPPED, 0), f'{number.name} ended the run with {code}, not {STOPPED}')
        check(time.monotonic() - began < 30, f'{number.name} took more than 30 s')

    def damage_the_newest_checkpoint(self) -> None:
        """While nothing runs, and only where there is one before it."""
        self.training.end()
        saved = [*self.training.work_dir.glob('iter_*.pth')]
        newest = Path(latest_checkpoint(self.training.work_dir) or '')
        (self.training.work_dir / '.iter_9.pth.x.part').write_bytes(b'half a file')
        if len(saved) > 1 and newest.is_file():
            content = newest.read_bytes()
            newest.write_bytes(content[: self.chance.randrange(len(content))])
            self.training.start()
            check(self.training.trains(), 'it did not start from the checkpoint before')
            check(
                f'{newest} is damaged' in self.training.said.read_text(),
                f'nothing was said of the damage to {newest}',
            )
            left = [*self.training.work_dir.glob('.*.part')]
            check(not any('.x.' in path.name for path in left), 'half a file was not swept up')

    def take_the_list_of_videos_away(self) -> None:
        """A start without it ends with a sentence; with it, all goes on."""
        self.training.end()
        away = self.annotations.with_suffix('.away')
        self.annotations.rename(away)
        self.training.start()
        code = self.training.process.wait(120)  # type: ignore[union-attr]
        away.rename(self.annotations)
        check(code == 1, f'a start without the list of videos ended with {code}')
        check('does not exist' in self.training.said.read_text(), 'the missing list is not told')

    def start_a_second_one(self) -> None:
        """It says so and ends, and the first one does not notice."""
        second = Training(self.training.config, self.training.work_dir)
        before = self.training.runs()
        second.start()
        code = second.process.wait(180)  # type: ignore[union-attr]
        if before and self.training.runs():
            check(code == 1, f'a second training in the folder ended with {code}')
            check('is in use: process' in self.training.said.read_text(), 'it did not say why')

    def fill_the_disk(self) -> None:
        """No file may grow above a size for a while, to which all checkpoints come."""
        _, hard = resource.prlimit(self.training.pid, resource.RLIMIT_FSIZE)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self.training.pid, resource.RLIMIT_FSIZE, (LARGEST_FILE, hard))
            time.sleep(self.chance.uniform(3, 10))
            resource.prlimit(self.training.pid, resource.RLIMIT_FSIZE, (hard, hard))


def soak(args: argparse.Namespace) -> None:
    """Train twice and compare.

    Raises:
        RuntimeError: Something did not follow a fault that should have, or the two differ.
    """
    out, chance = args.out.resolve(), random.Random(args.seed)
    shutil.rmtree(out, ignore_errors=True)
    data = write_data(out / 'data')
    epochs = args.epochs or fitting_epochs(out, data, args)
    config = write_config(out / 'soak.py', epochs, data, args.seed)

    say(f'undisturbed: {epochs} epochs')
    whole = Training(config, out / 'whole')
    began = time.monotonic()
    whole.start()
    code = whole.process.wait()  # type: ignore[union-attr]
    check(code == 0, f'the undisturbed training ended with {code}; see {whole.said}')
    quiet = time.monotonic() - began

    say('under fire')
    training = Training(config, out / 'disturbed')
    fire = Fire(training, data / 'train.txt', chance)
    pause = args.pause or min(60.0, 60 * args.minutes / 20)
    began = time.monotonic()
    queue: list[Callable[[], None]] = []
    training.start()
    while True:
        if training.trains():
            time.sleep(chance.uniform(0, 2 * pause))
        else:
            check(not training.runs(), f'no step in two minutes; see {training.said}')
        if not training.runs():
            code = training.process.returncode  # type: ignore[union-attr]
            check(code == 0, f'the disturbed training ended with {code}; see {training.said}')
            break
        queue = queue or chance.sample(fire.faults, len(fire.faults))  # each before one comes twice
        fault = queue.pop()
        print(f'{time.monotonic() - began:6.0f} s  {fault.__name__.replace("_", " ")}', flush=True)
        fire.throw(fault)
    under_fire = time.monotonic() - began

    steps = compare(out / 'whole', out / 'disturbed')
    told = {
        'faults': dict(fire.thrown),
        'starts': training.starts,
        'steps': steps,
        'seconds undisturbed': round(quiet),
        'seconds under fire': round(under_fire),
        'slowest stop in seconds': round(fire.slowest_stop, 1),
        'lost': 0,
    }
    (out / 'soak.json').write_text(json.dumps(told, indent=2) + '\n')
    say('the two trainings are the same to the last bit')
    print(json.dumps(told, indent=2))


def write_data(folder: Path) -> Path:
    """Write the videos, and break some."""
    subprocess.run(
        [
            sys.executable, str(ROOT / 'tools/data/moving_shapes.py'), '--out', str(folder),
            '--num-train', str(VIDEOS), '--num-val', '32',
        ],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    for video in sorted((folder / 'videos_train').glob('*.mp4'))[:BROKEN]:
        video.write_bytes(video.read_bytes()[:300])
    return folder


def write_config(path: Path, epochs: int, data: Path, seed: int) -> Path:
    """Write the config of a training over so many epochs."""
    base = str(find_config('timesformer_divST-tiny_moving-shapes'))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIG.format(base=base, epochs=epochs, seed=seed, data=data))
    return path


def fitting_epochs(out: Path, data: Path, args: argparse.Namespace) -> int:
    """Train two epochs, and say how many take half of the minutes."""
    pace = Training(write_config(out / 'pace.py', 2, data, args.seed), out / 'pace')
    pace.start()
    check(pace.process.wait() == 0, f'a training of two epochs failed; see {pace.said}')  # type: ignore[union-attr]
    times = [float(second) for second in re.findall(r' time: ([\d.]+) ', pace.said.read_text())]
    shutil.rmtree(out / 'pace')
    return max(4, round(args.minutes * 30 / (VIDEOS // BATCH * min(times))))


def compare(one: Path, other: Path) -> int:
    """Compare the last checkpoints of two trainings; return their number of steps.

    Raises:
        RuntimeError: They differ; the message says in what.
    """
    first, second = (load_torch(latest_checkpoint(folder) or '') for folder in (one, other))
    for saved in (first, second):
        saved['losses'] = saved['message_hub']['log_scalars']['train/loss'].log_history.tolist()
    for part in ('losses', 'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        where = difference(first[part], second[part], part)
        check(where is None, f'the two trainings differ in {where}')
    return len(first['losses'])


def difference(one: Any, other: Any, where: str) -> str | None:
    """Name the first place where two nests of numbers differ by a bit, if there is one."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = [(one[key], other[key], f'{where}.{key}') for key in one]
    elif isinstance(one, list | tuple) and len(one) == len(other):
        pairs = [(*pair, f'{where}[{i}]') for i, pair in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, torch.Tensor):
        return None if torch.equal(one, other) else where
    else:
        return None if one == other else where
    return next((found for pair in pairs if (found := difference(*pair))), None)


def _lives(pid: int) -> bool:
    try:
        return ' Z ' not in Path(f'/proc/{pid}/stat').read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def say(heading: str) -> None:
    """Print a heading."""
    print(f'\n── {heading}', flush=True)


def check(fine: bool, what: str) -> None:
    """Raise ``RuntimeError`` with ``what`` if it is not fine."""
    if not fine:
        raise RuntimeError(what)


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    return run_job(lambda: soak(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
