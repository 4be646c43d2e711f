"""Labels of videos as a CSV file with the columns path, label and, if wanted, review."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmtimesformer.datasets.preparation.own_data import in_label_order
from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.finetuning.video_list import read_csv_rows

SEPARATOR = ';'  # of several labels in a cell


@dataclass(frozen=True)
class Labeled:
    """A video and its labels.

    Attributes:
        path: As in the CSV file.
        labels: Names of its classes.
        review: ``'corrected'``, ``'unsure'`` or ``''``.
    """

    path: str
    labels: tuple[str, ...]
    review: str = ''


def read_labels(path: Path, separator: str = SEPARATOR) -> list[Labeled]:
    """Read a CSV file with a heading that names the columns path and label.

    Args:
        path: The file.
        separator: Between several labels in a cell; ``''`` for cells of one label.

    Raises:
        ValueError: A column is missing or named twice, a row has more or fewer cells than the
            heading, or a video has two rows.
    """
    rows, _ = read_csv_rows(path)
    heading = [cell.strip().lower() for cell in rows[0][1]]
    if not {'path', 'label'} <= set(heading):
        raise ValueError(f'{path} needs a first line with the columns path and label')
    if len(set(heading)) < len(heading):
        raise ValueError(f'{path} has a column name twice: {", ".join(heading)}; rename one')
    found: dict[str, Labeled] = {}
    for line, row in rows[1:]:
        if len(row) != len(heading):
            raise ValueError(
                f'{path}, line {line} has {len(row)} columns, and its heading {len(heading)}; put '
                'cells that hold the separator into double quotes'
            )
        cells = dict(zip(heading, row, strict=True))
        video = cells['path'].strip()
        names = cells['label'].split(separator) if separator else [cells['label']]
        labels = tuple(name.strip() for name in names if name.strip())
        if video in found:
            raise ValueError(f'{path}, line {line} has {video} again; write each video once')
        found[video] = Labeled(video, labels, cells.get('review', '').strip())
    if not found:
        raise ValueError(f'{path} lists no video')
    return list(found.values())


def write_labels(videos: Sequence[Labeled], path: Path) -> None:
    """Write a CSV file of path, label and review, as ``finetune`` and ``prepare folder`` read it.

    Raises:
        ValueError: A video has several labels, and a name has the separator.
    """
    several = any(len(video.labels) > 1 for video in videos)
    for name in {label for video in videos for label in video.labels}:
        if several and SEPARATOR in name:
            raise ValueError(
                f'the class {name!r} has {SEPARATOR!r}, which separates labels; rename it'
            )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['path', 'label', 'review'])
    writer.writerows([v.path, SEPARATOR.join(v.labels), v.review] for v in videos)
    write_text_atomically(path, text.getvalue())


def classes_of(videos: Sequence[Labeled]) -> list[str]:
    """Return the classes of videos, in the order of the labels."""
    return in_label_order({label for video in videos for label in video.labels})
