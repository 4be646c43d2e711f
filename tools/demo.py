"""Write Moving Shapes, train a tiny TimeSformer on it and test it: python tools/demo.py [options].

It runs the tools that anybody runs, prints their command lines, and can be stopped at any time: the
same command goes on where it stopped.
"""

import argparse
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmtimesformer.analysis.metrics import confusion_matrix
from mmtimesformer.analysis.predictions import read_predictions, top1
from mmtimesformer.analysis.test_results import read_test_results
from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import parse, whole_number
from mmtimesformer.config.find import find_config
from mmtimesformer.datasets.preparation.moving_shapes import CLASSES, MOTIONS, Settings
from mmtimesformer.engine.checkpointing.resume import latest_checkpoint
from mmtimesformer.engine.distributed.process_signals import die_with_parent
from mmtimesformer.fileio.atomic import write_json_atomically
from mmtimesformer.terminal import ArgumentParser, echo
from mmtimesformer.visualization import (
    SchemeResult,
    draw_confusion,
    draw_scheme_comparison,
    draw_training,
    read_training,
    write_report,
)

ROOT = Path(__file__).resolve().parents[1]
DATA = 'data/moving_shapes'  # as in the configs
SCHEMES = {'divST': 'divided', 'jointST': 'joint', 'spaceOnly': 'space only'}
PROMISE = 0.95  # top-1 of divided attention
BLIND = (50, 'blind to the order of frames: 50 %')  # a line in the training curve
CEILING = 0.55  # top-1 of space-only attention: half of the videos, and some room

# Two processes load videos; one thread of arithmetic beside them uses two cores best, and threads
# that wait for each other on a busy machine can take twice as long. Memory that glibc keeps from
# step to step, instead of handing it back, makes a step of so small a model a third shorter.
FASTER = {
    'OMP_NUM_THREADS': '1',
    'MALLOC_MMAP_THRESHOLD_': '2000000000',
    'MALLOC_TRIM_THRESHOLD_': '2000000000',
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(description='Train and test a tiny TimeSformer in minutes.')
    parser.add_argument(
        '--all-schemes', action='store_true', help='all three attention schemes, with a comparison'
    )
    parser.add_argument('--fresh', action='store_true', help='start anew, without what is there')
    parser.add_argument('--out', default='work_dirs/demo', help='folder of the results')
    parser.add_argument('--data', default=DATA, help='folder of the data set')
    parser.add_argument('--seed', type=whole_number(0), default=0, help='of the training')
    parser.add_argument(
        '--num-train', type=whole_number(1), default=Settings.num_train, help='videos'
    )
    parser.add_argument('--num-val', type=whole_number(1), default=Settings.num_val, help='videos')
    parser.add_argument('--epochs', type=whole_number(1), help="instead of the config's")
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def demo(args: argparse.Namespace) -> None:
    """Do everything that is not done yet, and say what came out.

    Raises:
        RuntimeError: A step failed, or a score is not what was promised.
    """
    began = time.monotonic()
    if args.fresh:
        shutil.rmtree(args.out, ignore_errors=True)
    say('Moving Shapes')
    call(
        'tools/data/moving_shapes.py', '--out', args.data,
        '--num-train', str(args.num_train), '--num-val', str(args.num_val),
    )  # fmt: skip
    schemes = list(SCHEMES) if args.all_schemes else ['divST']
    results = {scheme: train_and_test(scheme, args) for scheme in schemes}
    report(results, args, time.monotonic() - began)
    check_promises({scheme: result.top1 for scheme, result in results.items()})


def train_and_test(scheme: str, args: argparse.Namespace) -> SchemeResult:
    """Train and test one scheme in ``OUT/SCHEME``, going on from what is there."""
    config = find_config(f'timesformer_{scheme}-tiny_moving-shapes')
    out = Path(args.out) / scheme
    options = cfg_options(args)
    journal = Journal(out / 'demo.json', fingerprint(config, options, args))
    say(f'{SCHEMES[scheme]} attention')
    if 'result' in journal.notes:
        echo(f'{out} is finished; --fresh starts anew')
        return SchemeResult(**journal.notes['result'])

    before, started = journal.notes.get('seconds', 0), time.monotonic()
    call(
        'tools/train.py', config.name, '--work-dir', str(out), '--resume',
        '--seed', str(args.seed), *options,
        after_line=lambda: journal.note(seconds=before + time.monotonic() - started),
    )  # fmt: skip
    checkpoint = latest_checkpoint(out)
    if checkpoint is None:
        raise RuntimeError(f'the training left no checkpoint in {out}; {out}/*/*.log may say why')
    predictions = out / 'predictions.pkl'
    call(
        'tools/test.py', config.name, checkpoint, '--work-dir', str(out / 'test'),
        '--dump', str(predictions), *options,
    )  # fmt: skip

    scores, labels = read_predictions(predictions)
    guesses = scores.argmax(axis=1)
    axes = np.array([MOTIONS[name][0] for name in CLASSES])
    result = SchemeResult(
        name=SCHEMES[scheme],
        parameters=count_parameters(checkpoint),
        top1=top1(scores, labels),
        axis_top1=float((axes[guesses] == axes[labels]).mean()),
        seconds=journal.notes['seconds'],
    )
    title = f'Moving Shapes, {SCHEMES[scheme]} attention'
    counts = confusion_matrix(labels, guesses, len(CLASSES))
    draw_confusion(counts, CLASSES, out / 'confusion.png', title)
    draw_training(read_training(out), out / 'training.png', title, BLIND)
    write_report(read_test_results(out, predictions), out / 'report.html')
    journal.note(result=vars(result))
    return result


class Journal:
    """What the demo notes about one training, so that it can be stopped and gone on with.

    Args:
        path: The file.
        fingerprint: Of all that decides the outcome; notes of another one are not gone on with.

    Raises:
        ValueError: The notes are those of another training.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.notes: dict[str, Any] = {'fingerprint': fingerprint}
        if path.is_file():
            self.notes = json.loads(path.read_text())
        if self.notes['fingerprint'] != fingerprint:
            raise ValueError(
                f'{path.parent} was begun with another config, data set or seed; '
                '--fresh starts anew, --out names another folder'
            )
        self.note()

    def note(self, **notes: Any) -> None:
        """Add notes to the file."""
        self.notes.update(notes)
        write_json_atomically(self.path, self.notes)


def cfg_options(args: argparse.Namespace) -> list[str]:
    """Return the changes to the config that the demo's own options make, if any."""
    options = [f'train_cfg.max_epochs={args.epochs}'] if args.epochs else []
    if args.data != DATA:
        for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
            dataset = f'{loader}_dataloader.dataset'
            options.append(f'{dataset}.ann_file={args.data}/{split}.txt')
            options.append(f'{dataset}.data_prefix.video={args.data}/videos_{split}')
            options.append(f'{dataset}.metainfo.classes={args.data}/classes.txt')
    return ['--cfg-options', *options] if options else []


def fingerprint(config: Path, options: list[str], args: argparse.Namespace) -> str:
    """Tell trainings apart by all that decides their outcome."""
    text = Config.fromfile(config).dump()
    settings = Settings(args.num_train, args.num_val).recipe()
    return hashlib.sha256(repr((text, options, args.seed, settings)).encode()).hexdigest()


def count_parameters(checkpoint: str) -> int:
    """Count the weights of a whole model."""
    weights = load_torch(checkpoint)['state_dict']
    return sum(value.numel() for value in weights.values())


def call(tool: str, *arguments: str, after_line: Callable[[], object] = lambda: None) -> None:
    """Run a tool as a user would, and show its progress; do something after each line of it.

    Raises:
        RuntimeError: It failed; it has said why.
    """
    echo(f'$ python {tool} {shlex.join(arguments)}', flush=True)
    with subprocess.Popen(
        [sys.executable, str(ROOT / tool), *arguments],
        env={**FASTER, **os.environ},
        preexec_fn=functools.partial(die_with_parent, os.getpid()),
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        try:
            for line in process.stdout or ():
                show(line)
                after_line()
        except BaseException:  # nobody would go on reading what it says
            process.terminate()
            raise
    if process.returncode:
        raise RuntimeError(f'{tool} ended with code {process.returncode}')


def show(line: str) -> None:
    """Of MMEngine's log show how far it is, of anything else all."""
    if ' - mmengine - ' not in line:
        sys.stdout.write(line)  # colours of the tool's log included
        sys.stdout.flush()
    elif step := re.search(r'Epoch\(\w+\) +\S*\[ *\d+/\d+\]', line):
        numbers = re.findall(r' (eta|loss|acc/top1): (\S+)', line)
        echo(f'{step[0]:<30}', *(f'{name} {number:<10}' for name, number in numbers), flush=True)


def say(heading: str) -> None:
    """Print a heading."""
    echo(f'\n── {heading} {"─" * (76 - len(heading))}', flush=True)


def report(results: dict[str, SchemeResult], args: argparse.Namespace, seconds: float) -> None:
    """Print what came out, and where everything lies."""
    out = Path(args.out)
    say('results')
    echo(f'{"attention":<12}{"parameters":>12}{"top-1":>10}{"axis":>10}{"training":>12}')
    for result in results.values():
        echo(
            f'{result.name:<12}{result.parameters:>12,}{100 * result.top1:>8.2f} %'
            f'{100 * result.axis_top1:>8.2f} %{result.seconds:>10.0f} s'
        )
    echo(
        f'\ntested on {args.num_val} videos with three crops each; all of it took {seconds:.0f} s\n'
    )
    places = {'data set': args.data, 'a look at it': f'{args.data}/preview.png'}
    for scheme in results:
        places[f'{SCHEMES[scheme]}: logs, checkpoints'] = out / scheme
        places[f'{SCHEMES[scheme]}: predictions'] = out / scheme / 'predictions.pkl'
        places[f'{SCHEMES[scheme]}: confusion matrix'] = out / scheme / 'confusion.png'
        places[f'{SCHEMES[scheme]}: training curve'] = out / scheme / 'training.png'
        places[f'{SCHEMES[scheme]}: all of it, as a page'] = out / scheme / 'report.html'
    if len(results) > 1:
        picture = out / 'schemes.png'
        draw_scheme_comparison(
            list(results.values()), picture, 'Moving Shapes: only the order of frames tells it all'
        )
        places['the schemes compared'] = picture
    width = max(map(len, places)) + 2
    for name, place in places.items():
        echo(f'{name:<{width}}{place}')


def check_promises(scores: dict[str, float]) -> None:
    """Hold the scores against what the README promises.

    Raises:
        RuntimeError: One is not kept.
    """
    broken = []
    if scores.get('divST', 1) < PROMISE:
        broken.append(f'divided attention reached {scores["divST"]:.2%}, not {PROMISE:.0%}')
    if scores.get('spaceOnly', 0) > CEILING:
        broken.append(
            f'space-only attention reached {scores["spaceOnly"]:.2%}, above {CEILING:.0%}: '
            'something other than the order of frames gives the direction away'
        )
    if broken:
        raise RuntimeError('; '.join(broken))


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    return run_tool(lambda: demo(args), args.debug, resume_hint='the same command goes on')


if __name__ == '__main__':
    sys.exit(main())
