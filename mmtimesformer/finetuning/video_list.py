"""List your own videos and their labels: from a folder per class, or from a CSV file.

A folder that holds images (and no videos) is one video. Nothing is decoded here.

A CSV file is UTF-8, with columns separated by commas, tabs or semicolons. With a heading its
columns are named: ``path`` and ``label``, and, if wanted, ``group`` and ``split``, in any order;
others are ignored. Without a heading they are path and label; and split (if the third column holds
nothing but names of splits) or group; or all four.
"""

import csv
import hashlib
import io
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmtimesformer.cli import require_file
from mmtimesformer.datasets.preparation.finding import SkippedFiles, walk_videos
from mmtimesformer.datasets.preparation.listing import unwritable
from mmtimesformer.datasets.preparation.own_data import SPLITS, in_label_order

DELIMITERS = ',;\t'
#: What a heading may call a column.
COLUMNS = {
    'path': ('path', 'video', 'video_path', 'file', 'filename', 'file_name', 'name'),
    'label': ('label', 'labels', 'class', 'classes', 'category', 'categories'),
    'group': ('group', 'groups', 'subject', 'person', 'recording'),
    'split': ('split', 'subset', 'set', 'partition'),
}
MANY_NUMBERS = 20  # more different numbers than this, on most of the videos, are no classes


@dataclass(frozen=True)
class Item:
    """One video.

    Attributes:
        path: Below the root, with ``/``; or absolute.
        labels: Names of its classes; one, or any number in a multi-label list.
        group: What it belongs together with; ``''`` if the list does not state it.
        split: ``'train'``, ``'val'``, ``'test'``, or ``''`` if it is to be chosen.
    """

    path: str
    labels: tuple[str, ...]
    group: str = ''
    split: str = ''


@dataclass
class VideoList:
    """The videos of a folder or CSV file.

    Attributes:
        root: What paths are relative to.
        items: The videos, in the order of their names.
        classes: Names, in the order of the labels: of the alphabet, or of the numbers.
        multi_label: Whether a video may have any number of labels.
        left_out: Videos that cannot be listed, and why.
        notes: Sentences for the user.
    """

    root: Path
    items: list[Item]
    multi_label: bool = False
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        return in_label_order({label for item in self.items for label in item.labels})

    def digest(self) -> str:
        """Return a hash of all videos, labels, groups and splits."""
        rows = [(i.path, i.labels, i.group, i.split) for i in self.items]
        text = json.dumps([sorted(rows), self.multi_label])
        return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()

    def without(self, left_out: Mapping[str, str]) -> 'VideoList':
        """Return the list without some videos, which are left out for the reasons given."""
        items = [item for item in self.items if item.path not in left_out]
        return VideoList(
            self.root, items, self.multi_label, [*self.left_out, *left_out.items()], self.notes
        )


def read_video_list(
    source: Path,
    root: Path | None = None,
    multi_label: bool = False,
    separator: str | None = None,
) -> VideoList:
    """List the videos of a folder with a folder per class, or of a CSV file.

    Args:
        source: The folder, or the CSV file.
        root: What paths in the CSV file are relative to; its own folder if not given.
        multi_label: Allow several labels, or none, for a video in the CSV file. Set by itself
            where a cell holds several labels.
        separator: Between labels in a cell; ``''`` for cells of one label. If not given, ``;``, or
            ``|`` where ``;`` separates the columns.

    Raises:
        FileNotFoundError: It is not there, or holds no videos.
        ValueError: The labels cannot be used; the message names the line and what to change.
    """
    require_file(source, 'VIDEOS', 'give a folder with a folder per class, or a CSV file')
    if source.is_dir():
        if root is not None:
            raise ValueError(f'{source} is a folder, so --root has no effect; leave it out')
        if multi_label:
            raise ValueError(
                'a folder per class gives a video one label; list videos with several labels in a '
                'CSV file'
            )
        videos = _read_folder(source)
    else:
        videos = _read_csv(source, root or source.parent, multi_label, separator)
    reasons = {item.path: why for item in videos.items if (why := unwritable(item.path))}
    videos = videos.without(reasons)
    if not videos.items:
        path, why = next(iter(reasons.items()))
        raise ValueError(f'no video of {source} has a name that can be listed: {path!r} {why}')
    check_classes(videos.items, source)
    return videos


def check_classes(items: Sequence[Item], source: Path) -> None:
    """Refuse labels that cannot be classes.

    Raises:
        ValueError: There are fewer than two classes, every class has one video, names differ in
            upper and lower case alone, or the labels are numbers to be predicted.
    """
    counts = Counter(label for item in items for label in item.labels)
    _refuse_numbers(counts, len(items), source)
    spelled: dict[str, str] = {}
    for name in sorted(counts):
        other = spelled.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(
                f'{source}: the classes {other!r} and {name!r} differ in upper and lower case '
                'alone; give them one name, or names that differ in more'
            )
    if len(counts) < 2:
        only = f'the only class is {next(iter(counts))!r}' if counts else 'no video has a label'
        raise ValueError(
            f'{source}: {only}; a classifier needs two classes or more (add videos of what is not '
            'that class as a second one)'
        )
    if max(counts.values()) == 1:
        raise ValueError(
            f'{source}: each of the {len(counts)} classes has one video; training and validation '
            'need a video each, so add videos (10 or more a class)'
        )


def _refuse_numbers(counts: Mapping[str, int], num_videos: int, source: Path) -> None:
    try:
        numbers = [float(name.replace(',', '.')) for name in counts]
    except ValueError:
        return
    fractions = [name for name, number in zip(counts, numbers, strict=True) if number % 1]
    if fractions or len(numbers) > max(MANY_NUMBERS, num_videos / 2):
        example = (fractions or list(counts))[0]
        raise ValueError(
            f'{source}: the labels are numbers such as {example} ({len(numbers)} different ones on '
            f'{num_videos} videos), and finetune trains classes; for numbers to predict see '
            'docs/datasets/regression.md, or name the classes'
        )


def _read_folder(folder: Path) -> VideoList:
    skipped = SkippedFiles()
    videos = list(walk_videos(folder, skipped))
    if not videos:
        there = skipped.note() or 'it is empty'
        raise FileNotFoundError(
            f'there is no video and no folder of images below {folder} ({there}); give a folder '
            'with a folder per class'
        )
    left_out = [(path, 'an empty file') for path, full in videos if not full] + skipped.faults
    notes = [note for note in [skipped.note()] if note]
    parts = {path: path.split('/')[:-1] for path, _ in videos}
    tops = {folders[0] if folders else '' for folders in parts.values()}
    split = 'train' in tops and tops <= SPLITS.keys()
    depth = 2 if split else 1
    for path, folders in parts.items():
        if len(folders) < depth:
            raise ValueError(_no_class(folder / path))
    items = [
        Item(path, (_name(folders[depth - 1]),), split=SPLITS[folders[0]] if split else '')
        for path, folders in parts.items()
        if path not in dict(left_out)
    ]
    return VideoList(folder.absolute(), sorted(items, key=lambda i: i.path), False, left_out, notes)


def _no_class(path: Path) -> str:
    if path.is_dir():
        return (
            f'{path} holds images, so it is one video, and lies in no class folder; put the images '
            'of each video into a folder of its own, in the folder of its class'
        )
    return (
        f'{path} lies in no class folder; move it into one, or name its class in a CSV file '
        '(columns path and label)'
    )


def _name(text: str) -> str:
    """Return the name of a class: composed characters (NFC), so that one name is one class."""
    return unicodedata.normalize('NFC', text.strip())


def _read_csv(path: Path, root: Path, multi_label: bool, separator: str | None) -> VideoList:
    rows, delimiter = read_csv_rows(path)
    columns, body = _columns_of(rows, path, root)
    if separator is None:
        separator = '|' if delimiter == ';' else ';'
    labels: dict[str, set[str]] = defaultdict(set)
    about: dict[str, dict[str, str]] = {}
    notes = []
    for line, row in body:
        cells = {key: row[i].strip() for key, i in columns.items()}
        names = {_name(one) for one in _parts(cells['label'], separator) if one.strip()}
        video = _below(cells['path'], root)
        if len(names) > 1 and not multi_label:
            multi_label = True
            notes.append(f'several labels a video (line {line}), separated by {separator!r}')
        known = about.setdefault(video, cells)
        if labels.get(video, names) != names and not multi_label:
            raise ValueError(
                f'{path}, line {line}: {video} has the labels {min(labels[video])!r} and '
                f'{min(names, default="")!r}; take one line out, or give --multi-label if a video '
                'may have several labels'
            )
        for key in ('group', 'split'):
            if known.get(key) != cells.get(key):
                raise ValueError(
                    f'{path}, line {line}: {video} is of {key} {known[key]!r} and {cells[key]!r}; '
                    'correct one line'
                )
        if 'split' in cells and cells['split'].lower() not in SPLITS:
            raise ValueError(
                f'{path}, line {line}: {video} is of split {cells["split"]!r}; write train, val or '
                'test'
            )
        labels[video] |= names
    if not multi_label:
        for line, row in body:
            if not row[columns['label']].strip():
                raise ValueError(
                    f'{path}, line {line} has no label; write one, take the line out, or give '
                    '--multi-label if a video may have none'
                )
    items = [
        Item(
            video,
            tuple(sorted(labels[video])),
            cells.get('group', ''),
            SPLITS[cells['split'].lower()] if 'split' in cells else '',
        )
        for video, cells in sorted(about.items())
    ]
    missing = {item.path: 'does not exist' for item in items if not (root / item.path).exists()}
    if len(missing) == len(items):
        raise FileNotFoundError(
            f'none of the {len(items):,} videos of {path} exists, such as {root / items[0].path}; '
            'correct the paths, or set --root to the folder that they are relative to'
        )
    return VideoList(root.absolute(), items, multi_label, [], notes).without(missing)


def _parts(cell: str, separator: str) -> list[str]:
    return cell.split(separator) if separator else [cell]


def _below(path: str, root: Path) -> str:
    file = Path(path).expanduser()
    if file.is_absolute() and file.is_relative_to(root.absolute()):
        file = file.relative_to(root.absolute())
    return file.as_posix()


def read_csv_rows(path: Path) -> tuple[list[tuple[int, list[str]]], str]:
    """Read the rows of a CSV file that hold something, and what separates its columns.

    Returns:
        Number of the line and cells of each row; and ``,``, ``;`` or a tab, whichever is most
        frequent in the first line.

    Raises:
        ValueError: It is not UTF-8 text, or no row has two columns.
    """
    content = path.read_bytes()
    if content[:2] in (b'\xff\xfe', b'\xfe\xff') or b'\0' in content[:1000]:
        raise ValueError(
            f'{path} is UTF-16 or no text; save it as UTF-8 (in a spreadsheet: CSV UTF-8)'
        )
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b'\n') + 1
        raise ValueError(
            f'{path}, line {line} is not UTF-8 text; save it as UTF-8 (in a spreadsheet: CSV UTF-8)'
        ) from None
    first = next((line for line in text.splitlines() if line.strip()), '')
    delimiter = max(DELIMITERS, key=first.count)
    if delimiter not in first:
        found = f'its first line is {first!r}' if first else 'it is empty'
        raise ValueError(
            f'{path} has no columns ({found}); write path and label, separated by a comma, a tab '
            'or a semicolon'
        )
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise ValueError(f'{path}, line {reader.line_num} cannot be read: {error}') from None
    return rows, delimiter


def _columns_of(
    rows: list[tuple[int, list[str]]], path: Path, root: Path
) -> tuple[dict[str, int], list[tuple[int, list[str]]]]:
    """Return which column is what, and the rows below the heading.

    Raises:
        ValueError: A column is missing, or named twice, or a row has too few or too many columns.
    """
    heading = [cell.strip().lower() for cell in rows[0][1]]
    named = {
        key: [i for i, cell in enumerate(heading) if cell in names]
        for key, names in COLUMNS.items()
    }
    if named['path'] or named['label']:
        for key in ('path', 'label'):
            if not named[key]:
                raise ValueError(
                    f'{path} has no column {key!r} (it has {", ".join(rows[0][1])}); name the '
                    'columns path and label, and, if wanted, group and split'
                )
        for key, columns in named.items():
            if len(columns) > 1:
                twice = ' and '.join(heading[i] for i in columns)
                raise ValueError(f'{path} has two columns for {key}: {twice}; rename one')
        found = {key: columns[0] for key, columns in named.items() if columns}
        body = rows[1:]
    else:
        found, body = _unnamed_columns(rows, path), rows
        first = rows[0][1][0].strip()
        if len(rows) > 1 and not (root / first).exists():
            second = rows[1][1][0].strip()
            if (root / second).exists():
                raise ValueError(
                    f'{path}: the first line ({", ".join(rows[0][1])}) names no video; if it is a '
                    'heading, call its columns path and label, else correct the path'
                )
    if not body:
        raise ValueError(f'{path} has no line below its heading')
    for line, row in body:
        if len(row) <= max(found.values()) or not row[found['path']].strip():
            raise ValueError(
                f'{path}, line {line} has no {_first_missing(row, found)}; complete it or take it '
                'out'
            )
        if any(map(str.strip, row[len(heading) :])):
            raise ValueError(
                f'{path}, line {line} has {len(row)} columns, and the first line {len(heading)}; '
                'put cells that hold the separator into double quotes'
            )
    return found, body


def _first_missing(row: Sequence[str], columns: Mapping[str, int]) -> str:
    return next(
        (key for key, i in columns.items() if i >= len(row) or not row[i].strip()), 'column'
    )


def _unnamed_columns(rows: list[tuple[int, list[str]]], path: Path) -> dict[str, int]:
    number = len(rows[0][1])
    if not 2 <= number <= 4:
        raise ValueError(
            f'{path} has {number} columns and no heading; write path and label, and, if wanted, '
            'group and split, or name the columns so in its first line'
        )
    third = {row[2].strip().lower() for _, row in rows if len(row) > 2}
    keys = ['path', 'label', 'split' if number == 3 and third <= SPLITS.keys() else 'group']
    return {key: i for i, key in enumerate([*keys, 'split'][:number])}
