"""A training under faults: python benchmarks/soak.py --minutes 3, or 60.

A tiny TimeSformer learns Moving Shapes, of which a few videos are broken, once undisturbed and once
with faults thrown at it at random, until both are done. Then the two are compared, to the last bit:
weights, moving average, optimiser, schedulers, the loss of every step and all scores.

    python benchmarks/soak.py --minutes 4      # each fault once or twice
    python benchmarks/soak.py --minutes 60     # the hour in docs/reliability.md

``--minutes`` is the length of the disturbed training, roughly: faults come faster while it is ahead
of its time. The undisturbed one goes before it and takes about half as long. The same seed throws
the same faults, though not at the same step.
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

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from mmtimesformer.cli import INTERRUPTED, STOPPED, run_tool
from mmtimesformer.config.find import find_config
from mmtimesformer.engine.checkpointing.atomic_backend import PARTIAL
from mmtimesformer.engine.checkpointing.resume import latest_checkpoint, latest_valid_checkpoint

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
    parser.add_argument('--minutes', type=float, default=4, help='of disturbed training, about')
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
        work_dir: Its folder.
        name: The output of each start goes to ``output_NAME_NUMBER.txt`` next to that folder.
    """

    def __init__(self, config: Path, work_dir: Path, name: str) -> None:
        self.config, self.work_dir, self.name = config, work_dir, name
        self.process: subprocess.Popen | None = None
        work_dir.mkdir(parents=True, exist_ok=True)
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
        self.starts += 1
        with self.output.open('w') as file:
            self.process = subprocess.Popen(
                self.command(), stdout=file, stderr=file, env=environment, start_new_session=True
            )

    @property
    def output(self) -> Path:
        """The output since its last start."""
        return self.work_dir.parent / f'output_{self.name}_{self.starts:03}.txt'

    @property
    def code(self) -> int | None:
        """The exit code, or ``None`` while it runs."""
        assert self.process is not None
        return self.process.poll()

    def prints(self, words: str, seconds: float = 120, since: int = 0) -> bool:
        """Wait until its output has these words; return whether it came to that."""
        given_up = time.monotonic() + seconds
        while words not in self.output.read_text()[since:]:
            if self.code is not None or time.monotonic() > given_up:
                return words in self.output.read_text()[since:]
            time.sleep(0.2)
        return True

    def trains(self) -> bool:
        """Wait until it has taken more steps; whether it came to that."""
        return self.prints('Epoch(train)', since=len(self.output.read_text()))

    def end(self, number: int = signal.SIGKILL, whole_group: bool = True) -> int:
        """Send a signal, and return the exit code that follows."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            send = os.killpg if whole_group else os.kill
            send(self.process.pid, number)
        return self.process.wait(60)

    def loaders(self) -> list[int]:
        """List its data-loading processes."""
        assert self.process is not None
        children = Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children')
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def steps(self) -> int:
        """How many steps are saved."""
        numbers = [path.stem.removeprefix('iter_') for path in self.work_dir.glob('iter_*.pth')]
        return max(map(int, numbers), default=0)

    def half_files(self) -> list[Path]:
        """List the files it is writing, or was when it was killed."""
        return [*self.work_dir.glob(PARTIAL)]


class Faults:
    """The faults, and what must follow each of them.

    Each fault tells whether it struck: a loader may be gone before it can be killed, and a training
    be done before it can be stopped.

    Args:
        training: What is disturbed.
        annotations: The annotation file of the training.
        chance: Where random numbers come from.
    """

    def __init__(self, training: Training, annotations: Path, chance: random.Random) -> None:
        self.training, self.annotations, self.chance = training, annotations, chance
        self.slowest_stop = 0.0
        self.faults: list[Callable[[], bool]] = [
            self.kill_a_loader,
            self.kill_everything,
            self.kill_while_it_saves,
            self.kill_the_main_process,
            self.ask_to_stop,
            self.press_ctrl_c,
            self.damage_the_newest_checkpoint,
            self.take_the_list_of_videos_away,
            self.start_a_second_one,
            self.fill_the_disk,
        ]
        self.struck: Counter[str] = Counter({_name(fault): 0 for fault in self.faults})

    def cause(self, fault: Callable[[], bool]) -> None:
        """Throw one, count it if it struck, and start again what it ended."""
        self.struck[_name(fault)] += fault()
        if self.training.code not in (None, 0):
            self.start_again()

    def start_again(self) -> None:
        """It must go on from the newest checkpoint, and sweep up what is half written."""
        newest = latest_valid_checkpoint(self.training.work_dir, lambda _: None)
        half = self.training.half_files()
        self.training.start()
        if newest is not None:
            resumes = self.training.prints(f'Resumes from {newest}.')
            check(resumes, f'it did not resume from {newest}; see {self.training.output}')
        check(self.trains_or_is_done(), f'it took no step; see {self.training.output}')
        left = {*half} & {*self.training.half_files()}
        check(not left, f'{left} was not swept up')

    def trains_or_is_done(self) -> bool:
        """Whether it takes steps, or has taken its last."""
        return self.training.trains() or self.training.code == 0

    def kill_a_loader(self) -> bool:
        """The training goes on by itself."""
        loaders, since = self.training.loaders(), len(self.training.output.read_text())
        if not loaders:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.chance.choice(loaders), signal.SIGKILL)
        check(self.trains_or_is_done(), f'it did not continue; see {self.training.output}')
        return 'DataLoader workers are restarted' in self.training.output.read_text()[since:]

    def kill_everything(self) -> bool:
        """As a machine does that goes down."""
        return self.training.end() == -signal.SIGKILL

    def kill_while_it_saves(self) -> bool:
        """With half a file on the disk."""
        given_up = time.monotonic() + 30
        while not self.training.half_files() and time.monotonic() < given_up:
            pass
        return self.training.end() == -signal.SIGKILL and bool(self.training.half_files())

    def kill_the_main_process(self) -> bool:
        """As the system does when memory is out; the loaders must go with it."""
        loaders = self.training.loaders()
        code = self.training.end(whole_group=False)
        time.sleep(0.5)
        orphans = [pid for pid in loaders if _lives(pid)]
        check(not orphans, f'{orphans} live on without their parent')
        return code == -signal.SIGKILL

    def ask_to_stop(self) -> bool:
        """As a cluster does."""
        number = self.chance.choice([signal.SIGTERM, signal.SIGUSR1])
        began = time.monotonic()
        code = self.training.end(number)
        seconds = time.monotonic() - began
        check(code in (STOPPED, 0), f'{number.name} ended the run with {code}, not {STOPPED}')
        check(seconds < 30, f'{number.name} took {seconds:.0f} s')
        self.slowest_stop = max(self.slowest_stop, seconds)
        return code == STOPPED and 'all is saved' in self.training.output.read_text()

    def press_ctrl_c(self) -> bool:
        """As a person does."""
        code = self.training.end(signal.SIGINT)
        check(code in (INTERRUPTED, 0), f'Ctrl-C ended the run with {code}, not {INTERRUPTED}')
        return code == INTERRUPTED

    def damage_the_newest_checkpoint(self) -> bool:
        """While nothing runs, and only where there is one before it."""
        self.training.end()
        newest = latest_checkpoint(self.training.work_dir)
        others = [path for path in self.training.work_dir.glob('iter_*.pth') if str(path) != newest]
        if newest is None or not others:
            return False
        content = Path(newest).read_bytes()
        Path(newest).write_bytes(content[: self.chance.randrange(len(content))])
        self.training.start()
        check(self.training.prints(f'{newest} is damaged'), f'no message on {newest}')
        resumes = self.training.prints('Resumes from') and self.trains_or_is_done()
        check(resumes, f'it did not start from the checkpoint before; see {self.training.output}')
        return True

    def take_the_list_of_videos_away(self) -> bool:
        """A start without it ends with a sentence; with it, all goes on."""
        self.training.end()
        away = self.annotations.rename(self.annotations.with_suffix('.away'))
        try:
            self.training.start()
            code = self.training.process.wait(120)  # type: ignore[union-attr]
        finally:
            away.rename(self.annotations)
        check(code == 1, f'a start without the list of videos ended with {code}')
        check(
            'does not exist' in self.training.output.read_text(), 'the missing list is not reported'
        )
        return True

    def start_a_second_one(self) -> bool:
        """It logs so and ends, and the first one does not notice."""
        name = f'second_{self.struck[_name(self.start_a_second_one)] + 1}'
        second = Training(self.training.config, self.training.work_dir, name)
        second.start()
        code = second.process.wait(180)  # type: ignore[union-attr]
        if self.training.code is not None:
            return False
        check(code == 1, f'a second training in the folder ended with {code}')
        check('is in use: process' in second.output.read_text(), 'it gave no reason')
        return True

    def fill_the_disk(self) -> bool:
        """No file may grow above a size for a while, to which all checkpoints come."""
        assert self.training.process is not None
        pid, since = self.training.process.pid, len(self.training.output.read_text())
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (LARGEST_FILE, hard))
            reported = self.training.prints('could not be written', 60, since)
            time.sleep(self.chance.uniform(0, 5))
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            return reported
        return False


def _name(fault: Callable[[], bool]) -> str:
    return fault.__name__.replace('_', ' ')


def soak(args: argparse.Namespace) -> None:
    """Train twice and compare.

    Raises:
        RuntimeError: Something did not follow a fault that should have, a fault never struck, or
            the two differ.
    """
    out, chance = args.out.resolve(), random.Random(args.seed)
    if out.is_dir() and any(out.iterdir()) and not (out / 'soak.py').is_file():
        raise ValueError(f'{out} holds other things, and would be emptied; give --out a new folder')
    shutil.rmtree(out, ignore_errors=True)
    data = write_data(out / 'data')
    pause = args.pause or min(30.0, 60 * args.minutes / 20)
    epochs = args.epochs or fitting_epochs(out, data, args)
    config = write_config(out / 'soak.py', epochs, data, args.seed)
    whole = Training(config, out / 'whole', 'whole')
    training = Training(config, out / 'disturbed', 'disturbed')
    try:
        print_heading(f'undisturbed: {epochs} epochs')
        began = time.monotonic()
        whole.start()
        code = whole.process.wait()  # type: ignore[union-attr]
        check(code == 0, f'the undisturbed training ended with {code}; see {whole.output}')
        quiet = time.monotonic() - began

        print_heading('under fire')
        faults = Faults(training, data / 'train.txt', chance)
        began = time.monotonic()
        inject(faults, pause, epochs * VIDEOS // BATCH / (60 * args.minutes))
        under_faults = time.monotonic() - began
    finally:
        for one in (whole, training):
            if one.process is not None:
                one.end()

    steps = compare(out / 'whole', out / 'disturbed')
    check(steps == epochs * VIDEOS // BATCH, f'{steps} steps are not {epochs} epochs')
    spared = [name for name, times in faults.struck.items() if not times]
    check(not spared, f'the training was over before it came to: {", ".join(spared)}')
    summary = {
        'faults': dict(faults.struck),
        'starts': training.starts,
        'steps': steps,
        'seconds undisturbed': round(quiet),
        'seconds under faults': round(under_faults),
        'slowest stop in seconds': round(faults.slowest_stop, 1),
    }
    (out / 'soak.json').write_text(json.dumps(summary, indent=2) + '\n')
    print_heading('the two trainings are the same to the last bit')
    print(json.dumps(summary, indent=2))


def inject(faults: Faults, pause: float, pace: float) -> None:
    """Throw faults at a training until it is done.

    Args:
        faults: The faults.
        pause: Seconds between two faults, on average.
        pace: Steps in a second above which the pauses are a tenth.
    """
    training, began = faults.training, time.monotonic()
    queue: list[Callable[[], bool]] = []
    training.start()
    while training.trains():
        is_ahead = training.steps() > pace * (time.monotonic() - began)
        time.sleep(faults.chance.uniform(0, 2 * pause) / (10 if is_ahead else 1))
        if training.code is not None:
            break
        # Each comes before one comes twice.
        queue = queue or faults.chance.sample(faults.faults, len(faults.faults))
        fault = queue.pop()
        print(f'{time.monotonic() - began:6.0f} s  {_name(fault)}', flush=True)
        faults.cause(fault)
    check(training.code is not None, f'no step in two minutes; see {training.output}')
    check(training.code == 0, f'it ended with {training.code}; see {training.output}')


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
    """Train two epochs, and return how many take half of the minutes."""
    pace = Training(write_config(out / 'pace.py', 2, data, args.seed), out / 'pace', 'pace')
    pace.start()
    check(pace.process.wait() == 0, f'a training of two epochs failed; see {pace.output}')  # type: ignore[union-attr]
    times = [float(second) for second in re.findall(r' time: ([\d.]+) ', pace.output.read_text())]
    shutil.rmtree(out / 'pace')
    return max(4, round(30 * args.minutes / (VIDEOS // BATCH * min(times))))


def compare(one: Path, other: Path) -> int:
    """Compare the last checkpoints of two trainings; return their number of steps.

    Raises:
        RuntimeError: They differ; the message states in what.
    """
    first, second = (load_torch(latest_checkpoint(folder) or '') for folder in (one, other))
    for saved in (first, second):
        saved['curves'] = {
            name: curve.log_history.tolist()
            for name, curve in saved['message_hub']['log_scalars'].items()
            if not name.endswith(('time', 'memory'))
        }
    for name, curve in first['curves'].items():
        # The last checkpoint is saved before the last validation, or after it if the disk is full.
        other_curve = second['curves'].get(name, [])
        if name.startswith('val/') and abs(len(curve) - len(other_curve)) == 1:
            del curve[len(other_curve) :], other_curve[len(curve) :]
    for part in ('curves', 'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        where = difference(first[part], second[part], part)
        check(where is None, f'the two trainings differ in {where}')
    for folder in (one, other):
        bad = (folder / 'bad_videos.jsonl').read_text().splitlines()
        check(len(bad) == BROKEN, f'{folder} lists {len(bad)} broken videos, not {BROKEN}')
    return len(first['curves']['train/loss'])


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


def print_heading(heading: str) -> None:
    """Print a heading."""
    print(f'\n── {heading}', flush=True)


def check(fine: bool, what: str) -> None:
    """Raise ``RuntimeError`` with ``what`` if it is not fine."""
    if not fine:
        raise RuntimeError(what)


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    # What a shell starts in the background ignores Ctrl-C, and so would what it starts in turn.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_tool(lambda: soak(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
