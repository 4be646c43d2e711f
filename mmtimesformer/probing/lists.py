"""Read annotation files: a video and its labels in each line, as ``VideoDataset`` reads them."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmtimesformer.datasets.preparation.reading import read_lines


@dataclass(frozen=True)
class VideoList:
    """The videos of an annotation file.

    Attributes:
        path: The annotation file.
        root: Folder that the names are relative to.
        delimiter: Between a name and its labels: a tab if the file has one, else a space.
        names: As the file has them.
        labels: Class indices of each video; exactly one where ``multi_label`` is false.
        multi_label: Whether a video may have several labels, or none.
    """

    path: Path
    root: Path
    delimiter: str
    names: list[str]
    labels: list[tuple[int, ...]]
    multi_label: bool

    @property
    def files(self) -> list[Path]:
        """The file of each video."""
        return [self.root / name for name in self.names]

    @property
    def largest_label(self) -> int:
        """The largest class index; -1 without labels."""
        return max((label for row in self.labels for label in row), default=-1)

    def targets(self, num_classes: int) -> np.ndarray:
        """Return the labels as an array.

        Shape:
            - targets: ``videos``, class indices; multi-label ``videos classes``, booleans
        """
        if not self.multi_label:
            return np.array([row[0] for row in self.labels])
        rows = np.zeros((len(self.labels), num_classes), dtype=bool)
        for row, labels in zip(rows, self.labels, strict=True):
            row[list(labels)] = True
        return rows

    def lines(self) -> list[str]:
        """Return the lines of an annotation file with the same videos and labels."""
        return [
            self.delimiter.join([name, *map(str, labels)])
            for name, labels in zip(self.names, self.labels, strict=True)
        ]


def read_list(path: str | os.PathLike[str], root: str, multi_label: bool, key: str) -> VideoList:
    """Read an annotation file.

    Args:
        path: The file.
        root: Folder that the names are relative to; ``''`` for the folder of the file.
        multi_label: Whether a video may have several labels, or none.
        key: The argument that names this file, for messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is not a video and its labels, or a video is listed twice.
    """
    path = Path(path).expanduser()
    lines = read_lines(path, f'correct {key}')
    if not lines:
        raise ValueError(f'{key} {path} lists no video; write a video and its label in each line')
    delimiter = '\t' if any('\t' in line for line in lines) else ' '
    rows = [
        _row(line, delimiter, multi_label, f'{path}, line {i}') for i, line in enumerate(lines, 1)
    ]
    names = [name for name, _ in rows]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f'{path} lists {name} {count} times; keep one line for each video')
    folder = Path(root).expanduser() if root else path.parent
    return VideoList(
        path, folder.absolute(), delimiter, names, [labels for _, labels in rows], multi_label
    )


def _row(line: str, delimiter: str, multi_label: bool, where: str) -> tuple[str, tuple[int, ...]]:
    name, *words = line.split(delimiter)
    if not all(word.isdecimal() for word in words) or (not words and not multi_label):
        raise ValueError(
            f'{where}: {line[:80]!r} is not a video and its class index, such as "wave_1.mp4 0"; '
            'write the list with tools/data/prepare.py (names with spaces: split by a tab)'
        )
    if len(words) > 1 and not multi_label:
        raise ValueError(
            f'{where}: the video has {len(words)} labels; set multi_label (--multi-label)'
        )
    return name, tuple(sorted({int(word) for word in words}))


def names_of_classes(given: Sequence[str] | None, lists: Sequence[VideoList]) -> list[str]:
    """Return the names of the classes: those given, else of ``classes.txt`` beside the first list.

    Without names they are the class indices.

    Raises:
        ValueError: There are fewer names than classes.
    """
    count = 1 + max(one.largest_label for one in lists)
    source, names = 'class_names', [str(name) for name in given or ()]
    path = lists[0].path.with_name('classes.txt')
    if not names and path.is_file():
        source, names = str(path), read_lines(path)
    if not names:
        return [str(i) for i in range(count)]
    if len(names) < count:
        raise ValueError(
            f'{source} has {len(names)} names, and the lists have labels up to {count - 1}; give a '
            'name for each class, in the order of the labels'
        )
    return names
