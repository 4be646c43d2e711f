"""Find listed videos by name in a folder, which is read once."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mmtimesformer.datasets.preparation.listing import Listed
from mmtimesformer.datasets.video_io.errors import UnreadableVideo
from mmtimesformer.datasets.video_io.file_endings import is_video
from mmtimesformer.datasets.video_io.frame_folder import FolderContent, content_of
from mmtimesformer.datasets.video_io.safe_open import address_refused, check_file, is_address
from mmtimesformer.terminal import safe_text

SHOWN = 6  # endings that a note lists


@dataclass
class SkippedFiles:
    """What a walk through a folder did not list.

    Attributes:
        endings: How many files were skipped for each ending; ``''`` for none.
        faults: What should be a video or a folder of videos and cannot be read, below the folder,
            and why.
    """

    endings: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def note(self) -> str:
        """Return one line on how many files were skipped for their ending; ``''`` for none."""
        number = self.endings.total()
        if not number:
            return ''
        names = [f'.{ending}' if ending else 'no ending' for ending in sorted(self.endings)]
        more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
        files, were = ('file', 'was') if number == 1 else ('files', 'were')
        shown = safe_text(', '.join(names[:SHOWN]))
        return f'{number:,} {files} with other endings {were} skipped: {shown}{more}'


def list_line(name: object) -> str:
    r"""Return a name for a list of one name a line, to be written with ``'surrogateescape'``.

    Control characters become escapes (``\n``); bytes that are not UTF-8 stay, so that the name is
    that of the file.
    """
    return ''.join(sign if '\udc80' <= sign <= '\udcff' else safe_text(sign) for sign in str(name))


def no_folder(folder: Path) -> str:
    """Write the error about a folder of videos that is not there, or is an address."""
    if is_address(folder):
        return address_refused(str(folder)).replace('the video ', 'the video folder ', 1)
    return f'the video folder {folder} does not exist (looked in {folder.absolute().parent})'


def walk_videos(
    folder: Path, skipped: SkippedFiles | None = None, frames: bool = True
) -> Iterator[tuple[str, bool]]:
    """List the videos below a folder, links followed, each folder once; skip what cannot be read.

    A folder of frames below it is one video (:mod:`..video_io.frame_folder`).

    Args:
        folder: The folder.
        skipped: Gets what is not listed.
        frames: Whether folders of frames are listed; else their images are skipped files.

    Yields:
        Path relative to the folder, with ``/``, and whether the file has any content. The order is
        that of the names.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(no_folder(folder))
    skipped = SkippedFiles() if skipped is None else skipped
    seen: set[str] = set()  # a link may lead back up

    def walk(path: str, prefix: str) -> Iterator[tuple[str, bool]]:
        real = os.path.realpath(path)
        if real in seen:
            return
        seen.add(real)
        try:
            with os.scandir(path) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            skipped.faults.append((prefix or './', f'the folder cannot be read: {_why(error)}'))
            return
        content = content_of(ordered) if frames and prefix else None
        if content and content.images and not content.others:
            yield prefix.removesuffix('/'), True
            return
        if content and len(content.images) > 1:
            skipped.faults.append((prefix, _mixed(content)))
        for entry in ordered:
            name = f'{prefix}{entry.name}'
            try:
                if entry.is_dir():
                    yield from walk(entry.path, f'{name}/')
                elif is_video(entry.name):
                    if entry.is_file():
                        yield name, entry.stat().st_size > 0
                    else:
                        skipped.faults.append((name, _no_file(Path(entry.path))))
                elif not entry.name.startswith('.') and entry.is_file():
                    skipped.endings[_ending(entry.name)] += 1
            except OSError as error:
                skipped.faults.append((name, _why(error)))

    yield from walk(str(folder), '')


def _mixed(content: FolderContent) -> str:
    return (
        f'its {len(content.images)} images are no video, as it also holds {content.others[0]}; '
        'frames need a folder of their own'
    )


def _ending(name: str) -> str:
    stem, dot, ending = name.rpartition('.')
    return ending.lower() if dot and stem else ''


def _why(error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return reason[:1].lower() + reason[1:]


def _no_file(path: Path) -> str:
    """Return why a directory entry is not a regular file."""
    if path.is_symlink() and not path.exists():
        return 'it is a link to nothing'
    try:
        check_file(path)
    except UnreadableVideo as error:
        return error.reason
    return 'it is no regular file'


class VideoFolder:
    """The videos below a folder, by name.

    Args:
        folder: Where they are, at any depth.
        ignore_case: Let names differ in case.
    """

    def __init__(self, folder: Path, ignore_case: bool = False) -> None:
        self.ignore_case = ignore_case
        self.files: dict[str, bool] = {}
        self.skipped = SkippedFiles()
        self._by_name: dict[str, str] = {}
        shown = safe_text(folder, 120)
        text = TextColumn('{task.description}', markup=False)
        with Progress(SpinnerColumn(), text, TimeElapsedColumn()) as progress:
            task = progress.add_task('')
            for file, has_content in walk_videos(folder, self.skipped):
                self.files[file] = has_content
                stem = file.rpartition('.')[0] if is_video(file.rpartition('/')[2]) else file
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
