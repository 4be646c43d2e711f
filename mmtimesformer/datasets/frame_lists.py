"""Read lists of videos that are folders of frames: rawframes, plain, Something-Something-V2."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from mmtimesformer.cli import require_file
from mmtimesformer.datasets.video_io.frame_folder import FrameNames, compress
from mmtimesformer.fileio.targets import numbers_of

FORMATS = ('auto', 'rawframes', 'plain')
COLUMNS = ('original_vido_id', 'video_id', 'frame_id', 'path', 'labels')  # spelt so


@dataclass(frozen=True)
class ListedFrames:
    """One video of a list.

    Attributes:
        where: File and line, or entry, for messages.
        name: The folder, relative to that of the videos.
        labels: Numbers of its classes; or the numbers of a regression.
        frames: What is known of the names of its frames; or each name, in order.
    """

    where: str
    name: str
    labels: Sequence[int] | Sequence[float]
    frames: FrameNames | Sequence[str]


def read_frame_list(
    path: Path,
    form: str,
    delimiter: str,
    names: FrameNames,
    multi_class: bool,
    absolute: bool,
    num_targets: int | None = None,
) -> list[ListedFrames]:
    """Read lines ``folder total_frames label ...`` (MMAction2's rawframes) or ``folder label ...``.

    Args:
        path: The list.
        form: ``'rawframes'``, ``'plain'``, or ``'auto'``: rawframes if every line has three
            columns, plain if every line has two or one. With ``num_targets`` that many numbers are
            in the place of the label.
        delimiter: Between the columns.
        names: How frames are named.
        multi_class: Whether a video may have several labels.
        absolute: Whether folders may be absolute paths.
        num_targets: Numbers of a regression for each video; ``None`` for classes.

    Raises:
        ValueError: The list is empty, a line has other columns, or its form is not certain.
    """
    lines = _lines(path)
    rows = [line.strip().split(delimiter) for line in lines]
    for number, row in enumerate(rows, 1):
        if not row[0]:
            raise ValueError(f'{path}, line {number} is blank; remove it')
    if form == 'auto':
        form = _form_of(path, rows, multi_class, num_targets)
    listed = []
    for number, (name, *cells) in enumerate(rows, 1):
        where = f'{path}, line {number}'
        frames = names
        if form == 'rawframes':
            frames = FrameNames(names.template, names.start, _total(cells, where))
            cells = cells[1:]
        check_inside(name, where, absolute)
        values = (
            _labels(cells, where, multi_class)
            if num_targets is None
            else numbers_of(cells, where, num_targets)
        )
        listed.append(ListedFrames(where, name, values, frames))
    return listed


def _total(cells: Sequence[str], where: str) -> int:
    total = _whole(cells[0], where) if cells else 0
    if total < 1:
        raise ValueError(
            f'{where} does not have the number of frames behind the folder; write "folder '
            "total_frames label\", or set list_format='plain'"
        )
    return total


def _labels(cells: Sequence[str], where: str, multi_class: bool) -> list[int]:
    labels = [_whole(cell, where, ', or set num_targets for numbers to predict') for cell in cells]
    if len(labels) > 1 and not multi_class:
        raise ValueError(
            f'{where} has {len(labels)} labels; set multi_class=True and num_classes, num_targets '
            'if they are numbers to predict, or another delimiter if names have spaces'
        )
    return labels


def _form_of(path: Path, rows: list[list[str]], multi_class: bool, num_targets: int | None) -> str:
    columns = {len(row) for row in rows}
    labels = 1 if num_targets is None else num_targets
    if not multi_class and columns == {labels + 2}:
        return 'rawframes'
    if not multi_class and columns <= ({1, 2} if num_targets is None else {labels + 1}):
        return 'plain'
    least, most = min(columns), max(columns)
    lines = f'lines of {least} to {most} columns' if least < most else f'{most} columns'
    why = 'several labels' if multi_class else lines
    if num_targets is not None:
        raise ValueError(
            f'{path} has {why} and num_targets={num_targets}, so a line has {labels + 1} (folder, '
            f'numbers) or {labels + 2} (folder, total_frames, numbers); correct the list, '
            'num_targets, or the delimiter if names have spaces'
        )
    raise ValueError(
        f'{path} has {why}, so whether its second column is the number of frames is not known; set '
        "list_format='rawframes' (folder total_frames label) or 'plain' (folder label)"
    )


def read_ssv2_frames(videos: Path, labels: Path, frames: Path) -> list[ListedFrames]:
    """Read the official lists of Something-Something-V2, in the order of ``videos``.

    As the official loader: the label of a video is that of its ``template`` without brackets, and
    its frames are the rows of its ``original_vido_id``, in order.

    Args:
        videos: ``something-something-v2-train.json`` or ``…-validation.json``.
        labels: ``something-something-v2-labels.json``.
        frames: ``train.csv`` or ``val.csv``.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: A file is damaged, or the files do not agree on the videos.
    """
    numbers = _json(labels, dict, 'label_file')
    entries = _json(videos, list, 'ann_file')
    require_file(frames, 'frame list', 'set frame_list', Path.is_file)
    status = frames.stat()
    rows = _read_rows(frames, status.st_size, status.st_mtime_ns)
    listed = []
    for number, entry in enumerate(entries, 1):
        where = f'{videos}, entry {number}'
        if not isinstance(entry, dict) or not {'id', 'template'} <= entry.keys():
            raise ValueError(f'{where} has no id or no template; give the file as published')
        template = str(entry['template']).replace('[', '').replace(']', '')
        if template not in numbers:
            raise ValueError(f'{where}: the template {template!r} is not in {labels}')
        found = rows.get(str(entry['id']))
        if found is None:
            raise ValueError(
                f'{where}: the video {entry["id"]} has no row in {frames}; give the frame list of '
                'the same split (train.csv for train, val.csv for validation)'
            )
        label = _whole(str(numbers[template]), str(labels))
        listed.append(ListedFrames(where, found[0], [label], found[1]))
    if len(listed) != len(rows):
        raise ValueError(
            f'{videos} has {len(listed):,} videos and {frames} {len(rows):,}; give the frame list '
            'of the same split (train.csv for train, val.csv for validation)'
        )
    return listed


@lru_cache(maxsize=4)  # read once to be checked, and once to train
def _read_rows(path: Path, *status: int) -> dict[str, tuple[str, Sequence[str]]]:
    """Read a list of one frame a row: video → its folder, and its frames in order."""
    videos: dict[str, tuple[str, Sequence[str]]] = {}
    with path.open(encoding='utf-8') as file:
        heading = tuple(file.readline().split())
        if heading != COLUMNS:
            raise ValueError(
                f'{path} begins with {" ".join(heading)[:80]!r}, not with {" ".join(COLUMNS)!r}; '
                'give train.csv or val.csv as published, split by spaces'
            )
        for video, rows in groupby(_split(path, file), key=lambda row: row[0]):
            frames: list[str] = []
            folders = set()
            for _, number, name, line in rows:
                if number != len(frames):
                    raise ValueError(
                        f'{path}, line {line}: frame_id {number} of video {video}, where '
                        f'{len(frames)} is next, so rows are missing or out of order; copy it again'
                    )
                check_inside(name, f'{path}, line {line}')
                folder, _, base = name.rpartition('/')
                folders.add(folder)
                frames.append(base)
            if video in videos:
                raise ValueError(f'{path}: the rows of video {video} do not lie together')
            if len(folders) > 1:
                raise ValueError(f'{path}: the frames of video {video} lie in several folders')
            videos[video] = folders.pop(), compress(frames)
    return videos


def _split(path: Path, lines: Iterator[str]) -> Iterator[tuple[str, int, str, int]]:
    for line, text in enumerate(lines, 2):
        cells = text.split()
        if len(cells) != len(COLUMNS):
            raise ValueError(f'{path}, line {line} has {len(cells)} columns, not {len(COLUMNS)}')
        yield cells[0], _whole(cells[2], f'{path}, line {line}'), cells[3], line


def check_inside(name: str, where: str, absolute: bool = False) -> None:
    """Refuse a name that leads out of the folder of the videos, if there is one.

    Raises:
        ValueError: It is ``..`` or below it, or an absolute path where none is allowed.
    """
    path = PurePosixPath(name)
    if '..' in path.parts or '\0' in name or (path.is_absolute() and not absolute):
        raise ValueError(f'{where}: {name!a} leads out of the folder of the videos; correct it')


def _lines(path: Path) -> list[str]:
    require_file(path, 'annotation file', 'set ann_file', Path.is_file)
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError:
        raise ValueError(f'annotation file {path} is not text; set ann_file') from None
    if not any(line.strip() for line in lines):
        raise ValueError(f'annotation file {path} is empty; write one "folder label" a line')
    if lines[0].startswith('\ufeff'):
        raise ValueError(
            f'{path} begins with a byte order mark (BOM), which would be read as part of its first '
            'name; save it as UTF-8 without BOM'
        )
    return lines


def _json(path: Path, kind: type[Any], key: str) -> Any:
    require_file(path, key, f'set {key}', Path.is_file)
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError):
        raise ValueError(f'{path} is not complete JSON; copy it again, or set {key}') from None
    if not isinstance(content, kind):
        raise ValueError(f'{path} holds a {type(content).__name__}, not a {kind.__name__}')
    return content


def _whole(text: str, where: str, more: str = '') -> int:
    stripped = text.strip()
    if not stripped.removeprefix('-').isascii() or not stripped.removeprefix('-').isdecimal():
        raise ValueError(f'{where}: {text!r} is not a whole number; correct it{more}')
    return int(stripped)
