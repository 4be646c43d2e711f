"""Pack videos into tar shards (plain tar files), so that a data set is hundreds of files.

``plan.json`` holds which video goes into which tar shard, so that a run can be interrupted and
started again. A tar shard gets its final name after every video in it was read back and compared by
SHA-256. The index is made from the finished tar shards.

A folder of frames is packed as a tar file of its frames. A video that cannot be opened, that
changes or disappears while it is packed, or that crashes or hangs the process that opens it, is
left out; it keeps its line in the index.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from mmtimesformer.datasets.preparation.finding import no_folder
from mmtimesformer.datasets.preparation.isolation import call_isolated, write_isolated
from mmtimesformer.datasets.preparation.reading import read_json, read_lines
from mmtimesformer.datasets.preparation.resizing import sweep
from mmtimesformer.datasets.tar_shards.index import Entry, Member, key_of
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.errors import UnreadableVideo
from mmtimesformer.datasets.video_io.frame_folder import list_folder, pack_frames
from mmtimesformer.datasets.video_io.safe_open import is_folder
from mmtimesformer.fileio.atomic import partial_path, rename_atomically, write_lines_atomically
from mmtimesformer.fileio.safe_text import parse_json

PLAN = 'plan.json'
LARGEST_DESCRIPTION = 8 << 20  # bytes
LEFT_OUT = '__left_out__'  # the last member of a tar shard; WebDataset skips such names
OPENING = 120  # seconds to open one video, in the search for one that crashes or hangs
CHUNK = 2**22  # bytes that are copied at a time


@dataclass(frozen=True)
class Listed:
    """A video to be packed: its line in the list (from 0), its file, the numbers of its classes."""

    number: int
    name: str
    labels: tuple[int, ...]

    @property
    def description(self) -> bytes:
        """Content of the JSON member that follows the video."""
        text = json.dumps({'name': self.name, 'labels': self.labels}, ensure_ascii=False)
        return text.encode()


@dataclass(frozen=True)
class TarShard:
    """A tar shard to be written.

    Attributes:
        folder: Of the videos.
        videos: Those in it.
        path: The file.
        part: The unfinished file.
        left_out: Numbers of videos that are not even tried, and why.
    """

    folder: Path
    videos: tuple[Listed, ...]
    path: Path
    part: Path
    left_out: tuple[tuple[int, str], ...] = ()


def list_labelled(path: Path) -> list[Listed]:
    """Read an annotation file: a video and its labels in each line.

    Raises:
        ValueError: A label is not a number, or the file has no lines.
    """
    videos = []
    for number, line in enumerate(read_lines(path, 'correct LIST')):
        if '\t' in line:
            name, *rest = line.split('\t')
        else:
            name = re.sub(r'( -?\d+)+$', '', line)
            rest = [line[len(name) :]]
        try:
            labels = tuple(int(label) for label in ' '.join(rest).split())
        except ValueError:
            raise ValueError(
                f'{path}: {line!r} has a label that is not a whole number; where a name has spaces '
                'split it from its label by a tab'
            ) from None
        videos.append(Listed(number, name, labels))
    if not videos:
        raise ValueError(f'{path} lists no video; give the annotation file of the videos')
    return videos


def plan_tar_shards(
    videos: Sequence[Listed], folder: Path, out: Path, shard_bytes: int, timeout: float
) -> list[TarShard]:
    """Assign videos to tar shards, or read the plan of the last run; remove unfinished files.

    Args:
        videos: All, in order.
        folder: Where they are.
        out: Folder of the tar shards.
        shard_bytes: Most bytes of videos in a tar shard, unless one video has more.
        timeout: Seconds after which an unfinished file of another run is removed.

    Raises:
        FileNotFoundError: There is no such folder, or no video in it.
        ValueError: ``out`` has tar shards of another list, or of another size.
    """
    if not folder.is_dir():
        raise FileNotFoundError(no_folder(folder))
    digest = hashlib.sha256(b'\n'.join(video.description for video in videos)).hexdigest()
    asked = {'list': f'sha256:{digest}', 'shard_bytes': shard_bytes}
    if (out / PLAN).exists():
        plan = read_json(out / PLAN, dict)
        if any(plan.get(key) != value for key, value in asked.items()):
            raise ValueError(
                f'{out} has tar shards of another list, or of another --shard-size; give another '
                'folder, or remove this one'
            )
        counts = plan['videos_per_shard']
    elif any(out.glob('shard-*.tar')):
        raise ValueError(f'{out} has tar shards and no {PLAN}; give another folder')
    else:
        counts = _fill([_size(folder / video.name) for video in videos], shard_bytes, folder)
        write_lines_atomically(out / PLAN, [json.dumps({**asked, 'videos_per_shard': counts})])
    sweep(out, timeout)
    shards, rest = [], iter(videos)
    for number, count in enumerate(counts):
        path = out.absolute() / f'shard-{number:06d}.tar'
        part = partial_path(path)
        inside = tuple(islice(rest, count))
        shards.append(TarShard(folder.absolute(), inside, path, part))
    return shards


def write_tar_shards(
    todo: Sequence[TarShard], num_workers: int, timeout: float
) -> Generator[tuple[TarShard, str | None], None, None]:
    """Write tar shards in parallel.

    Yields:
        A tar shard, and what went wrong, or ``None``.
    """
    again: list[TarShard] = []
    with closing(write_isolated(write_tar_shard, todo, num_workers, timeout)) as results:
        for shard, _, wrong in results:
            crashing = _find_crashing(shard, num_workers) if _is_lost(wrong) else ()
            if crashing:
                again.append(replace(shard, left_out=(*shard.left_out, *crashing)))
            else:
                yield shard, wrong
    if again:
        yield from write_tar_shards(again, num_workers, timeout)


def _is_lost(wrong: str | None) -> bool:
    """Whether the process crashed or hung, so that it could not name the video."""
    return wrong is not None and ('crashed (' in wrong or wrong.startswith('no answer in'))


def _find_crashing(shard: TarShard, num_workers: int) -> tuple[tuple[int, str], ...]:
    """Open each video of a tar shard in its own process; return those that crash or hang it."""
    known = dict(shard.left_out)
    numbers = {shard.folder / video.name: video.number for video in shard.videos}
    paths = [path for path, number in numbers.items() if number not in known]
    with closing(call_isolated(_open, paths, num_workers, OPENING, (__name__,))) as results:
        return tuple(
            (numbers[path], wrong) for path, _, wrong in results if wrong and _is_lost(wrong)
        )


def _open(path: Path) -> None:
    Video(path)


def write_tar_shard(shard: TarShard) -> None:
    """Write a tar shard, read it back, and give it its final name; or raise ``ValueError``."""
    while True:
        try:
            written = _write_part(shard)
            break
        except _SourceError as error:  # it is partly in the file, so start over
            shard = replace(shard, left_out=(*shard.left_out, (error.number, str(error))))
    with shard.part.open('rb') as file:
        found = {}
        for member in read_tar_shard(shard, shard.part)[0]:
            file.seek(member.offset)
            found[member.number] = _digest(file, member.size)
    if found != written:
        raise ValueError(f'{shard.path} read back from the disk differs from what was written')
    rename_atomically(shard.part, shard.path)


def _write_part(shard: TarShard) -> dict[int, str]:
    """Write the unfinished file of a tar shard; return number → SHA-256 of each video in it.

    Raises:
        _SourceError: A video disappeared or changed meanwhile.
    """
    left_out, written = dict(shard.left_out), {}
    with tarfile.open(shard.part, 'w', format=tarfile.GNU_FORMAT) as tar:
        for video in shard.videos:
            if video.number in left_out:
                continue
            path = shard.folder / video.name
            try:
                Video(path)
            except UnreadableVideo as error:
                left_out[video.number] = error.reason
                continue
            key = key_of(video.number)
            with _Source(path, video.number) as source:
                ending = 'tar' if is_folder(path) else _plain(path.suffix[1:].lower())
                info = tarfile.TarInfo(f'{key}.{ending}')
                info.size = source.size
                tar.addfile(info, source)  # type: ignore[arg-type]
            written[video.number] = source.digest.hexdigest()
            _add(tar, f'{key}.json', video.description)
        _add(tar, LEFT_OUT, json.dumps(left_out).encode())
    return written


def read_tar_shard(shard: TarShard, path: Path) -> tuple[list[Member], dict[int, str]]:
    """List the videos in a tar shard, and check that it is complete.

    Returns:
        Where the videos are; and number → reason of those that were left out.

    Raises:
        ValueError: It is damaged, or belongs to another list.
    """
    wrong = f'the tar shard {path} is damaged, or not of this list; remove it and run this again'
    members = []
    try:
        with tarfile.open(path, 'r:') as tar:
            *files, last = tar.getmembers()
            left_out = {int(number): why for number, why in _table(_content(tar, last)).items()}
            inside = [video for video in shard.videos if video.number not in left_out]
            for video, file, description in zip(inside, files[::2], files[1::2], strict=True):
                if _content(tar, description) != video.description or last.name != LEFT_OUT:
                    raise ValueError(wrong)
                members.append(Member(shard.path.name, file.offset_data, file.size, video.number))
    except (tarfile.TarError, ValueError, AttributeError):
        raise ValueError(wrong) from None
    return members, left_out


def list_entries(shards: Sequence[TarShard]) -> tuple[list[Entry], dict[Path, str]]:
    """Return the index entries of finished tar shards, and file → reason of those left out."""
    entries, failed = [], {}
    for shard in shards:
        found, left_out = read_tar_shard(shard, shard.path)
        members = {member.number: member for member in found}
        for video in shard.videos:
            entries.append(Entry(members.get(video.number), video.name, video.labels))
            if video.number in left_out:
                failed[shard.folder / video.name] = left_out[video.number]
    return entries, failed


def _fill(sizes: Sequence[int], most: int, folder: Path) -> list[int]:
    """Count how many videos go into each tar shard, in order."""
    if not any(sizes):
        raise FileNotFoundError(
            f'none of the {len(sizes):,} listed videos is in {folder}; give the folder that the '
            'names in the annotation file are relative to'
        )
    counts, size = [0], 0
    for more in sizes:
        if counts[-1] and size + more > most:
            counts.append(0)
            size = 0
        counts[-1] += 1
        size += more
    return counts


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum((path / name).stat().st_size for name in list_folder(path).images)
        return path.stat().st_size if path.is_file() else 0
    except (OSError, ValueError):
        return 0


def _plain(ending: str) -> str:
    """Keep a file's ending if it cannot be mistaken for anything."""
    return ending if ending.isascii() and ending.isalnum() and ending != 'json' else 'video'


class _SourceError(Exception):
    """A source that cannot be read any more, its number, and why."""

    def __init__(self, why: str, number: int) -> None:
        super().__init__(why)
        self.number = number


class _Source:
    """A file that is hashed while it is read; its errors carry the number of the video.

    A folder of frames is read as the tar file of its frames, which is made in memory.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.digest = hashlib.sha256()
        self.number = number
        try:
            self._file: BinaryIO = (
                io.BytesIO(pack_frames(path)) if is_folder(path) else path.open('rb')
            )
            self.size = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
        except OSError as error:
            raise _SourceError(
                f'it disappeared while it was packed ({error.strerror})', number
            ) from None
        except ValueError as error:
            raise _SourceError(str(error), number) from None

    def read(self, size: int) -> bytes:
        try:
            content = self._file.read(size)
        except OSError as error:
            raise _SourceError(f'it cannot be read ({error.strerror})', self.number) from None
        if len(content) < size:
            raise _SourceError('it became shorter while it was packed', self.number)
        self.digest.update(content)
        return content

    def __enter__(self) -> '_Source':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _digest(file: BinaryIO, size: int) -> str:
    """Hash the next bytes of a file."""
    digest = hashlib.sha256()
    while size and (chunk := file.read(min(size, CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    if info.size > LARGEST_DESCRIPTION:  # a sparse member of a few bytes may state any size
        raise ValueError(f'{info.size:,} bytes')
    file = tar.extractfile(info)
    return file.read() if file else b''


def _table(content: bytes) -> dict[str, Any]:
    table = parse_json(content, LEFT_OUT)
    if not isinstance(table, dict) or not all(type(why) is str for why in table.values()):
        raise ValueError(LEFT_OUT)
    return table
