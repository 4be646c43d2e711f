"""Train and test a tiny TimeSformer on generated videos.

It runs the usual tools and prints their command lines. It can be stopped at any time: the same
command resumes.

Examples:
    mmtimesformer demo
    mmtimesformer demo --all-schemes
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
from typing import TYPE_CHECKING, Any

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, parse, whole_number
from mmtimesformer.fileio.atomic import write_json_atomically
from mmtimesformer.terminal import echo

if TYPE_CHECKING:
    from mmtimesformer.visualization import SchemeResult

ROOT = Path(__file__).resolve().parents[1]
DATA = 'data/moving_shapes'  # as in the configs
NUM_TRAIN, NUM_VAL = 1600, 400  # videos
SCHEMES = {'divST': 'divided', 'jointST': 'joint', 'spaceOnly': 'space only'}
EXPECTED = 0.95  # top-1 of divided attention
BLIND = (50, 'without frame order: 50 %')  # a line in the training curve
CEILING = 0.55  # top-1 of space-only attention: half of the videos, and some room

# One compute thread and two loading processes use two cores best; more threads can take twice as
# long on a busy machine. A step is a third shorter if glibc keeps its memory between steps.
FASTER = {
    'OMP_NUM_THREADS': '1',
    'MALLOC_MMAP_THRESHOLD_': '2000000000',
    'MALLOC_TRIM_THRESHOLD_': '2000000000',
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument(
        '--all-schemes', action='store_true', help='all three attention schemes, with a comparison'
    )
    parser.add_argument(
        '--fresh', dest='from_scratch', action='store_true', help='remove earlier results first'
    )
    parser.add_argument('--out', default='work_dirs/demo', help='folder of the results')
    parser.add_argument('--data', default=DATA, help='folder of the data set')
    parser.add_argument('--seed', type=whole_number(0), default=0, help='of the training')
    parser.add_argument('--num-train', type=whole_number(1), default=NUM_TRAIN, help='videos')
    parser.add_argument('--num-val', type=whole_number(1), default=NUM_VAL, help='videos')
    parser.add_argument('--epochs', type=whole_number(1), help="replaces the config's")
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def demo(args: argparse.Namespace) -> None:
    """Run every step that is not finished, and print the results.

    Raises:
        RuntimeError: A step failed, or a score is not as expected.
    """
    began = time.monotonic()
    if args.from_scratch:
        shutil.rmtree(args.out, ignore_errors=True)
    print_heading('Moving Shapes')
    call(
        'tools/data/moving_shapes.py', '--out', args.data,
        '--num-train', str(args.num_train), '--num-val', str(args.num_val),
    )  # fmt: skip
    schemes = list(SCHEMES) if args.all_schemes else ['divST']
    results = {scheme: train_and_test(scheme, args) for scheme in schemes}
    report(results, args, time.monotonic() - began)
    check_scores({scheme: result.top1 for scheme, result in results.items()})


def train_and_test(scheme: str, args: argparse.Namespace) -> 'SchemeResult':
    """Train and test one scheme in ``OUT/SCHEME``; resume what is there."""
    from mmtimesformer.config.find import find_config
    from mmtimesformer.engine.checkpointing.resume import latest_checkpoint
    from mmtimesformer.visualization import SchemeResult

    config = find_config(f'timesformer_{scheme}-tiny_moving-shapes')
    out = Path(args.out) / scheme
    options = cfg_options(args)
    journal = Journal(out / 'demo.json', fingerprint(config, options, args))
    print_heading(f'{SCHEMES[scheme]} attention')
    if 'result' in journal.notes:
        echo(f'{out} is finished; --fresh starts again')
        return SchemeResult(**journal.notes['result'])

    before, started = journal.notes.get('seconds', 0), time.monotonic()
    call(
        'tools/train.py', config.name, '--work-dir', str(out), '--resume',
        '--seed', str(args.seed), *options,
        after_line=lambda: journal.note(seconds=before + time.monotonic() - started),
    )  # fmt: skip
    checkpoint = latest_checkpoint(out)
    if checkpoint is None:
        raise RuntimeError(f'the training wrote no checkpoint in {out}; see {out}/*/*.log')
    predictions = out / 'predictions.pkl'
    call(
        'tools/test.py', config.name, checkpoint, '--work-dir', str(out / 'test'),
        '--dump', str(predictions), *options,
    )  # fmt: skip
    result = draw_results(scheme, out, journal.notes['seconds'], checkpoint)
    journal.note(result=vars(result))
    return result


def draw_results(scheme: str, out: Path, seconds: float, checkpoint: str) -> 'SchemeResult':
    """Compute the scores of a tested scheme, and write its pictures and report."""
    import numpy as np

    from mmtimesformer.analysis.metrics import confusion_matrix
    from mmtimesformer.analysis.predictions import read_predictions, top1
    from mmtimesformer.analysis.test_results import read_test_results
    from mmtimesformer.datasets.preparation.moving_shapes import CLASSES, MOTIONS
    from mmtimesformer.visualization import (
        SchemeResult,
        draw_confusion,
        draw_training,
        read_training,
        write_report,
    )

    predictions = out / 'predictions.pkl'
    scores, labels = read_predictions(predictions)
    guesses = scores.argmax(axis=1)
    axes = np.array([MOTIONS[name][0] for name in CLASSES])
    result = SchemeResult(
        name=SCHEMES[scheme],
        parameters=count_parameters(checkpoint),
        top1=top1(scores, labels),
        axis_top1=float((axes[guesses] == axes[labels]).mean()),
        seconds=seconds,
    )
    title = f'Moving Shapes, {SCHEMES[scheme]} attention'
    counts = confusion_matrix(labels, guesses, len(CLASSES))
    draw_confusion(counts, CLASSES, out / 'confusion.png', title)
    draw_training(read_training(out), out / 'training.png', title, BLIND)
    write_report(read_test_results(out, predictions), out / 'report.html')
    return result


class Journal:
    """The progress of one training in a file, so that the demo can resume.

    Args:
        path: The file.
        fingerprint: Of config, data set and seed.

    Raises:
        ValueError: The file is of another fingerprint.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.notes: dict[str, Any] = {'fingerprint': fingerprint}
        if path.is_file():
            self.notes = json.loads(path.read_text())
        if self.notes['fingerprint'] != fingerprint:
            raise ValueError(
                f'{path.parent} was started with another config, data set or seed; '
                '--fresh starts again, --out sets another folder'
            )
        self.note()

    def note(self, **notes: Any) -> None:
        """Add notes to the file."""
        self.notes.update(notes)
        write_json_atomically(self.path, self.notes)


def cfg_options(args: argparse.Namespace) -> list[str]:
    """Return the --cfg-options for the demo's own options, if any."""
    options = [f'train_cfg.max_epochs={args.epochs}'] if args.epochs else []
    if args.data != DATA:
        for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
            dataset = f'{loader}_dataloader.dataset'
            options.append(f'{dataset}.ann_file={args.data}/{split}.txt')
            options.append(f'{dataset}.data_prefix.video={args.data}/videos_{split}')
            options.append(f'{dataset}.metainfo.classes={args.data}/classes.txt')
    return ['--cfg-options', *options] if options else []


def fingerprint(config: Path, options: list[str], args: argparse.Namespace) -> str:
    """Return a hash of all that decides the outcome of a training."""
    from mmengine.config import Config

    from mmtimesformer.datasets.preparation.moving_shapes import Settings

    text = Config.fromfile(config).dump()
    settings = Settings(args.num_train, args.num_val).recipe()
    return hashlib.sha256(repr((text, options, args.seed, settings)).encode()).hexdigest()


def count_parameters(checkpoint: str) -> int:
    """Count the weights of a whole model."""
    from mmtimesformer.checkpoints.torch_checkpoints import load_torch

    weights = load_torch(checkpoint)['state_dict']
    return sum(value.numel() for value in weights.values())


def call(tool: str, *arguments: str, after_line: Callable[[], object] = lambda: None) -> None:
    """Run a tool, and show its progress; call ``after_line`` after each line of output.

    Raises:
        RuntimeError: It failed; the message is in its output.
    """
    from mmtimesformer.engine.distributed.process_signals import die_with_parent

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
        except BaseException:  # nothing reads its output any more
            process.terminate()
            raise
    if process.returncode:
        raise RuntimeError(f'{tool} ended with code {process.returncode}')


def show(line: str) -> None:
    """Show the progress in MMEngine's log, and every other line."""
    if ' - mmengine - ' not in line:
        sys.stdout.write(line)  # colours of the tool's log included
        sys.stdout.flush()
    elif step := re.search(r'Epoch\(\w+\) +\S*\[ *\d+/\d+\]', line):
        numbers = re.findall(r' (eta|loss|acc/top1): (\S+)', line)
        echo(f'{step[0]:<30}', *(f'{name} {number:<10}' for name, number in numbers), flush=True)


def print_heading(heading: str) -> None:
    """Print a heading."""
    echo(f'\n── {heading} {"─" * (76 - len(heading))}', flush=True)


def report(results: 'dict[str, SchemeResult]', args: argparse.Namespace, seconds: float) -> None:
    """Print the scores and the paths of all results."""
    out = Path(args.out)
    print_heading('results')
    echo(f'{"attention":<12}{"parameters":>12}{"top-1":>10}{"axis":>10}{"training":>12}')
    for result in results.values():
        echo(
            f'{result.name:<12}{result.parameters:>12,}{100 * result.top1:>8.2f} %'
            f'{100 * result.axis_top1:>8.2f} %{result.seconds:>10.0f} s'
        )
    echo(
        f'\ntested on {args.num_val} videos with three crops each, in {seconds:.0f} s altogether\n'
    )
    places = {'data set': args.data, 'preview': f'{args.data}/preview.png'}
    for scheme in results:
        places[f'{SCHEMES[scheme]}: logs, checkpoints'] = out / scheme
        places[f'{SCHEMES[scheme]}: predictions'] = out / scheme / 'predictions.pkl'
        places[f'{SCHEMES[scheme]}: confusion matrix'] = out / scheme / 'confusion.png'
        places[f'{SCHEMES[scheme]}: training curve'] = out / scheme / 'training.png'
        places[f'{SCHEMES[scheme]}: report'] = out / scheme / 'report.html'
    if len(results) > 1:
        from mmtimesformer.visualization import draw_scheme_comparison

        picture = out / 'schemes.png'
        draw_scheme_comparison(
            list(results.values()),
            picture,
            'Moving Shapes: the direction needs the order of frames',
        )
        places['comparison of schemes'] = picture
    width = max(map(len, places)) + 2
    for name, place in places.items():
        echo(f'{name:<{width}}{place}')


def check_scores(scores: dict[str, float]) -> None:
    """Check the scores that the README promises.

    Raises:
        RuntimeError: A score is not as promised.
    """
    broken = []
    if scores.get('divST', 1) < EXPECTED:
        broken.append(f'divided attention reached {scores["divST"]:.2%}, below {EXPECTED:.0%}')
    if scores.get('spaceOnly', 0) > CEILING:
        broken.append(
            f'space-only attention reached {scores["spaceOnly"]:.2%}, above {CEILING:.0%}: '
            'the direction must not be visible without the order of frames'
        )
    if broken:
        raise RuntimeError('; '.join(broken))


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_args(argv)
    return run_tool(lambda: demo(args), args.debug, resume_hint='the same command resumes')


if __name__ == '__main__':
    sys.exit(main())
