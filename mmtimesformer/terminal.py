"""Print text from files or users without executing its terminal escapes; show progress bars.

Class names, file names, metadata and error messages may contain control characters: ANSI escapes
that change or erase a terminal, newlines that fake a line of output, bidirectional controls that
reverse text. Every tool prints through :func:`echo`, and shows progress through :func:`track`.
"""

import argparse
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NoReturn, TypeVar

from rich import progress
from rich.console import Console

T = TypeVar('T')

JOINERS = '\u200c\u200d'  # invisible, but needed in Persian, Hindi and emoji


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors quote arguments without terminal escapes."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with code 2."""
        super().error(safe_text(message))


def safe_text(text: object, most: int | None = None) -> str:
    r"""Return text for one line of a terminal or an image.

    Control characters, newlines, bidirectional controls, other invisible characters and lone
    surrogates (of file names that are not UTF-8) are written as escapes, such as ``\x1b``. Letters
    of every language stay.

    Args:
        text: Any text.
        most: Maximum length of the result; longer text ends in ``…``.
    """
    text = str(text)
    if most is not None:
        text = text[: most + 1]
    if not text.isprintable():
        text = ''.join(one if _is_visible(one) else _escaped(one) for one in text)
    return text if most is None or len(text) <= most else f'{text[: most - 1]}…'


def safe_lines(text: object) -> str:
    """Return text like :func:`safe_text`, but keep its newlines and tabs."""
    return '\n'.join(
        '\t'.join(safe_text(cell) for cell in line.split('\t')) for line in str(text).split('\n')
    )


def echo(
    *values: object,
    sep: str = ' ',
    end: str = '\n',
    file: IO[str] | None = None,
    flush: bool = False,
) -> None:
    """Print one line like :func:`print`, through :func:`safe_text`; keep empty lines around it.

    Characters that the stream's encoding lacks are written as escapes too.
    """
    text = sep.join(map(str, values))
    inner = text.strip('\n')
    before = len(text) - len(text.lstrip('\n'))
    after = len(text) - before - len(inner)
    _write('\n' * before + safe_text(inner) + '\n' * after + end, file, flush)


def echo_lines(text: object, file: IO[str] | None = None) -> None:
    """Print several lines through :func:`safe_lines`; names in them need `safe_text` before."""
    _write(f'{safe_lines(text)}\n', file, flush=False)


def track(
    items: Iterable[T], description: str, total: int | None = None, console: Console | None = None
) -> Iterator[T]:
    """Iterate with a progress bar, as :func:`rich.progress.track` does.

    The description is plain text: no Rich markup (``[/red]`` in a folder's name would be an error),
    no emoji codes, no terminal escapes.

    Args:
        items: What to iterate over.
        description: Text before the bar.
        total: The number of items, if they have no length.
        console: A Rich console; by default standard output.
    """
    columns = (
        progress.TextColumn('{task.description}', markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(show_speed=True),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with progress.Progress(*columns, console=console) as bar:
        yield from bar.track(items, total=total, description=safe_text(description, 120))


@contextmanager
def safe_warnings() -> Iterator[None]:
    """Print warnings without terminal escapes: many of them quote file and class names."""
    before = warnings.formatwarning

    def formatted(*args: Any, **options: Any) -> str:
        return safe_lines(before(*args, **options))

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = before


def _write(text: str, file: IO[str] | None, flush: bool) -> None:
    stream = file or sys.stdout
    encoding = getattr(stream, 'encoding', None) or 'utf-8'
    text = text.encode(encoding, 'backslashreplace').decode(encoding)
    print(text, end='', file=stream, flush=flush)


def _is_visible(character: str) -> bool:
    return (
        character.isprintable()
        or character in JOINERS
        or unicodedata.category(character) == 'Zs'  # spaces, of which Python prints one only
    )


def _escaped(character: str) -> str:
    return character.encode('unicode_escape').decode('ascii')
