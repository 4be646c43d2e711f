"""Read zip archives safely: sizes, overlaps, names and methods are checked first.

5 MB may unpack to gigabytes, and a table of contents may name the same bytes a thousand times.
"""

import io
import struct
import zipfile
import zlib
from typing import BinaryIO

LARGEST_DIRECTORY = 4 << 20  # bytes of the table of contents; about 40,000 members
BASE = 32 << 20  # bytes that the members of any archive may unpack to
FACTOR = 8  # and so many more for each byte of the file; real weights shrink by a tenth
CHUNK = 1 << 20


class ZipError(ValueError):
    """An archive is cut short, contradicts itself, or unpacks to more than is allowed."""


class SafeZip:
    """The members of a zip archive.

    Args:
        file: The archive.
        size: Its bytes.

    Raises:
        ZipError: It is not a complete archive, or asks for more than is allowed.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        try:
            self.archive = zipfile.ZipFile(_Limited(file))
        except zipfile.BadZipFile:
            raise ZipError(
                'is cut short: its last part, the table of contents, is missing'
            ) from None
        except (NotImplementedError, struct.error, ValueError, OverflowError, IndexError) as error:
            if isinstance(error, ZipError):
                raise
            raise ZipError(f'is damaged: no table of contents ({type(error).__name__})') from None
        members = self.archive.infolist()
        self.members = {member.filename: member for member in members}
        if len(self.members) != len(members):
            raise ZipError('is refused: two of its members have the same name')
        self.total = sum(member.file_size for member in members)
        self._check(members)

    def _check(self, members: list[zipfile.ZipInfo]) -> None:
        allowed = BASE + FACTOR * self.size
        if self.total > allowed:
            raise ZipError(
                f'is refused: its {self.size:,} bytes would unpack to {self.total:,}, and at most '
                f'{allowed:,} are allowed (a zip bomb)'
            )
        end = 0
        for member in sorted(members, key=lambda member: member.header_offset):
            if member.header_offset < end:
                raise ZipError('is refused: its members overlap')
            end = member.header_offset + 30 + len(member.orig_filename) + member.compress_size
            if member.flag_bits & 1:
                raise ZipError('is refused: it is encrypted')
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ZipError(f'is refused: compression method {member.compress_type} is not read')
            if member.compress_type == zipfile.ZIP_STORED and (
                member.compress_size != member.file_size
            ):
                raise ZipError('is damaged: a stored member has two sizes')
        if end > self.size:
            raise ZipError('is cut short: its members end behind its end')

    def read(self, name: str) -> bytes:
        """Return a member's bytes, checked against its checksum."""
        content = bytearray(self.members[name].file_size)
        self.read_into(name, memoryview(content))
        return bytes(content)

    def read_into(self, name: str, target: memoryview) -> None:
        """Read a member into memory of its size, checked against its checksum.

        Args:
            name: The member.
            target: As many bytes as the member has.
        """
        member = self.members[name]
        if len(target) != member.file_size:
            raise ZipError(f'is damaged: a member has {member.file_size:,} bytes')
        if member.compress_type == zipfile.ZIP_STORED:
            self._read_stored(member, target)
            return
        try:
            with self.archive.open(member) as file:
                done = 0
                while done < len(target) and (chunk := file.read(min(CHUNK, len(target) - done))):
                    target[done : done + len(chunk)] = chunk
                    done += len(chunk)
                rest = file.read(1)
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, UnicodeError) as error:
            raise ZipError(f'is damaged: a member cannot be unpacked ({error})') from None
        if done != len(target) or rest:
            raise ZipError('is damaged: a member has another size than the table of contents gives')

    def corrupt_member(self) -> str | None:
        """Return the first member whose bytes do not match its checksum, or None; all are read."""
        return next((name for name in self.members if not self._is_whole(name)), None)

    def _is_whole(self, name: str) -> bool:
        try:
            with self.archive.open(self.members[name]) as file:
                while file.read(CHUNK):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, UnicodeError):
            return False
        return True

    def _read_stored(self, member: zipfile.ZipInfo, target: memoryview) -> None:
        self.file.seek(member.header_offset)
        header = self.file.read(30)
        if len(header) != 30 or header[:4] != b'PK\x03\x04':
            raise ZipError('is damaged: a member is not where the table of contents has it')
        name, extra = struct.unpack('<HH', header[26:30])
        self.file.seek(name + extra, io.SEEK_CUR)
        done = 0
        while done < len(target):
            count = self.file.readinto(target[done:])  # type: ignore[attr-defined]
            if not count:
                raise ZipError('is cut short: a member ends too early')
            done += count
        if zlib.crc32(target) != member.CRC:
            raise ZipError('is damaged: a member does not match its checksum')


class _Limited:
    """A file of which no more than the largest table of contents is read at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell
        self.seekable = file.seekable

    def read(self, count: int = -1) -> bytes:
        if count > LARGEST_DIRECTORY:
            raise ZipError(
                f'is refused: its table of contents has {count:,} bytes, and at most '
                f'{LARGEST_DIRECTORY:,} are read'
            )
        return self.file.read(count)
