"""Packing videos into shards, plain tar files, so that a data set is hundreds of files.

What goes into which shard is planned once, kept in ``plan.json``, and the same whenever the tool
is started again: a shard that has its name is whole, and is not written again. It gets its name
when every video in it has been read back and is what its file was. The index is made of what the
finished shards hold.

A source that cannot be opened as a video, that vanishes or changes while it is packed, or that
crashes or stalls the process that opens it, is left out of the shards and keeps its line in the
index.
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
from mmtimesformer.datasets.preparation.isolation import call_apart
from mmtimesformer.datasets.preparation.reading import read_json, read_lines
from mmtimesformer.datasets.preparation.resizing import discard, sweep
from mmtimesformer.datasets.tar_shards.index import Entry, Member, key_of
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.errors import UnreadableVideo
from mmtimesformer.fileio.atomic import (
    partial_path,
    rename_atomically,
    write_lines_atomically,
)
from mmtimesformer.fileio.safe_text import parse_json

PLAN = 'plan.json'
LARGEST_DESCRIPTION = 8 << 20  # bytes
LEFT_OUT = '__left_out__'  # the last member of a shard; WebDataset passes over such names
OPENING = 120  # seconds to open one video, when a process died or stalled at one of many
CHUNK = 2**22  # bytes that are copied at a time


@dataclass(frozen=True)
class Listed:
    """A video to be packed.

    Attributes:
        number: Of its line in the list, from 0.
        name: Its file, relative to the folder of the videos.
        labels: Numbers of its classes.
    """

    number: int
    name: str
    labels: tuple[int, ...]

    @property
    def description(self) -> bytes:
        """What lies beside it in its shard."""
        text = json.dumps({'name': self.name, 'labels': self.labels}, ensure_ascii=False)
        return text.encode()


@dataclass(frozen=True)
class Shard:
    """A shard to be written.

    Attributes:
        folder: Where the videos are.
        videos: What goes into it.
        path: The file.
        part: Where it is written until it is finished.
        left_out: Numbers of videos that are left out whatever they are, and why.
    """

    folder: Path
    videos: tuple[Listed, ...]
    path: Path
    part: Path
    left_out: tuple[tuple[int, str], ...] = ()


def list_labelled(path: Path) -> list[Listed]:
    """Read an annotation file: a video and its labels in each line.

    Raises:
        ValueError: A label is no number, or there is no line.
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
                f'{path}: {line!r} has a label that is no whole number; where a name has spaces '
                'split it from its label by a tab'
            ) from None
        videos.append(Listed(number, name, labels))
    if not videos:
        raise ValueError(f'{path} lists no video; give the annotation file of the videos')
    return videos


def plan_shards(
    videos: Sequence[Listed], folder: Path, out: Path, shard_bytes: int, timeout: float
) -> list[Shard]:
    """Decide what goes into which shard, or read what was decided; sweep up what is half written.

    Args:
        videos: All, in order.
        folder: Where they are.
        out: Folder of the shards.
        shard_bytes: So many bytes of videos in a shard, and not more unless one video has more.
        timeout: Seconds after which an unfinished file belongs to nobody any more.

    Raises:
        FileNotFoundError: There is no such folder, or no video in it.
        ValueError: ``out`` has shards of another list, or of another size.
    """
    if not folder.is_dir():
        raise FileNotFoundError(no_folder(folder))
    digest = hashlib.sha256(b'\n'.join(video.description for video in videos)).hexdigest()
    asked = {'list': f'sha256:{digest}', 'shard_bytes': shard_bytes}
    if (out / PLAN).exists():
        plan = read_json(out / PLAN, dict)
        if any(plan.get(key) != value for key, value in asked.items()):
            raise ValueError(
                f'{out} has shards of another list, or of another --shard-size; give another '
                'folder, or remove this one'
            )
        counts = plan['videos_per_shard']
    elif any(out.glob('shard-*.tar')):
        raise ValueError(f'{out} has shards and no {PLAN}; give another folder')
    else:
        counts = _fill([_size(folder / video.name) for video in videos], shard_bytes, folder)
        write_lines_atomically(out / PLAN, [json.dumps({**asked, 'videos_per_shard': counts})])
    sweep(out, timeout)
    shards, rest = [], iter(videos)
    for number, count in enumerate(counts):
        path = out.absolute() / f'shard-{number:06d}.tar'
        part = partial_path(path)
        inside = tuple(islice(rest, count))
        shards.append(Shard(folder.absolute(), inside, path, part))
    return shards


def write_shards(
    todo: Sequence[Shard], num_workers: int, timeout: float
) -> Generator[tuple[Shard, str | None], None, None]:
    """Write shards in parallel.

    Yields:
        A shard, and what went wrong, or ``None``.
    """
    at_work = set(todo)
    again: list[Shard] = []
    results = call_apart(write_shard, todo, num_workers, timeout, (__name__,))
    try:
        with closing(results):
            for shard, _, wrong in results:
                discard(shard.part)
                at_work.discard(shard)
                killers = _find_killers(shard, num_workers) if _is_lost(wrong) else ()
                if killers:
                    again.append(replace(shard, left_out=(*shard.left_out, *killers)))
                else:
                    yield shard, wrong
    finally:
        for shard in at_work:  # those whose processes have just been killed
            discard(shard.part)
    if again:
        yield from write_shards(again, num_workers, timeout)


def _is_lost(wrong: str | None) -> bool:
    """Whether a process died or stalled, and said nothing itself."""
    return wrong is not None and ('crashed (' in wrong or wrong.startswith('no answer in'))


def _find_killers(shard: Shard, num_workers: int) -> tuple[tuple[int, str], ...]:
    """Open each video of a shard in a process of its own; return those that end or stall it."""
    known = dict(shard.left_out)
    numbers = {shard.folder / video.name: video.number for video in shard.videos}
    paths = [path for path, number in numbers.items() if number not in known]
    with closing(call_apart(_open, paths, num_workers, OPENING, (__name__,))) as results:
        return tuple(
            (numbers[path], wrong) for path, _, wrong in results if wrong and _is_lost(wrong)
        )


def _open(path: Path) -> None:
    Video(path)


def write_shard(shard: Shard) -> None:
    """Write a shard, read it back, and let it have its name.

    Raises:
        ValueError: What came back is not what was written.
    """
    while True:
        try:
            written = _write_part(shard)
            break
        except _SourceError as error:  # a part of it is written, so all is written again
            shard = replace(shard, left_out=(*shard.left_out, (error.number, str(error))))
    with shard.part.open('rb') as file:
        found = {}
        for member in read_shard(shard, shard.part)[0]:
            file.seek(member.offset)
            found[member.number] = _digest(file, member.size)
    if found != written:
        raise ValueError(f'{shard.path} did not come back from the disk as it was written')
    rename_atomically(shard.part, shard.path)


def _write_part(shard: Shard) -> dict[int, str]:
    """Write the unfinished file of a shard.

    Returns:
        The number and SHA-256 of each video in it.

    Raises:
        _SourceError: A video vanished or changed on the way.
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
                info = tarfile.TarInfo(f'{key}.{_plain(path.suffix[1:].lower())}')
                info.size = source.size
                tar.addfile(info, source)  # type: ignore[arg-type]
            written[video.number] = source.digest.hexdigest()
            _add(tar, f'{key}.json', video.description)
        _add(tar, LEFT_OUT, json.dumps(left_out).encode())
    return written


def read_shard(shard: Shard, path: Path) -> tuple[list[Member], dict[int, str]]:
    """Find the videos in the file of a shard, and see that all of it is there.

    Returns:
        Where the videos are; and why others of the shard were left out, by their numbers.

    Raises:
        ValueError: It is damaged, or a shard of another list.
    """
    wrong = f'the shard {path} is damaged, or not of this list; remove it and run this again'
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


def list_entries(shards: Sequence[Shard]) -> tuple[list[Entry], dict[Path, str]]:
    """Make the entries of an index of what the finished shards hold.

    Returns:
        The entries; and the files that were left out, with the reasons.
    """
    entries, failed = [], {}
    for shard in shards:
        found, left_out = read_shard(shard, shard.path)
        members = {member.number: member for member in found}
        for video in shard.videos:
            entries.append(Entry(members.get(video.number), video.name, video.labels))
            if video.number in left_out:
                failed[shard.folder / video.name] = left_out[video.number]
    return entries, failed


def _fill(sizes: Sequence[int], most: int, folder: Path) -> list[int]:
    """Count how many videos go into each shard, in order."""
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
        return path.stat().st_size if path.is_file() else 0
    except OSError:
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
    """A file that is read once, hashed on the way; what goes wrong is an error of this file alone.

    Attributes:
        size: Bytes.
        digest: SHA-256 of what has been read.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.digest = hashlib.sha256()
        self.number = number
        try:
            self._file = path.open('rb')
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise _SourceError(
                f'it vanished while it was packed ({error.strerror})', number
            ) from None

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
    if info.size > LARGEST_DESCRIPTION:  # a sparse member of a few bytes may say any size
        raise ValueError(f'{info.size:,} bytes')
    file = tar.extractfile(info)
    return file.read() if file else b''


def _table(content: bytes) -> dict[str, Any]:
    table = parse_json(content, LEFT_OUT)
    if not isinstance(table, dict) or not all(type(why) is str for why in table.values()):
        raise ValueError(LEFT_OUT)
    return table
