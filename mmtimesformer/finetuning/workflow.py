"""Fine-tune on your own videos, from their folder to a tested model, in steps that resume.

``OUT`` gets, in this order::

    data/         train.txt, val.txt, perhaps test.txt, classes.txt, left_out.csv
    config.py     a complete config, which tools/train.py takes
    …             logs and checkpoints of the training (or the probe)
    predictions.pkl, report.html
    model.pth     the model: weights, config and class names
    finetune.json arguments, and which steps are done
"""

import csv
import functools
import io
import os
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from mmtimesformer.cli import INTERRUPTED, STOPPED, RunStopped, flush_output
from mmtimesformer.datasets.preparation.reading import read_json
from mmtimesformer.engine.checkpointing.resume import latest_checkpoint
from mmtimesformer.engine.distributed.process_signals import die_with_parent
from mmtimesformer.fileio.atomic import (
    write_atomically,
    write_json_atomically,
    write_lines_atomically,
)
from mmtimesformer.finetuning.configs import (
    make_config,
    pretrained,
    scratch,
    set_interval,
    write_config,
)
from mmtimesformer.finetuning.inspection import Sizes, inspect_videos
from mmtimesformer.finetuning.recipes import PROBE, Start, TrainingPlan, choose
from mmtimesformer.finetuning.splitting import Divided, divide, find_groups
from mmtimesformer.finetuning.video_list import Item, VideoList, check_classes, read_video_list
from mmtimesformer.terminal import echo, echo_lines, safe_text

FOLDS = 5  # of the cross-validation of a probe
SHOWN = 5  # videos left out, on the terminal; left_out.csv has all
PACKAGE = Path(__file__).resolve().parents[2]
# As in tools/demo.py: one compute thread a process, and glibc keeps its memory between steps.
FASTER = {'MALLOC_MMAP_THRESHOLD_': '2000000000', 'MALLOC_TRIM_THRESHOLD_': '2000000000'}


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        videos: A folder with a folder per class, or a CSV file.
        out: Folder of the results.
        pretrained: Checkpoint to start from; ``None`` for random weights.
        recipe: ``'probe'``, ``'last-blocks'`` or ``'full'``; ``None`` for the choice by size.
        freeze: Number of blocks that are not trained.
        root: What paths in a CSV file are relative to.
        multi_label: Whether a video may have several labels, or none, in a CSV file.
        label_separator: Between labels in a cell of a CSV file.
        val: Fraction of the videos to validate on.
        test: Fraction of the videos to test on.
        flip: Whether to mirror half of the clips.
        epochs: Of the training.
        quick_check: Decode three frames of each video, instead of all.
        seed: Of split and training.
    """

    videos: Path
    out: Path
    pretrained: str | None = None
    recipe: str | None = None
    freeze: int | None = None
    root: Path | None = None
    multi_label: bool = False
    label_separator: str | None = None
    val: float = 0.2
    test: float = 0.0
    flip: bool | None = None
    epochs: int | None = None
    quick_check: bool = False
    seed: int = 0

    @classmethod
    def of(cls, args: Namespace) -> 'Options':
        """Take the options of a parsed command line."""
        values = {one.name: getattr(args, one.name) for one in fields(cls)}
        videos = values['videos']
        values['out'] = values['out'] or Path('work_dirs', 'finetune', videos.absolute().stem)
        return cls(**values)

    def plain(self) -> dict[str, Any]:
        """Return the options as plain values, paths in full, without the folder of the results."""
        return {
            one.name: str(value.absolute()) if isinstance(value, Path) else value
            for one in fields(self)
            if one.name != 'out'
            for value in [getattr(self, one.name)]
        }


class Journal:
    """Arguments and finished steps of a folder, in ``finetune.json``.

    Args:
        folder: The folder of the results.
        options: As :meth:`Options.plain` gives them.
        digest: Of the list of videos.

    Raises:
        ValueError: The folder was begun with other arguments or videos, or holds something else.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], digest: str) -> None:
        self.path = folder / 'finetune.json'
        self.notes: dict[str, Any] = {'options': dict(options), 'videos': digest, 'done': {}}
        if self.path.is_file():
            known = read_json(self.path, dict)
            _check_same(folder, known, self.notes)
            self.notes = known
        elif folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f'{folder} is not empty and has no finetune.json; set --out to another folder'
            )

    def step(self, name: str, run: Callable[[], Any]) -> Any:
        """Return the result of a step; run it if it is not done. Results are plain values."""
        if name not in self.notes['done']:
            self.notes['done'][name] = run()
            write_json_atomically(self.path, self.notes)
        return self.notes['done'][name]


def _check_same(folder: Path, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    before = known.get('options')
    if not isinstance(before, dict) or not isinstance(known.get('done'), dict):
        raise ValueError(f'{folder}/finetune.json is damaged; set --out to another folder')
    for key, value in wanted['options'].items():
        if before.get(key) != value:
            option = '--' + key.replace('_', '-') if key != 'videos' else 'VIDEOS'
            raise ValueError(
                f'{folder} was begun with {option} {before.get(key)}, and now it is {value}; give '
                'the same arguments to continue, or set --out to another folder'
            )
    if known.get('videos') != wanted['videos']:
        raise ValueError(
            f'the videos or labels in {before.get("videos")} have changed since {folder} was '
            'begun; set --out to another folder to train on them'
        )


def finetune(options: Options) -> Path:
    """Do every step that is not done, and return the path of the model.

    Raises:
        FileNotFoundError: Videos or checkpoint are not there.
        RuntimeError: Training or test failed; their output has the reason.
        RunStopped: It was asked to stop; the same command continues.
        ValueError: Videos, labels or options cannot be used.
    """
    videos = read_video_list(
        options.videos, options.root, options.multi_label, options.label_separator
    )
    _heading('videos')
    echo(f'{options.videos}: {_counts(videos.items, len(videos.classes))}')
    _show(videos.notes)
    journal = Journal(options.out, options.plain(), videos.digest())
    _refuse_early(videos, options)
    checked = journal.step('check', lambda: _check(videos, options))
    videos = videos.without(dict(checked['left_out']))
    check_classes(videos.items, options.videos)
    sizes = Sizes(**checked['sizes'])
    _show_left_out(videos, options.out)
    echo(
        f'typical video: {sizes.frames} frames, {sizes.fps:g} a second, short side '
        f'{sizes.short_side} pixels'
    )
    divided = divide(videos.items, options.val, options.test, options.seed)
    _heading('split')
    _show_split(divided)

    _heading('recipe')
    start = pretrained(options.pretrained) if options.pretrained else scratch(sizes)
    set_interval(start, sizes)
    plan = journal.step('plan', lambda: vars(_choose(start, divided, videos, options)))
    recipe = TrainingPlan(**plan)
    _show_recipe(start, recipe)
    lists = journal.step('lists', lambda: _write_lists(videos, divided, options.out))
    journal.step('config', lambda: _write_config(start, recipe, videos, lists, options))
    _heading(f'config: {options.out / "config.py"}')
    echo_lines((options.out / 'config.py').read_text(encoding='utf-8'))

    if recipe.kind == PROBE:
        checkpoint, dump = journal.step(
            'train', lambda: _probe(recipe, videos, divided, lists, options)
        )
    else:
        checkpoint = journal.step('train', lambda: _train(options))
        dump = journal.step('test', lambda: _test(checkpoint, options))
    journal.step('report', lambda: _report(dump, options.out))
    journal.step('model', lambda: _publish(checkpoint, options.out))
    _show_end(videos, divided, options.out, Path(dump) if recipe.balanced else None)
    return options.out / 'model.pth'


def _refuse_early(videos: VideoList, options: Options) -> None:
    """Refuse a split or a checkpoint that cannot be used before every video is decoded."""
    divide(videos.items, options.val, options.test, options.seed)
    if options.recipe in ('probe', 'last-blocks') and options.pretrained is None:
        raise ValueError(
            f'--recipe {options.recipe} freezes weights, and without --pretrained they are random; '
            'give --pretrained CHECKPOINT, or --recipe full'
        )
    if options.pretrained:
        pretrained(options.pretrained)


def _check(videos: VideoList, options: Options) -> dict[str, Any]:
    paths = [item.path for item in videos.items]
    sizes, bad = inspect_videos(videos.root, paths, os.cpu_count() or 1, options.quick_check)
    return {'sizes': vars(sizes), 'left_out': sorted(bad.items())}


def _choose(start: Start, divided: Divided, videos: VideoList, options: Options) -> TrainingPlan:
    return choose(
        start,
        len(divided.splits['train']),
        videos.classes,
        counts=Counter(name for item in divided.splits['train'] for name in item.labels),
        multi_label=videos.multi_label,
        recipe=options.recipe,
        freeze=options.freeze,
        flip=options.flip,
        epochs=options.epochs,
    )


def _write_lists(videos: VideoList, divided: Divided, out: Path) -> dict[str, str]:
    """Write annotation files as MMAction2's ``VideoDataset`` reads them; return their paths."""
    labels = {name: str(i) for i, name in enumerate(videos.classes)}
    sign = _delimiter(videos)
    files = {name: out / 'data' / f'{name}.txt' for name in [*divided.splits, 'classes']}
    for name, items in divided.splits.items():
        rows = [
            sign.join([item.path, *sorted((labels[n] for n in item.labels), key=int)])
            for item in items
        ]
        write_lines_atomically(files[name], rows)
    write_lines_atomically(files['classes'], videos.classes)
    return {name: str(path.absolute()) for name, path in files.items()}


def _delimiter(videos: VideoList) -> str:
    """Return the space, MMAction2's default; the tab where a name has a space."""
    return '\t' if any(' ' in item.path for item in videos.items) else ' '


def _write_config(
    start: Start,
    recipe: TrainingPlan,
    videos: VideoList,
    lists: Mapping[str, str],
    options: Options,
) -> None:
    config = make_config(
        start,
        recipe,
        data=lists,
        root=str(videos.root),
        delimiter=_delimiter(videos),
        num_classes=len(videos.classes),
        multi_label=videos.multi_label,
        work_dir=str(options.out.absolute()),
        seed=options.seed,
    )
    path = options.out / 'config.py'
    how = ''
    if recipe.kind == PROBE:
        how = 'finetune fits this classifier on stored features (python -m mmtimesformer probe).\n'
    heading = (
        f'{start.name}, on {options.videos.name}: recipe {recipe.kind}.\n\n{how}'
        f'Train:  python -m mmtimesformer train {path} --resume\n'
        f'Test:   python -m mmtimesformer test {path} CHECKPOINT\n'
        'Written by finetune.\n'
    )
    write_config(config, path, heading)


def _train(options: Options) -> str:
    _heading('training')
    config = str(options.out / 'config.py')
    call('train', config, '--work-dir', str(options.out), '--resume')
    best = sorted(options.out.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    checkpoint = str(best[-1]) if best else latest_checkpoint(options.out)
    if checkpoint is None:
        raise RuntimeError(f'the training wrote no checkpoint in {options.out}; see its log')
    return str(checkpoint)


def _test(checkpoint: str, options: Options) -> str:
    _heading('test')
    dump = options.out / 'predictions.pkl'
    call(
        'test', str(options.out / 'config.py'), checkpoint, '--work-dir',
        str(options.out / 'test'), '--dump', str(dump),
    )  # fmt: skip
    return str(dump)


def _probe(
    recipe: TrainingPlan,
    videos: VideoList,
    divided: Divided,
    lists: Mapping[str, str],
    options: Options,
) -> tuple[str, str]:
    from mmtimesformer.probing import run_probe

    _heading('probe on frozen features')
    groups, _, _ = find_groups(divided.splits['train'])
    folds = _folds(divided.splits['train'], groups)
    if not folds:
        echo('no cross-validation: the training videos of a class are all of one group')
    result = run_probe(
        str(options.pretrained),
        lists['train'],
        lists.get('test', lists['val']),
        out_dir=options.out,
        multi_label=videos.multi_label,
        class_weights='balanced' if recipe.balanced else None,
        class_names=videos.classes,
        groups=[groups[item.path] for item in divided.splits['train']],
        folds=folds,
        seed=options.seed,
        data_root=str(videos.root),
    )
    echo(', '.join(f'{name} {100 * value:.1f} %' for name, value in result.scores.items()))
    _show(result.notes)
    return str(result.checkpoint), str(result.dump)


def _folds(items: Sequence[Item], groups: Mapping[str, str]) -> int:
    """Return the folds of a probe; 0 where a class has no two groups of videos to divide."""
    pairs = {(label, groups[item.path]) for item in items for label in item.labels}
    least = min(Counter(label for label, _ in pairs).values())
    return FOLDS if least > 1 else 0


def _report(dump: str, out: Path) -> None:
    _heading('report')
    call('report', str(out), '--predictions', dump)


def _publish(checkpoint: str, out: Path) -> None:
    """Write the weights with config and class names, without the state of the training."""
    content = load_torch(checkpoint)
    with write_atomically(out / 'model.pth') as partial:
        torch.save({key: content[key] for key in ('meta', 'state_dict')}, partial)


def call(tool: str, *arguments: str) -> None:
    """Run a tool of this package in a process of its own.

    Raises:
        RuntimeError: It failed; the message is in its output.
        RunStopped: It was asked to stop.
    """
    paths = [str(PACKAGE), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**FASTER, **os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
    command = [sys.executable, '-m', 'mmtimesformer', tool, *arguments]
    with subprocess.Popen(
        command, env=environment, preexec_fn=functools.partial(die_with_parent, os.getpid())
    ) as process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            raise
    if code in (STOPPED, INTERRUPTED, 129, 143):
        raise RunStopped('stopped; the same command continues', code)
    if code:
        raise RuntimeError(f'{tool} ended with code {code}; its message is above')


def _heading(heading: str) -> None:
    echo_lines(f'\n── {safe_text(heading)} {"─" * max(0, 76 - len(heading))}')
    flush_output()


def _show(notes: Sequence[str]) -> None:
    for note in notes:
        echo(f'- {note}')


def _counts(items: Sequence[Item], classes: int) -> str:
    return f'{len(items):,} videos of {classes:,} classes'


def _show_left_out(videos: VideoList, out: Path) -> None:
    """Print and write the videos that are left out."""
    rows = io.StringIO()
    csv.writer(rows, lineterminator='\n').writerows([('path', 'reason'), *videos.left_out])
    lines = [safe_text(line) for line in rows.getvalue().splitlines()]
    write_lines_atomically(out / 'data' / 'left_out.csv', lines)
    for path, why in videos.left_out[:SHOWN]:
        echo(f'left out: {path}: {why}')
    if len(videos.left_out) > SHOWN:
        echo(f'… and {len(videos.left_out) - SHOWN:,} more in {out / "data" / "left_out.csv"}')


def _show_split(divided: Divided) -> None:
    echo(f'split {divided.rule}')
    for name, items in divided.splits.items():
        labels = {label for item in items for label in item.labels}
        echo(f'{name:<6}{_counts(items, len(labels))}')
    if 'test' not in divided.splits:
        echo('- no test split: the test is on val, which also chose the best checkpoint, so its '
             'score is a little too good; --test 0.2 sets videos aside')  # fmt: skip
    _show(divided.notes)


def _show_recipe(start: Start, recipe: TrainingPlan) -> None:
    echo(f'{recipe.kind}: {recipe.why}')
    echo(f'model: {start.name}')
    if recipe.kind != PROBE:
        frozen = f'{recipe.frozen} of {start.depth}' if recipe.frozen >= 0 else 'no'
        echo(
            f'{recipe.epochs} epochs, batches of {recipe.batch_size} videos, '
            f'{recipe.accumulate} a step, {frozen} blocks frozen, learning rate {recipe.lr:g}'
        )
    if start.interval:
        echo(f'frames of a clip are {start.interval} apart')
    notes = [*filter(None, [recipe.balanced]), *(recipe.notes if recipe.kind != PROBE else [])]
    _show([*start.notes, *notes])


def _show_end(videos: VideoList, divided: Divided, out: Path, dump: Path | None = None) -> None:
    """Print where the results are; of imbalanced classes the mean class accuracy of ``dump``."""
    part = divided.splits.get('test', divided.splits['val'])
    example = videos.root / part[0].path
    _heading('result')
    if dump and (mean := mean_class_accuracy(dump)) is not None:
        echo(f'mean class accuracy: {100 * mean:.1f} % (each class counts equally)')
    echo(f'report: {out / "report.html"}')
    echo(f'model:  {out / "model.pth"}')
    echo('from Python:')
    for line in python_lines(out / 'model.pth', example):
        echo(f'    {line}')


def mean_class_accuracy(dump: Path) -> float | None:
    """Return the mean class accuracy of a test, of which this is the dump; ``None`` without one."""
    scores = read_json(dump.with_suffix('.meta.json'), dict).get('scores', {})
    return scores.get('acc/mean1', scores.get('mean_class_accuracy'))


def python_lines(model: Path, video: Path) -> list[str]:
    """Return the three lines of Python that label a video."""
    return [
        'from mmtimesformer import VideoClassifier',
        f'clf = VideoClassifier(checkpoint={str(model)!r})',
        f'print(clf({str(video)!r}))',
    ]
