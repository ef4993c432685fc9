"""The cache of fetched bytes: a directory that any number of mounts and daemons share.

An entry is one version of one file: a sparse data file, and a record file that says which ranges of
it are there. A range is present only by a record with its digest, which is appended after the data
are durable. Nobody trusts a record before the digest of its range has been compared since the start
of the process. So neither a crash nor an edited file makes a wrong byte look right.

Locks: a user of an entry holds flock(2) shared on its data file; an eviction takes it exclusive,
and never waits for it. A fetch holds an open-file-description lock (fcntl(2)) on its range of the
record file, one byte a piece, so that each range is fetched once, and another one while it appends
a record. The kernel drops all of them when a process dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from zcfuse.options import parse_size
from zcfuse.remote._durable import make_durable

PIECE_BYTES: Final = 128 << 10
"""The unit of presence: the least that a read of a missing byte fetches."""

BLOCK_BYTES: Final = 4 << 20
"""The most that one request to a server asks for."""

_HEADER_BYTES: Final = 4096
_HEADER_CHECK: Final = struct.Struct("<I")
_LONGEST_URL: Final = 2048
# Offset and length in bytes, digest of the data (zeros: the range is gone), CRC-32 of all that.
_RECORD: Final = struct.Struct("<QI16sI")
_RECORD_CHECKED: Final = _RECORD.size - 4
_DIGEST_BYTES: Final = 16
_GONE: Final = bytes(_DIGEST_BYTES)

_LOCK: Final = struct.Struct("hhqqi4x")  # struct flock
_APPENDING: Final = 1 << 62  # beyond any piece
_POLL_S: Final = 0.005
_LONGEST_POLL_S: Final = 0.1

_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_SHARE: Final = re.compile(r"(\d+(?:\.\d+)?)%")
_WHOLE_PERCENT: Final = 100
# An eviction goes on until this share of the limit is used, so the next one is not due at once.
_LOW_WATER: Final = 0.9
_SECTOR_BYTES: Final = 512


class CacheError(OSError):
    """The cache directory cannot be used; the message names it."""


class Record(tuple[int, int, bytes]):
    """A range that was written: offset and length in bytes, and the digest of its bytes."""

    __slots__ = ()

    @property
    def offset(self) -> int:
        """Where the range begins."""
        return self[0]

    @property
    def length(self) -> int:
        """Bytes of the range."""
        return self[1]


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry of the cache, for people.

    `size` is that of the whole file, `present` of its recorded ranges, `disk` of the entry's files.
    """

    key: str
    url: str
    version: str
    size: int
    present: int
    disk: int
    used_s: float


def default_directory() -> str:
    """Return the cache's usual directory below that of the user (XDG Base Directory)."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):
        cache = os.path.expanduser("~/.cache")
    return os.path.join(cache, "zcfuse", "remote")


def key_of(identity: str, path: str, version: str) -> str:
    """Return the name of the entry for a version of a file at a server."""
    text = repr((identity, path, version))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def pieces_of(size: int) -> int:
    """Return the number of pieces of a file."""
    return -(-size // PIECE_BYTES)


class Entry:
    """One open entry. It owns two descriptors, and holds the entry against eviction."""

    def __init__(self, data: int, record: int, size: int) -> None:
        self.data = data
        self._record = record
        self._size = size

    def close(self) -> None:
        """Close both files, which drops the locks; a second call does nothing."""
        for fd in (self.data, self._record):
            if fd >= 0:
                os.close(fd)
        self.data = self._record = -1

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever recorded."""
        return os.fstat(self._record).st_size <= _HEADER_BYTES

    def stamp(self) -> tuple[int, int, int]:
        """Return values that differ after any write to the data file."""
        status = os.fstat(self.data)
        return status.st_ino, status.st_ctime_ns, status.st_size

    def use(self) -> None:
        """Note that the entry is used now."""
        with contextlib.suppress(OSError):
            os.utime(self._record)

    def records(self) -> dict[int, Record]:
        """Return the valid record of each piece that has one; the last one counts."""
        found: dict[int, Record] = {}
        for offset, length, digest in self._appended():
            first = offset // PIECE_BYTES
            pieces = range(first, first + pieces_of(length))
            if digest == _GONE:
                for piece in pieces:
                    found.pop(piece, None)
            else:
                record = Record((offset, length, digest))
                found.update((piece, record) for piece in pieces)
        return found

    def is_intact(self, record: Record) -> bool:
        """Compare a record's digest with the data that are there."""
        digest = _digest()
        offset, left = record.offset, record.length
        while left:
            part = os.pread(self.data, min(left, 1 << 20), offset)
            if not part:
                return False
            digest.update(part)
            offset, left = offset + len(part), left - len(part)
        return digest.digest()[:_DIGEST_BYTES] == record[2]

    def writing(self, offset: int) -> Writing:
        """Return what writes a range that begins at `offset`."""
        return Writing(self, offset)

    def drop(self, record: Record) -> None:
        """Record that a range is damaged."""
        self._append(record.offset, record.length, _GONE)

    @contextlib.contextmanager
    def fetching(self, start: int, length: int, deadline: float) -> Iterator[None]:
        """Hold a range of the file, so that only this caller fetches it.

        Raises OSError: ETIMEDOUT if another process holds it until `deadline` (time.monotonic()).
        """
        first = start // PIECE_BYTES
        pieces = pieces_of(start + length) - first
        pause = _POLL_S
        while not _locked(self._record, fcntl.F_WRLCK, first, pieces):
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, "another process fetches the range, and hangs")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_S)
        try:
            yield
        finally:
            _locked(self._record, fcntl.F_UNLCK, first, pieces)

    def begin(self, url: str, version: str) -> None:
        """Write the header, and give the data file its size, where either is missing."""
        with self._appending():
            if os.fstat(self.data).st_size != self._size:
                os.ftruncate(self.data, self._size)
            if _header(self._record) is not None:
                return
            os.ftruncate(self._record, 0)
            text = {"url": url[:_LONGEST_URL], "version": version[:256], "size": self._size}
            head = json.dumps(text).encode().ljust(_HEADER_BYTES - _HEADER_CHECK.size)
            os.pwrite(self._record, head + _HEADER_CHECK.pack(zlib.crc32(head)), 0)

    def _appended(self) -> Iterator[tuple[int, int, bytes]]:
        size = os.fstat(self._record).st_size
        data = os.pread(self._record, max(size - _HEADER_BYTES, 0), _HEADER_BYTES)
        for at in range(0, len(data) - _RECORD.size + 1, _RECORD.size):
            offset, length, digest, check = _RECORD.unpack_from(data, at)
            if zlib.crc32(data[at : at + _RECORD_CHECKED]) != check or not length:
                continue
            whole = length % PIECE_BYTES == 0 or offset + length == self._size
            if offset % PIECE_BYTES == 0 and whole and offset + length <= self._size:
                yield offset, length, digest

    def _append(self, offset: int, length: int, digest: bytes) -> None:
        data = _RECORD.pack(offset, length, digest, 0)[:_RECORD_CHECKED]
        record = data + _HEADER_CHECK.pack(zlib.crc32(data))
        with self._appending():
            # A crash may have left part of a record, which this one then replaces.
            whole = max(os.fstat(self._record).st_size - _HEADER_BYTES, 0) // _RECORD.size
            os.pwrite(self._record, record, _HEADER_BYTES + whole * _RECORD.size)

    @contextlib.contextmanager
    def _appending(self) -> Iterator[None]:
        request = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _APPENDING, 1, 0)
        fcntl.fcntl(self._record, fcntl.F_OFD_SETLKW, request)  # the holder writes 32 bytes
        try:
            yield
        finally:
            _locked(self._record, fcntl.F_UNLCK, _APPENDING, 1)


class Writing:
    """A range that is being written, in order. Without `finish`, nothing records it."""

    def __init__(self, entry: Entry, start: int) -> None:
        self._entry = entry
        self._start = start
        self._digest = _digest()
        self.end = start
        """Where the next byte goes."""

    def add(self, data: bytes | memoryview) -> None:
        """Write what follows. Raises OSError; then the range must not be finished."""
        left = memoryview(data)
        self._digest.update(left)
        while left:
            written = os.pwrite(self._entry.data, left, self.end)
            self.end, left = self.end + written, left[written:]

    def finish(self) -> None:
        """Record the range once it is durable."""
        make_durable(self._entry.data)
        digest = self._digest.digest()[:_DIGEST_BYTES]
        self._entry._append(self._start, self.end - self._start, digest)


class Cache:
    """A cache directory.

    Parameters:
        directory: is created, for this user only, if it is missing.
        size: the limit, in bytes (``"50G"`` as digits) or as a share of its filesystem (``"20%"``).
        floor: the space to leave free on the filesystem, in the same form.

    Raises:
        CacheError: the directory cannot be made, or belongs to another user.
    """

    def __init__(self, directory: str, size: str = "20%", floor: str = "1%") -> None:
        self.directory = os.path.abspath(directory)
        self._size = size
        self._floor = floor
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            status = os.stat(self.directory)
        except OSError as error:
            raise CacheError(
                error.errno, f"cache directory {self.directory}: {error.strerror}"
            ) from error
        if status.st_uid != os.geteuid():
            raise CacheError(errno.EPERM, f"cache directory {self.directory}: of another user")

    def open(self, key: str, size: int, url: str, version: str) -> Entry:
        """Open an entry, which is made if it is missing."""
        data_path, record_path = self._paths(key)
        while True:
            os.makedirs(os.path.dirname(data_path), mode=0o700, exist_ok=True)
            data = os.open(data_path, _FILE, 0o600)
            try:
                fcntl.flock(data, fcntl.LOCK_SH)
                if not _is_at(data, data_path):
                    os.close(data)  # evicted between open and lock
                    continue
                record = os.open(record_path, _FILE, 0o600)
            except BaseException:
                os.close(data)
                raise
            entry = Entry(data, record, size)
            try:
                entry.begin(url, version)
            except BaseException:
                entry.close()
                raise
            return entry

    def reader(self, key: str, stamp: tuple[int, int, int]) -> int:
        """Return a descriptor to read an entry's data by, which holds it against eviction.

        Raises OSError: ESTALE if it is not the data that had this `Entry.stamp`.
        """
        path = self._paths(key)[0]
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            status = os.fstat(fd)
            if (status.st_ino, status.st_ctime_ns, status.st_size) != stamp or not _is_at(fd, path):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def entries(self) -> Iterator[Kept]:
        """Yield what the cache holds, in any order. Skips entries that vanish meanwhile."""
        for key in self._keys():
            with contextlib.suppress(OSError):
                yield self._kept(key)

    def verify(self, key: str) -> tuple[int, int]:
        """Compare all digests of an entry; drop damaged ranges. Return bytes intact, and damaged.

        Raises OSError: ENOENT without such an entry.
        """
        kept = self._kept(key)
        entry = self.open(key, kept.size, kept.url, kept.version)
        intact = damaged = 0
        try:
            for record in {record.offset: record for record in entry.records().values()}.values():
                if entry.is_intact(record):
                    intact += record.length
                else:
                    entry.drop(record)
                    damaged += record.length
        finally:
            entry.close()
        return intact, damaged

    def remove(self, key: str) -> int:
        """Remove an entry that nobody uses; return the bytes of disk that it had.

        Raises OSError: EBUSY if a mount uses it, ENOENT without such an entry.
        """
        data_path, record_path = self._paths(key)
        fd = os.open(data_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), data_path) from None
            if not _is_at(fd, data_path):
                return 0
            freed = os.fstat(fd).st_blocks * _SECTOR_BYTES
            with contextlib.suppress(FileNotFoundError):
                os.unlink(record_path)
            os.unlink(data_path)
            return freed
        finally:
            os.close(fd)

    def evict(self) -> int:
        """Remove the entries used least recently, until the limits hold; return the bytes freed.

        Entries in use stay, so the cache may remain larger than its limit.
        """
        found = sorted((used, key, disk) for key, used, disk in self._usage())
        total = sum(disk for _, _, disk in found)
        limit, floor = self._limits()
        if total <= limit and self._free() >= floor:
            return 0
        freed = 0
        for _, key, disk in found:
            if total <= limit * _LOW_WATER and self._free() >= floor:
                break
            with contextlib.suppress(OSError):
                freed += self.remove(key)
                total -= disk
        return freed

    def has_room(self, wanted: int) -> bool:
        """Return whether `wanted` more bytes leave the floor free."""
        return self._free() - wanted >= self._limits()[1]

    def _limits(self) -> tuple[int, int]:
        found = os.statvfs(self.directory)
        whole = found.f_blocks * found.f_frsize
        return _bytes_of(self._size, whole), _bytes_of(self._floor, whole)

    def _free(self) -> int:
        found = os.statvfs(self.directory)
        return found.f_bavail * found.f_frsize

    def _paths(self, key: str) -> tuple[str, str]:
        if not _KEY.fullmatch(key):
            raise OSError(errno.ENOENT, "no entry of the cache", key)
        above = os.path.join(self.directory, key[:2], key)
        return f"{above}.data", f"{above}.record"

    def _keys(self) -> Iterator[str]:
        for above in sorted(os.listdir(self.directory)):
            with contextlib.suppress(OSError):
                for name in sorted(os.listdir(os.path.join(self.directory, above))):
                    key, _, kind = name.partition(".")
                    if kind == "data" and key[:2] == above and _KEY.fullmatch(key):
                        yield key

    def _usage(self) -> Iterator[tuple[str, float, int]]:
        for key in self._keys():
            data_path, record_path = self._paths(key)
            with contextlib.suppress(OSError):
                disk = os.stat(data_path).st_blocks * _SECTOR_BYTES
                used = 0.0
                with contextlib.suppress(FileNotFoundError):
                    used = os.stat(record_path).st_mtime
                yield key, used, disk

    def _kept(self, key: str) -> Kept:
        data_path, record_path = self._paths(key)
        status = os.stat(data_path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), data_path)
        record = os.open(record_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            told = _header(record) or {}
            size = told.get("size")
            size = size if isinstance(size, int) else status.st_size
            pieces = Entry(-1, record, size).records()
            last = pieces_of(size) - 1
            present = sum(size - last * PIECE_BYTES if p == last else PIECE_BYTES for p in pieces)
            disk = status.st_blocks * _SECTOR_BYTES
            used = os.fstat(record).st_mtime
        finally:
            os.close(record)
        url, version = str(told.get("url", "")), str(told.get("version", ""))
        return Kept(key, url, version, size, present, disk, used)


def check_limit(text: str) -> str:
    """Return a limit as `Cache` takes it: a size, or a share of the disk such as ``20%``.

    Raises:
        ValueError: the text is neither.
    """
    share = _SHARE.fullmatch(text.strip())
    if share is None:
        return str(parse_size(text))
    if float(share[1]) > _WHOLE_PERCENT:
        raise ValueError(f"{text!r} is more than the disk has")
    return share[0]


def _digest() -> hashlib._Hash:
    # Processors have instructions for it; BLAKE2 takes several times as long there.
    return hashlib.sha256(usedforsecurity=False)


def _bytes_of(limit: str, whole: int) -> int:
    share = _SHARE.fullmatch(limit)
    return int(limit) if share is None else int(whole * float(share[1]) / 100)


def _header(record: int) -> dict[str, object] | None:
    data = os.pread(record, _HEADER_BYTES, 0)
    head, check = data[: -_HEADER_CHECK.size], data[-_HEADER_CHECK.size :]
    if len(data) < _HEADER_BYTES or _HEADER_CHECK.unpack(check)[0] != zlib.crc32(head):
        return None
    told = json.loads(head)
    return told if isinstance(told, dict) else None


def _is_at(fd: int, path: str) -> bool:
    """Return whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _locked(fd: int, kind: int, start: int, length: int) -> bool:
    request = _LOCK.pack(kind, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
