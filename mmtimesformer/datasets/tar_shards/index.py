"""Read videos out of tar shards (plain tar files) by an index of their offsets.

A folder holds ``shard-000000.tar``, ... and ``index.tsv``. Each video has two members, as in
WebDataset: ``00000042.mp4``, and ``00000042.json`` with its name and labels. The number is that of
its line in the list. The index has one line for each video of the list, in the same order::

    # 3 videos, sha256 of the lines below: 5f0c...
    shard	offset	size	name	labels
    shard-000000.tar	512	281034	abseiling/a.mp4	0
    shard-000000.tar	282624	190012	abseiling/b.mp4	0
    -	0	0	archery/c.mp4	5

``offset`` and ``size`` are bytes of the video in its tar shard. A video that could not be read when
the tar shards were written has ``-`` for a shard, so order, epochs and scores are those of single
files. Access is random, unlike WebDataset's streams: a training resumes exactly.
"""

import atexit
import hashlib
import os
import re
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.pool import AsyncResult, ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from mmtimesformer.datasets.tar_shards.object_store import FsspecBackend
from mmtimesformer.datasets.video_io.local_folder import LocalFolder
from mmtimesformer.fileio.storage_error import StorageError

INDEX = 'index.tsv'
HEADING = 'shard\toffset\tsize\tname\tlabels'
NO_SHARD = '-'
LINE = re.compile(  # labels: none, or whole numbers split by single spaces
    r'([\w-][\w.-]*)\t(\d{1,15})\t(\d{1,15})\t([^\t]+)\t((?:-?\d{1,9}(?: -?\d{1,9})*)?)'
)
BLOCK = tarfile.BLOCKSIZE  # size of the header in front of each member
READ_AHEAD = 4  # videos that each DataLoader worker fetches at a time


class DamagedTarShardError(ValueError):
    """An index or a tar shard is damaged; the message names the file and the remedy."""


class Member(NamedTuple):
    """Where a video's bytes are."""

    shard: str  # name of the file
    offset: int  # first byte of the video in it
    size: int  # bytes
    number: int  # of the video in its list, from 0


class Entry(NamedTuple):
    """A line of an index."""

    member: Member | None  # None if the video was left out
    name: str  # of its file in the list
    labels: tuple[int, ...]  # numbers of its classes


def key_of(number: int) -> str:
    """Return the name of a video's members, without their endings; it has no dot."""
    return f'{number:08d}'


def format_index(entries: Iterable[Entry]) -> list[str]:
    """Write the lines of an index."""
    lines = [HEADING]
    for member, name, labels in entries:
        shard, offset, size, _ = member or (NO_SHARD, 0, 0, 0)
        lines.append(f'{shard}\t{offset}\t{size}\t{name}\t{" ".join(map(str, labels))}')
    return [f'# {len(lines) - 1} videos, sha256 of the lines below: {_digest(lines)}', *lines]


def parse_index(text: str, path: str) -> list[Entry]:
    """Parse and validate an index; ``path`` is its name in errors.

    Raises:
        DamagedTarShardError: It is cut short, changed, or not an index.
    """
    first, *lines = text.split('\n')[:-1] or ['']
    if not first.startswith('# '):  # removed by a user who changed the lines
        lines.insert(0, first)
    elif first.rpartition(' ')[2] != _digest(lines):
        raise DamagedTarShardError(
            f'the index {path} was cut short or changed after it was written; copy it again, or '
            'write it again with tools/data/write_shards.py. If you changed it on purpose, '
            'remove its first line, which has the checksum'
        )
    if lines[:1] != [HEADING]:
        raise DamagedTarShardError(
            f'{path} is not an index of tar shards: it has no line {HEADING!r}; set ann_file to '
            f'the {INDEX} that tools/data/write_shards.py has written'
        )
    entries = []
    for number, line in enumerate(lines[1:]):
        found = LINE.fullmatch(line)
        if found is None:
            raise DamagedTarShardError(
                f'{path}: the line of video {number} is {line[:80]!r}, not as {HEADING!r}; write '
                'the index again with tools/data/write_shards.py'
            )
        shard, offset, size, name, labels = found.groups()
        member = None if shard == NO_SHARD else Member(shard, int(offset), int(size), number)
        if member and (member.offset < BLOCK or member.offset % BLOCK):
            raise DamagedTarShardError(
                f'{path}: {name[:80]!a} begins at byte {offset} of {shard[:80]}, where no member '
                'of a tar file can begin; write the index again with tools/data/write_shards.py'
            )
        entries.append(Entry(member, name, tuple(map(int, labels.split()))))
    return entries


class TarShards:
    """Tar shards of one folder, a path or a URL."""

    def __init__(self, folder: str, backend: FsspecBackend) -> None:
        self.folder = folder.rstrip('/') or '.'
        self.backend = backend
        self.is_local = '://' not in folder
        self.local = LocalFolder(self.folder, backend.patience) if self.is_local else None
        self._later: deque[Member] = deque()
        self._coming: dict[Member, AsyncResult[bytes]] = {}
        self._process = os.getpid()

    def path_of(self, shard: str) -> str:
        """Return the path or URL of a tar shard."""
        return f'{self.folder}/{shard}'

    def check(self, members: Iterable[Member]) -> None:
        """Check that local tar shards exist and are long enough.

        In an object store this would take one request for each; there, reading fails.

        Raises:
            DamagedTarShardError: One is missing or too short.
        """
        ends: dict[str, int] = {}
        for member in members if self.is_local else ():
            ends[member.shard] = max(member.offset + member.size, ends.get(member.shard, 0))
        for shard, end in ends.items():
            path = Path(self.path_of(shard))
            size = path.stat().st_size if path.is_file() else None
            if size is None or size < end:
                fault = 'does not exist' if size is None else f'has {size:,} bytes, not {end:,}'
                raise DamagedTarShardError(
                    f'the tar shard {path} {fault}, which its index requires; copy it again, or '
                    'set data_prefix.video to the folder of the tar shards'
                )

    def read_ahead(self, members: Iterable[Member]) -> None:
        """Start to fetch the videos that are read next, in this order.

        The operating system fetches them from a disk, a few threads from a store.
        """
        self._later, self._coming, self._process = deque(members), {}, os.getpid()
        if not self.is_local:
            self._begin()
            return
        if hasattr(os, 'posix_fadvise'):
            with suppress(OSError):  # raised when it is read
                for shard, offset, size, _ in self._later:
                    with Path(self.path_of(shard)).open('rb') as file:
                        os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)

    @contextmanager
    def opened(self, member: Member) -> Iterator[Path]:
        """Yield the path of a file in memory that holds one video.

        Raises:
            DamagedTarShardError: The tar shard does not match the index.
            StorageError: It cannot be read.
        """
        content = memoryview(self._content(member))
        self._check_header(bytes(content[:BLOCK]), member)
        if len(content) != BLOCK + member.size:
            raise self._damaged(member, f'it ends after {len(content) - BLOCK:,} bytes of it')
        with _file_in_memory() as (descriptor, path):
            with open(descriptor, 'wb', closefd=False) as file:
                file.write(content[BLOCK:])
            del content
            yield path

    def _content(self, member: Member) -> bytes:
        """Return a video's header and bytes, from the read-ahead if it has them."""
        if self._process != os.getpid():  # a forked process has none of the threads
            self._later, self._coming = deque(), {}
        coming = self._coming.pop(member, None)
        if not self.is_local:
            self._begin()
        return coming.get() if coming else self._fetch(member)

    def _begin(self) -> None:
        while self._later and len(self._coming) < READ_AHEAD:
            member = self._later.popleft()
            self._coming[member] = _threads(os.getpid()).apply_async(self._fetch_ahead, (member,))

    def _fetch_ahead(self, member: Member) -> bytes:
        """Fetch in a thread; its pool would wait for ever after another ``BaseException``."""
        try:
            return self._fetch(member)
        except Exception:
            raise
        except BaseException as error:
            raise StorageError(f'{self.path_of(member.shard)}: {error!r}') from error

    def _fetch(self, member: Member) -> bytes:
        start, stop = member.offset - BLOCK, member.offset + member.size
        path = self.path_of(member.shard)
        while True:
            try:
                content = self.backend.get_range(path, start, stop)
            except StorageError:  # noqa: PERF203 (rare)
                if self.local is None or not self.local.is_lost(path):
                    raise
                self.local.wait(path)  # a folder that disappeared, not a tar shard
            else:
                if self.local is not None:
                    self.local.note_read(path)
                return content

    def _check_header(self, header: bytes, member: Member) -> None:
        """Check that index and tar shard match, by the header of the video."""
        try:
            info = tarfile.TarInfo.frombuf(header, 'utf-8', 'surrogateescape')
        except tarfile.HeaderError:
            raise self._damaged(member, 'it has no member there') from None
        if info.name.partition('.')[0] != key_of(member.number) or info.size != member.size:
            raise self._damaged(member, f'it has {info.name} there, of {info.size:,} bytes')

    def _damaged(self, member: Member, fault: str) -> DamagedTarShardError:
        return DamagedTarShardError(
            f'the tar shard {self.path_of(member.shard)} is damaged or does not belong to its '
            f'index: by the index, video {member.number}, of {member.size:,} bytes, '
            f'begins at byte {member.offset:,}; {fault}. Copy tar shards and index again'
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_later': deque(), '_coming': {}}


@contextmanager
def _file_in_memory() -> Iterator[tuple[int, Path]]:
    """Yield an empty file (in memory, where the system has memfd) and its path."""
    if hasattr(os, 'memfd_create'):
        descriptor = os.memfd_create('video')
        path = Path(f'/proc/self/fd/{descriptor}')
    else:
        descriptor, name = tempfile.mkstemp()
        path = Path(name)
    try:
        yield descriptor, path
    finally:
        os.close(descriptor)
        if not hasattr(os, 'memfd_create'):
            path.unlink()


@cache
def _threads(process: int) -> ThreadPool:
    """Return the threads of a process; its exit does not wait for them."""
    threads = ThreadPool(READ_AHEAD)
    atexit.register(threads.terminate)
    return threads


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256(''.join(f'{line}\n' for line in lines).encode()).hexdigest()


__all__ = [
    'DamagedTarShardError',
    'Entry',
    'Member',
    'TarShards',
    'StorageError',
    'format_index',
    'key_of',
    'parse_index',
]
