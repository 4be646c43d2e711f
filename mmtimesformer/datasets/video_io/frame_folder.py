"""Read a folder of JPG or PNG frames as one video, by the interface of the video readers.

A folder that holds images, and neither videos nor folders, is one video. Its frames are ordered by
the number in their names (``9.jpg`` before ``10.jpg``), from 0 or 1, with zeros in front or not,
and may be JPG and PNG mixed. A frame is never replaced by its neighbour: a gap in the numbers, two
files of one number, or names of several kinds are errors that name the files.

A folder has no frame rate; :data:`ASSUMED_FPS` is used where none is given.

The same frames in one file, an uncompressed tar of images, are read alike: so they lie in a tar
shard.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

from mmtimesformer.datasets.video_io.file_endings import is_image, is_other_image, is_video
from mmtimesformer.datasets.video_io.image_file import MAX_BYTES, decode_image, read_bytes
from mmtimesformer.datasets.video_io.safe_open import in_time

ASSUMED_FPS = 30.0  # frames per second of a folder, where none are given
SHOWN = 5  # gaps that an error names
DIGITS = re.compile(r'([0-9]+)')
FIELD = re.compile(r'\{(?::(?:0([0-9]*))?d?)?\}')  # of a template, as in str.format


@dataclass(frozen=True)
class FrameNames:
    """What is known of the names of a video's frames.

    Attributes:
        template: The name of a frame by its number, ``'img_{:05}.jpg'``; other files of the folder
            are ignored. Empty where the names themselves decide.
        start: Number of the first frame; ``None`` for 0 or 1, as found.
        total: Number of frames; ``None`` for as many as found.

    Raises:
        ValueError: ``template`` has not exactly one number, or names a folder.
    """

    template: str = ''
    start: int | None = None
    total: int | None = None

    def __post_init__(self) -> None:
        fields = FIELD.findall(self.template)
        rest = FIELD.sub('', self.template)
        if self.template and (len(fields) != 1 or set('{}/') & set(rest)):
            raise ValueError(
                f'filename_tmpl={self.template!r} is not the name of a file with one number, such '
                "as 'img_{:05}.jpg'; set filename_tmpl"
            )


class NumberedNames(Sequence[str]):
    """The names of a template, in order, without the memory for each.

    Args:
        before: Text in front of the number.
        width: Least number of digits.
        after: Text behind the number.
        start: First number.
        total: How many names.
    """

    def __init__(self, before: str, width: int, after: str, start: int, total: int) -> None:
        self.before, self.width, self.after = before, width, after
        self.start, self.total = start, total

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.total))]
        number = self.start + range(self.total)[index]
        return f'{self.before}{number:0{self.width}}{self.after}'


def compress(names: Sequence[str]) -> Sequence[str]:
    """Return names as :class:`NumberedNames` if they are numbered without a gap, else as given."""
    found = re.fullmatch(r'(.*?)([0-9]+)([^0-9/]*)', names[0], re.DOTALL)
    if found is None:
        return tuple(names)
    short = NumberedNames(found[1], len(found[2]), found[3], int(found[2]), len(names))
    return short if list(short) == list(names) else tuple(names)


@dataclass
class FolderContent:
    """The visible files of a folder that may be of a video.

    Attributes:
        images: Names of JPG and PNG files.
        others: Names of videos and of folders.
        unread: Names of images of other kinds.
    """

    images: list[str]
    others: list[str]
    unread: list[str]


def list_folder(path: Path) -> FolderContent:
    """List a folder, once.

    Raises:
        OSError: It cannot be read.
    """
    with os.scandir(path) as entries:
        return content_of(entries)


def content_of(entries: Iterable['os.DirEntry[str]']) -> FolderContent:
    """Divide the entries of a folder by kind."""
    content = FolderContent([], [], [])
    for entry in entries:
        name = entry.name
        if is_image(name):
            content.images.append(name)
        elif is_other_image(name):
            content.unread.append(name)
        elif is_video(name) or (not name.startswith('.') and _is_folder(entry)):
            content.others.append(name)
    return content


def _is_folder(entry: 'os.DirEntry[str]') -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_frame_folder(path: str | Path) -> bool:
    """Whether a path is a folder that is one video: it holds images, no videos and no folders."""
    try:
        content = list_folder(Path(path))
    except (OSError, ValueError):
        return False
    return bool(content.images) and not content.others


def order_frames(names: Iterable[str], wanted: FrameNames) -> list[str]:
    """Return the names of a video's frames in the order of their numbers.

    Raises:
        ValueError: There is none, a number is missing or stands twice, or the names do not give a
            number.
    """
    numbered = _by_template(names, wanted.template) if wanted.template else _by_number(names)
    files: dict[int, str] = {}
    for number, name in sorted(numbered):
        if files.setdefault(number, name) != name:
            raise ValueError(f'{files[number]} and {name} are both frame {number}; remove one')
    if not files:
        kind = f'frame named as {wanted.template}' if wanted.template else 'JPG or PNG image'
        raise ValueError(f'it is a folder without a {kind}')
    _check_complete(list(files), wanted)
    return list(files.values())


def _check_complete(numbers: list[int], wanted: FrameNames) -> None:
    """Check numbers, in order, for gaps, and for what a list gives."""
    gaps = [(one + 1, following - 1) for one, following in pairwise(numbers) if following > one + 1]
    first, total = numbers[0], len(numbers)
    if wanted.start is not None and first > wanted.start:
        gaps.insert(0, (wanted.start, first - 1))
    if wanted.total is not None and not gaps and total < wanted.total:
        gaps.append((numbers[-1] + 1, first + wanted.total - 1))
    if gaps:
        shown = ', '.join(_as_range(*gap) for gap in gaps[:SHOWN])
        more = f' and {len(gaps) - SHOWN} more gaps' if len(gaps) > SHOWN else ''
        raise ValueError(f'frames are missing: {shown}{more} (there are {first} to {numbers[-1]})')
    if wanted.start is None and first > 1:
        raise ValueError(
            f'its first frame has the number {first}, not 0 or 1, so frames may be missing in '
            'front; rename the files, or set start_index of mmtimesformer.FrameFolderDataset'
        )
    if wanted.start is not None and first < wanted.start:
        raise ValueError(f'it has a frame {first}, and start_index={wanted.start} is the first')
    if wanted.total is not None and total != wanted.total:
        raise ValueError(f'the list gives {wanted.total} frames, and there are {total}')


def _as_range(first: int, last: int) -> str:
    return str(first) if first == last else f'{first} to {last}'


def _by_template(names: Iterable[str], template: str) -> Iterator[tuple[int, str]]:
    before, width, after = FIELD.split(template)
    pattern = re.compile(f'{re.escape(before)}([0-9]+){re.escape(after)}')
    for name in names:
        found = pattern.fullmatch(name)
        if found and f'{int(found[1]):0{int(width or 0)}}' == found[1]:
            yield int(found[1]), name


def _by_number(names: Iterable[str]) -> list[tuple[int, str]]:
    """Find the number of each frame: the one place where the names differ.

    Raises:
        ValueError: They differ in their text, or in several numbers.
    """
    parts = {name: DIGITS.split(name.rpartition('.')[0]) for name in sorted(names)}
    if not parts:
        return []
    (example, first), *_ = parts.items()
    for name, one in parts.items():
        if one[::2] != first[::2]:
            raise ValueError(
                f'{example} and {name} differ in more than a number, so their order is not known; '
                'keep frames of one kind, or set filename_tmpl of mmtimesformer.FrameFolderDataset'
            )
    places = range(1, len(first), 2)
    differing = [i for i in places if len({int(one[i]) for one in parts.values()}) > 1]
    if len(differing) > 1:
        raise ValueError(
            f'the names ({example}) differ in several numbers, so their order is not known; keep '
            'one, or set filename_tmpl of mmtimesformer.FrameFolderDataset'
        )
    if not places:
        return [(0, name) for name in parts]
    place = differing[0] if differing else places[-1]
    return [(int(one[place]), name) for name, one in parts.items()]


class _Folder:
    """The files of a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self, template: str) -> list[str]:
        """List the images; without a template the folder must hold nothing else of a video."""
        if template:
            return [path.name for path in self.path.iterdir()]
        content = list_folder(self.path)
        if content.images and content.others:
            raise ValueError(
                f'it is a folder of images and of other videos or folders ({content.others[0]}); '
                'move the frames into a folder of their own'
            )
        if content.images and content.unread:
            raise ValueError(f'{content.unread[0]} is neither JPG nor PNG; convert or remove it')
        return content.images

    def read(self, name: str) -> bytes:
        return read_bytes(self.path / name)


class FrameArchive:
    """The members of an uncompressed tar file, which are read in place and never unpacked.

    Raises:
        ValueError: A member is no image in a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        with tarfile.open(path, 'r:') as tar:
            for info in tar:
                if not info.isreg() or info.issparse() or not is_image(info.name):
                    raise ValueError(f'{info.name[:80]!a} in it is not an image')
                self._places[info.name] = info.offset_data, info.size

    def names(self, template: str) -> list[str]:
        return list(self._places)

    def read(self, name: str) -> bytes:
        offset, size = self._places[name]
        if size > MAX_BYTES:
            raise ValueError(f'it has {size:,} bytes, more than {MAX_BYTES:,}')
        with self.path.open('rb') as file:
            file.seek(offset)
            return file.read(size)


def is_frame_archive(path: Path) -> bool:
    """Whether a file is a tar of images, by its first member."""
    with path.open('rb') as file:
        head = file.read(512)
    name = head[:100].rstrip(b'\0').decode('utf-8', 'replace')
    return head[257:262] == b'ustar' and is_image(name)


def pack_frames(path: Path) -> bytes:
    """Return a folder of frames as the content of a tar file, the same bytes for the same frames.

    Frames are numbered from 0: ``000000.jpg``.

    Raises:
        OSError: A frame cannot be read.
        ValueError: The frames are not complete.
    """
    reader = FrameFolderReader(path)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w', format=tarfile.USTAR_FORMAT) as tar:
        for number, name in enumerate(reader.names):
            content = reader.read(name)
            info = tarfile.TarInfo(f'{number:06d}.{name.rpartition(".")[2].lower()}')
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


class FrameFolderReader:
    """A folder of frames, or a tar of frames.

    Nothing stays open between calls, and no orientation but that in a file itself is applied.

    Args:
        path: The folder; or the tar file.
        frames: How the frames are named; or their names, relative to ``path``, in order, which are
            then not looked up before they are read.
        fps: Frames per second; ``None`` for :data:`ASSUMED_FPS`.

    Attributes:
        names: The frames' files, in order.
        fps: Frames per second.

    Raises:
        OSError: The folder cannot be read.
        ValueError: The frames are not complete.
    """

    def __init__(
        self, path: Path, frames: FrameNames | Sequence[str] | None = None, fps: float | None = None
    ) -> None:
        self._source: Any = FrameArchive(path) if path.is_file() else _Folder(path)
        self.fps = ASSUMED_FPS if fps is None else fps
        self._shape: tuple[int, ...] | None = None
        if frames is None or isinstance(frames, FrameNames):
            wanted = frames or FrameNames()
            frames = order_frames(self._source.names(wanted.template), wanted)
        self.names = frames

    def __len__(self) -> int:
        return len(self.names)

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Decode frames, in the order asked for; none a view of another.

        Raises:
            ValueError: A frame is not there, cannot be decoded, or has another size than those
                read before.
            TimeoutError: It takes too long.
        """
        found: dict[int, np.ndarray] = {}
        for index in in_time(indices, 'to decode'):
            if not 0 <= index < len(self):
                raise ValueError(f'frame {index} of {len(self)} is not there')
            if index not in found:
                found[index] = self._decode(self.names[index])
        first = {index: place for place, index in reversed(list(enumerate(indices)))}
        return [
            found[index] if first[index] == place else found[index].copy()
            for place, index in enumerate(indices)
        ]

    def read(self, name: str) -> bytes:
        """Return the content of a frame's file."""
        content: bytes = self._source.read(name)
        return content

    def _decode(self, name: str) -> np.ndarray:
        try:
            pixels = decode_image(self.read(name))
        except FileNotFoundError:
            raise ValueError(f'its frame {name} does not exist') from None
        except OSError as error:
            raise ValueError(f'its frame {name} cannot be read: {error.strerror}') from None
        except ValueError as error:
            raise ValueError(f'its frame {name} cannot be decoded: {error}') from None
        shape = pixels.shape
        if self._shape is None:
            self._shape = shape
        if shape != self._shape:
            one, other = (f'{w} x {h}' for h, w, _ in (shape, self._shape))
            raise ValueError(
                f'its frames have different sizes: {name} has {one} pixels, another {other}'
            )
        return pixels
