"""List your own videos, from class folders or a CSV, with a reproducible split."""

import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from mmtimesformer.datasets.preparation.finding import walk_videos
from mmtimesformer.datasets.preparation.listing import DataSet, Listed, Split, unwritable
from mmtimesformer.datasets.preparation.reading import read_lines, read_rows

#: What a folder or a CSV may call a split.
SPLITS = {
    'train': 'train',
    'training': 'train',
    'val': 'val',
    'valid': 'val',
    'validation': 'val',
    'test': 'test',
    'testing': 'test',
}


def read_own_data(
    videos: Path,
    table: Path | None = None,
    fractions: Mapping[str, float | None] | None = None,
    seed: int = 0,
    classes: Path | None = None,
    multi_label: bool = False,
) -> DataSet:
    """List the videos of a folder per class, or those that a CSV names.

    Below ``videos`` are either class folders, or folders ``train``, ``val`` (and ``test``) of class
    folders. A CSV has the columns path (relative to ``videos``), label, and, if the split is to be
    one's own, split.

    Args:
        videos: Folder of the videos.
        table: CSV file, with or without a heading.
        fractions: What :func:`split_by_class` takes from the training videos, for splits not
            given by folders or a CSV. A fifth is for ``val`` by default.
        seed: Of the split.
        classes: File of class names in the order of the labels. Without it the order is that of the
            alphabet, or of the numbers where all labels are whole numbers.
        multi_label: Whether a video may have several classes, or none, in the CSV: its label column
            holds names split by ``;``, and a video may stand in several lines. Each combination of
            classes is then divided between the splits as a class is otherwise.

    Raises:
        ValueError: A video has no class, or an unknown one or split, or two classes where it may
            have one.
    """
    if multi_label and table is None:
        raise ValueError('a class folder gives a video one label; for several give --csv')
    given = _read_table(table, videos, multi_label) if table else _read_folders(videos)
    texts = {label for split in given.values() for label in split.values()}
    names = {name for text in texts for name in _split(text)} if multi_label else texts
    ordered = read_lines(classes, 'correct --classes') if classes else in_label_order(names)
    labels = {name: i for i, name in enumerate(ordered)}
    left_out = [
        (file, why) for part in given.values() for file in part if (why := unwritable(file))
    ]
    for file, _ in left_out:
        for part in given.values():
            part.pop(file, None)
    if names - labels.keys():
        raise ValueError(
            f'the class {min(names - labels.keys())!r} is not in {classes}; correct --classes'
        )
    wanted = {
        split: fraction for split, fraction in (fractions or {}).items() if fraction is not None
    }
    for split in wanted:
        if split in given:
            raise ValueError(f'split {split} is given by your data; leave --{split} out')
    if 'val' not in given:
        wanted.setdefault('val', 0.2)
    divided = split_by_class(given['train'], wanted, seed)
    files = {
        name: {video: given['train'][video] for video in part} for name, part in divided.items()
    }
    files |= {name: part for name, part in given.items() if name != 'train'}

    def numbers(text: str) -> int | tuple[int, ...]:
        return tuple(sorted(labels[n] for n in _split(text))) if multi_label else labels[text]

    splits = {
        name: Split(
            f'{name}.txt',
            videos,
            [Listed((file,), numbers(part[file])) for file in part],
            'the folder',
        )
        for name, part in files.items()
    }
    sources = [file for file in (table, classes) if file]
    return DataSet(videos.name or 'own data', ordered, splits, sources, left_out=left_out)


def split_by_class(
    labels: Mapping[str, str], fractions: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """Divide videos so that each class is divided by the same fractions.

    A class is shuffled by itself, with a seed made of ``seed`` and its name: a new video in another
    class moves no video of this one. The rest goes to ``train``, which gets at least
    one video of each class; then each fraction gets at least one, as long as there are any.

    Args:
        labels: Video → name of its class.
        fractions: Split → part of the videos, between 0 and 1; together below 1.
        seed: Another seed is another split.

    Returns:
        ``'train'`` and each split of ``fractions`` → its videos, in the order of their names.
    """
    if any(not 0 < fraction < 1 for fraction in fractions.values()) or sum(fractions.values()) >= 1:
        raise ValueError(
            f'the fractions {dict(fractions)} are wrong: each lies between 0 and 1, and together '
            'they leave something to train on'
        )
    by_class: dict[str, list[str]] = defaultdict(list)
    for video in sorted(labels):
        by_class[labels[video]].append(video)
    splits: dict[str, list[str]] = {'train': [], **{name: [] for name in fractions}}
    for name, videos in by_class.items():
        random.Random(f'{seed}/{name}').shuffle(videos)
        total = len(videos)
        for split, fraction in fractions.items():
            number = min(max(1, round(fraction * total)), len(videos) - 1)
            splits[split] += videos[:number]
            del videos[:number]
        splits['train'] += videos
    return {name: sorted(videos) for name, videos in splits.items()}


def _read_folders(videos: Path) -> dict[str, dict[str, str]]:
    """Return split → file → class."""
    found = {file: file.split('/')[:-1] for file, _ in walk_videos(videos)}
    for file, folders in found.items():
        if not folders:
            raise ValueError(
                f'{videos / file} lies in no class folder; move it into one, or name its class '
                'with --csv'
            )
    if not found:
        raise FileNotFoundError(
            f'there is no video below {videos}; give the folder of your classes'
        )
    tops = {folders[0] for folders in found.values()}
    if not ('train' in tops and tops <= SPLITS.keys()):
        return {'train': {file: folders[0] for file, folders in found.items()}}
    given: dict[str, dict[str, str]] = defaultdict(dict)
    for file, folders in found.items():
        if len(folders) < 2:
            raise ValueError(f'{videos / file} lies in no class folder; move it into one')
        given[SPLITS[folders[0]]][file] = folders[1]
    return dict(given)


def _read_table(table: Path, videos: Path, multi_label: bool) -> dict[str, dict[str, str]]:
    """Return split → file → class; or classes, split by ``;`` and in order."""
    given: dict[str, dict[str, str]] = defaultdict(dict)
    for path, label, *rest in read_rows(table, (2, 3)):
        split = rest[0].lower() if rest else 'train'
        if split not in SPLITS:
            raise ValueError(
                f'{table}: {path} is of split {rest[0]!r}; the third column is train, val or test'
            )
        if not label and not multi_label:
            raise ValueError(f'{table}: {path} has no label; write one, or take the line out')
        file = Path(path)
        if file.is_absolute() and file.is_relative_to(videos.absolute()):
            file = file.relative_to(videos.absolute())
        part, name = given[SPLITS[split]], file.as_posix()
        if multi_label:
            part[name] = ';'.join(sorted({*_split(part.get(name, '')), *_split(label)}))
        elif part.setdefault(name, label) != label:
            raise ValueError(
                f'{table}: {path} has the labels {part[name]!r} and {label!r}; take one line out, '
                'or give --multi-label if a video may have several labels'
            )
    if 'train' not in given:
        raise ValueError(f'{table} names no video to train on; give lines of split train')
    return dict(given)


def _split(text: str) -> list[str]:
    """Return the names of classes in a cell of a CSV."""
    return [name.strip() for name in text.split(';') if name.strip()]


def in_label_order(names: set[str]) -> list[str]:
    """Sort by number where all are whole numbers (10 after 9), else by the alphabet."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)
