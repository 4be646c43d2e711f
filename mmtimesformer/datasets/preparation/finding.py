"""Which of the listed videos are there: a folder is read once, then asked by name."""

import os
from collections.abc import Iterator
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mmtimesformer.datasets.preparation.listing import Listed
from mmtimesformer.terminal import safe_text

ENDINGS = {'3gp', 'avi', 'flv', 'm4v', 'mkv', 'mov', 'mp4', 'mpeg', 'mpg', 'ogv', 'webm', 'wmv'}


def is_video(name: str) -> bool:
    """Tell by the ending, and skip hidden files (unfinished ones are hidden here)."""
    stem, _, ending = name.rpartition('.')
    return ending.lower() in ENDINGS and stem != '' and not stem.startswith('.')


def walk_videos(folder: Path) -> Iterator[tuple[str, bool]]:
    """List the videos below a folder, links followed, each folder once.

    Yields:
        Path relative to the folder, with ``/``, and whether the file has any content. The order is
        that of the names.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f'the video folder {folder} does not exist (looked in {folder.absolute().parent})'
        )
    seen: set[str] = set()  # a link may lead back up

    def walk(path: str, prefix: str) -> Iterator[tuple[str, bool]]:
        real = os.path.realpath(path)
        if real in seen:
            return
        seen.add(real)
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    yield from walk(entry.path, f'{prefix}{entry.name}/')
                elif is_video(entry.name) and entry.is_file():
                    yield f'{prefix}{entry.name}', entry.stat().st_size > 0

    yield from walk(str(folder), '')


class VideoFolder:
    """The videos below a folder, by name.

    Args:
        folder: Where they are, at any depth.
        ignore_case: Let names differ in case.
    """

    def __init__(self, folder: Path, ignore_case: bool = False) -> None:
        self.ignore_case = ignore_case
        self.files: dict[str, bool] = {}
        self._by_name: dict[str, str] = {}
        shown = safe_text(folder, 120)
        columns = (
            SpinnerColumn(),
            TextColumn('{task.description}', markup=False),
            TimeElapsedColumn(),
        )
        with Progress(*columns) as progress:
            task = progress.add_task('')
            for file, has_content in walk_videos(folder):
                self.files[file] = has_content
                stem = file.rpartition('.')[0]
                # A name may stand for the file alone, or with the folder it is in.
                for name in {'/'.join(stem.rsplit('/', 2)[-2:]), stem.rsplit('/', 1)[-1]}:
                    known = self._by_name.setdefault(self._key(name), file)
                    if not self.files[known] and has_content:  # an empty file gives way
                        self._by_name[self._key(name)] = file
                if len(self.files) % 500 == 0:
                    progress.update(task, description=f'{shown}: {len(self.files):,} videos')
            progress.update(task, description=f'{shown}: {len(self.files):,} videos')

    def _key(self, name: str) -> str:
        return name.casefold() if self.ignore_case else name

    def find(self, video: Listed) -> str | None:
        """Return the file of a listed video, relative to the folder; names may also be files."""
        for name in video.names:
            if name in self.files:
                return name
            file = self._by_name.get(self._key(name))
            if file is not None:
                return file
        return None
