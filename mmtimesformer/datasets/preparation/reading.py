"""Read lists of videos from text, JSON and CSV files, with readable errors."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtimesformer.cli import require_file
from mmtimesformer.datasets.video_io.safe_open import address_refused, is_address

#: First words of a heading, where it may or may not be there.
HEADINGS = ('path', 'video', 'video_id', 'videoid', 'id', 'name', 'filename', 'file')


def folder_of_lists(root: Path, annotations: Path | None) -> Path:
    """Return the folder of the lists: ``annotations``, else ROOT/annotations, else ROOT."""
    if annotations is not None:
        return annotations
    return root / 'annotations' if (root / 'annotations').is_dir() else root


PUBLISHED = "set --annotations to the folder of the publisher's lists"


def read_lines(path: Path, remedy: str = PUBLISHED) -> list[str]:
    """Read the lines of a text file that hold something.

    Args:
        path: The file.
        remedy: What to do when it is not there.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not text.
    """
    if is_address(path):
        raise FileNotFoundError(address_refused(str(path)).removeprefix('the video '))
    require_file(path, '', remedy, Path.is_file)
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError:
        raise ValueError(f'{path} is not UTF-8 text; is it still packed?') from None
    lines = text.split('\n')  # a name may hold other line separators
    return [line.strip() for line in lines if line.strip()]


def read_json(path: Path, kind: type[Any], keys: Sequence[str] = ()) -> Any:
    """Read a JSON file of a dict, or of a list whose entries have these keys."""
    try:
        content = json.loads('\n'.join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        if not isinstance(error, json.JSONDecodeError | RecursionError):
            raise
        raise ValueError(f'{path} is not complete JSON ({error}); copy it again') from None
    if not isinstance(content, kind):
        raise ValueError(f'{path} holds a {type(content).__name__}, not a {kind.__name__}')
    for entry in content if keys else ():
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise ValueError(f'{path}: the entry {entry!r} has no {" or no ".join(keys)}')
    return content


def read_table(path: Path, columns: Sequence[str], delimiter: str = ',') -> list[dict[str, str]]:
    """Read a CSV file with a heading that names at least these columns."""
    rows = list(csv.DictReader(iter(read_lines(path)), delimiter=delimiter))
    if not rows:
        raise ValueError(f'{path} has no line below its heading')
    need(rows[0], columns, path)
    for number, row in enumerate(rows, 2):
        if any(row[column] is None for column in columns) or None in row:
            raise ValueError(f'{path}, line {number} has not as many columns as the heading')
    return rows


def need(row: Mapping[str, str], columns: Sequence[str], path: Path) -> None:
    """Refuse a table that lacks a column."""
    for column in columns:
        if column not in row:
            raise ValueError(
                f'{path} has no column {column!r} (it has {", ".join(map(str, row))}); give the '
                'CSV file as it was published'
            )


def read_rows(path: Path, num_columns: Sequence[int]) -> list[list[str]]:
    """Read lines of a few columns, split by a tab, a comma or a space, with or without a heading.

    The sign is looked for in the first line. Split by spaces, all but the last word are one column.

    Raises:
        ValueError: A line has another number of columns than ``num_columns`` allows.
    """
    lines = read_lines(path)
    sign = next((sign for sign in '\t,' if lines and sign in lines[0]), ' ')
    if sign == ' ':
        rows = [line.rsplit(' ', 1) for line in lines]
    else:
        rows = list(csv.reader(iter(lines), delimiter=sign))
    if rows and rows[0][0].strip().lower() in HEADINGS:
        del rows[0]
    for row in rows:
        if len(row) not in num_columns or not row[0].strip():
            wanted = ' or '.join(map(str, num_columns))
            raise ValueError(f'{path}: {sign.join(row)!r} has {len(row)} columns, not {wanted}')
    return [[cell.strip() for cell in row] for row in rows]
