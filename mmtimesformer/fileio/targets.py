"""Read the list of a regression: a path and one or several numbers a line."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

Targets = list[tuple[str, list[float]]]


def parse_targets(
    lines: Iterable[str], path: str | Path, num_targets: int, delimiter: str = ' '
) -> Targets:
    """Read videos and their numbers, such as ``run.mp4 0.5 1.25``.

    Args:
        lines: Of the annotation file.
        path: Its name, for messages.
        num_targets: Numbers in each line.
        delimiter: Between the path and each number.

    Raises:
        ValueError: A line has another count of numbers, or one that is no finite number.
    """
    videos = []
    for number, line in enumerate(lines, 1):
        name, *words = line.strip().split(delimiter)
        where = f'{path}, line {number}'
        if not name:
            raise ValueError(f'{where} is blank; remove it')
        videos.append((name, numbers_of(words, where, num_targets)))
    return videos


def numbers_of(words: Sequence[str], where: str, num_targets: int) -> list[float]:
    """Return the numbers of a video, which stand after its path.

    Args:
        words: The numbers, as written.
        where: Their place in a list, for messages.
        num_targets: How many there must be.

    Raises:
        ValueError: There is another count of them, or one that is no finite number.
    """
    if len(words) != num_targets:
        raise ValueError(
            f'{where} has {len(words)} numbers after the video and num_targets={num_targets}; '
            'correct the line, num_targets of the data set, or its `delimiter` if names of '
            'videos have spaces'
        )
    return [_number(word, where) for word in words]


def _number(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(
            f'{where}: {word.strip()!r} is no finite number; write one such as 0.5 or 1.2e3, with '
            'a point, or remove the line'
        )
    return value
