"""The members of a zip archive, by zipfile's parser of the central directory.

The central directory lacks the start of a member's bytes. This module reads each local header for
it and compares the two, which detects a false directory.
"""

from __future__ import annotations

import errno
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any, Final, cast

from zcfuse.tree.archive._errors import ArchiveError
from zcfuse.tree.archive._limits import ZIP_DIRECTORY
from zcfuse.tree.archive._members import (
    LARGEST_SIZE,
    Kind,
    LeftOut,
    Record,
    clamp_ns,
)
from zcfuse.tree.archive._names import LONGEST_TARGET, target_trouble
from zcfuse.tree.archive._reader import Reader, read_at
from zcfuse.tree.archive._unpack import BadMemberError, unpacked_bytes

LOCAL_HEADER: Final = Struct("<4s5H3I2H")
LOCAL_SIGNATURE: Final = b"PK\x03\x04"
SIGNATURES: Final = (LOCAL_SIGNATURE, b"PK\x05\x06", b"PK\x06\x06")

ENCRYPTED: Final = 0x1 | 0x40
PATCH: Final = 0x20
UTF8_NAME: Final = 0x800
MADE_ON_UNIX: Final = 3

METHODS: Final = {
    zipfile.ZIP_STORED: Kind.FILE,
    zipfile.ZIP_DEFLATED: Kind.DEFLATED,
    zipfile.ZIP_BZIP2: Kind.BZIP2,
    zipfile.ZIP_LZMA: Kind.LZMA,
}

EXTENDED_TIMESTAMP: Final = 0x5455
HAS_MTIME: Final = 1

FILE_MODE: Final = 0o644
DIRECTORY_MODE: Final = 0o755


class _Sink:
    """Replaces ZipFile's containers, and passes each member on instead of keeping it."""

    def __init__(self, take: Callable[[zipfile.ZipInfo], None]) -> None:
        self.append = take

    def __setitem__(self, name: str, member: zipfile.ZipInfo) -> None:
        """Ignore a member that ZipFile stores under its name."""

    def __iter__(self) -> Iterator[zipfile.ZipInfo]:
        return iter(())


class _Directory(zipfile.ZipFile):
    """Reads a central directory without keeping it: a ZipInfo takes half a kilobyte."""

    def __init__(self, reader: Reader, take: Callable[[zipfile.ZipInfo], None]) -> None:
        self._sink = _Sink(take)
        super().__init__(cast(Any, reader), "r")

    @property
    def filelist(self) -> list[zipfile.ZipInfo]:
        """ZipFile appends members to this."""
        return cast("list[zipfile.ZipInfo]", self._sink)

    @filelist.setter
    def filelist(self, value: object) -> None:
        """Ignore the list that ZipFile would keep."""

    @property
    def NameToInfo(self) -> dict[str, zipfile.ZipInfo]:  # noqa: N802
        """ZipFile stores members by name here."""
        return cast("dict[str, zipfile.ZipInfo]", self._sink)

    @NameToInfo.setter
    def NameToInfo(self, value: object) -> None:  # noqa: N802
        """Ignore the dictionary that ZipFile would keep."""


def is_zip(fd: int, size: int, start: bytes) -> bool:
    """Return whether a file is a zip archive, possibly after a self-extracting program."""
    if start.startswith(SIGNATURES):
        return True
    try:
        return zipfile.is_zipfile(cast(Any, Reader(fd, size, size)))
    except (OSError, ValueError):
        return False


def zip_members(
    path: bytes, fd: int, size: int, owner: tuple[int, int], take: Callable[[int, Any], None]
) -> None:
    """Call take(bytes of the archive done, member) for each, in the order of the directory.

    Members belong to `owner`, a user and a group id, because zip's are unreliable.
    """

    ours: list[BaseException] = []

    def one(info: zipfile.ZipInfo) -> None:
        try:
            take(min(max(info.header_offset, 0), size), _member(info, fd, size, owner))
        except BaseException as error:
            ours.append(error)
            raise

    try:
        with _Directory(Reader(fd, size, ZIP_DIRECTORY), one):
            pass
    except MemoryError:
        raise
    except Exception as error:
        if ours or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        raise ArchiveError(path, f"the zip archive's directory cannot be read ({error})") from error


def _member(info: zipfile.ZipInfo, fd: int, size: int, owner: tuple[int, int]) -> Record | LeftOut:
    raw = _raw_name(info)
    name = raw if _is_verbatim(info) else info.orig_filename.encode("utf-8")
    mode = info.external_attr >> 16
    uid, gid = owner
    record = Record(name, Kind.FILE, stat.S_IMODE(mode), uid, gid, _mtime_ns(info))
    if name.endswith(b"/") or stat.S_ISDIR(mode):
        record.kind = Kind.DIRECTORY
        record.mode = record.mode or DIRECTORY_MODE
        return record
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFLNK):
        return LeftOut(name, "a device, FIFO or socket")
    record.mode = record.mode or FILE_MODE
    _place(record, info, raw, fd, size)
    return _symlink(record, fd) if stat.S_ISLNK(mode) else record


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    """Return the name's bytes in the directory; code page 437 maps all 256."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & UTF8_NAME else "cp437")


def _is_verbatim(info: zipfile.ZipInfo) -> bool:
    """Return whether to show a name's bytes unchanged instead of as code page 437."""
    return bool(info.flag_bits & UTF8_NAME) or info.create_system == MADE_ON_UNIX


def _place(record: Record, info: zipfile.ZipInfo, raw: bytes, fd: int, size: int) -> None:
    """Set the place and compression of a file's bytes, or why it is unreadable."""
    record.size, record.stored, record.crc = info.file_size, info.compress_size, info.CRC
    kind = METHODS.get(info.compress_type)
    if record.size > LARGEST_SIZE:
        record.size = 0
        return _give_up(record, "no file can have its size")
    if info.flag_bits & (ENCRYPTED | PATCH):
        return _give_up(record, "it is encrypted")
    if kind is None:
        return _give_up(record, f"compression method {info.compress_type} is not known")
    if kind == Kind.FILE and record.stored != record.size:
        return _give_up(record, "it is stored, and its two sizes differ")
    record.kind = kind
    return _place_data(record, info.header_offset, raw, fd, size)


def _place_data(record: Record, header: int, raw: bytes, fd: int, size: int) -> None:
    """Read the local header for the start of the data."""
    found = read_at(fd, LOCAL_HEADER.size + len(raw), header) if 0 <= header < size else b""
    if len(found) < LOCAL_HEADER.size + len(raw) or not found.startswith(LOCAL_SIGNATURE):
        return _give_up(record, "it has no local header where the directory says")
    *_, name_length, extra_length = LOCAL_HEADER.unpack_from(found)
    if name_length != len(raw) or found[LOCAL_HEADER.size :] != raw:
        return _give_up(record, "its local header has another name")
    record.offset = header + LOCAL_HEADER.size + name_length + extra_length
    if record.offset + record.stored > size:
        return _give_up(record, "the archive ends before the member does")
    return None


def _give_up(record: Record, reason: str) -> None:
    record.kind, record.reason, record.offset, record.stored = Kind.UNREADABLE, reason, 0, 0


def _symlink(record: Record, fd: int) -> Record | LeftOut:
    """Turn a file whose bytes are a symlink's target into a symlink."""
    trouble = record.reason
    if not trouble and record.size > LONGEST_TARGET:
        trouble = f"a symlink's target is longer than {LONGEST_TARGET} bytes"
    if not trouble:
        try:
            record.link = unpacked_bytes(fd, record)
            trouble = target_trouble(record.link)
        except BadMemberError as error:
            trouble = f"a symlink's target cannot be read: {error.reason}"
    if trouble:
        return LeftOut(record.name, trouble)
    record.kind = Kind.SYMLINK
    return record


def _mtime_ns(info: zipfile.ZipInfo) -> int:
    """Return the modification time: in UTC if the member has it, otherwise local time."""
    stamped = _timestamp(info.extra)
    if stamped is not None:
        return stamped * 1_000_000_000
    try:
        return clamp_ns(int(time.mktime((*info.date_time, 0, 0, -1))) * 1_000_000_000)
    except (ValueError, OverflowError):
        return 0


def _timestamp(extra: bytes) -> int | None:
    """Return the seconds of the extended timestamp field, if there is one."""
    while len(extra) >= 4:
        kind, length = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        field = extra[4 : 4 + length]
        if kind == EXTENDED_TIMESTAMP and len(field) >= 5 and field[0] & HAS_MTIME:
            return int.from_bytes(field[1:5], "little", signed=True)
        extra = extra[4 + length :]
    return None
