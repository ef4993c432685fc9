"""Keeps files of a mount in memory: maps and locks ranges of backing files.

Every call except `totals` may block on a disk or read a page table, so call them in worker threads,
never in the trio loop. The thread that locks a range also records it. So the report has every
locked range, even if a client leaves or a task is cancelled. Threads hold no mutex while they read
a file in.

A mapping keeps its file like an open descriptor, but needs none. A truncated file loses the locked
pages behind its end, and those of a large folio that the kernel splits there. A replaced file stays
locked as it was. `report` shows both cases, and locking the file again repairs them. Neither harms
the process, which touches no mapped byte.
"""

from __future__ import annotations

import bisect
import errno
import os
import threading
from collections.abc import Sequence
from typing import Final

import msgspec

from zcfuse.admin._messages import LockedFile, LockOutcome, LockReport
from zcfuse.admin.locks._room import LockRoom
from zcfuse.admin.status import printable
from zcfuse.linux import PAGE_BYTES, Mapping, data_ranges, whole_pages
from zcfuse.tree import HOLE, Extent

_MAPS: Final = "/proc/self/maps"
_MOST_LISTED: Final = 1000
# A mapping costs as much as some pages, so the lock of a range includes its smaller holes.
_LEAST_HOLE: Final = 1 << 20
# If a piece finds no room, try no smaller part of it than this.
_LEAST_PART: Final = 1 << 20
_MEMORY: Final = b"/memfd:"

_HELD: Final = "locked already"

REPLACED: Final = "replaced, moved or removed: the file that was there is still locked"
TRUNCATED: Final = "truncated: not all of it is locked any more; lock it again"


class Pages(msgspec.Struct, frozen=True):
    """Whole pages of one file: its (device, inode number), its path, offset and length in bytes.

    The path comes from the process's own descriptor.
    """

    fd: int
    file: tuple[int, int]
    path: bytes
    offset: int
    length: int

    def part(self, offset: int, end: int) -> Pages:
        """Return the same file's pages between two offsets."""
        return msgspec.structs.replace(self, offset=offset, length=end - offset)


class _Locked(msgspec.Struct, eq=False):
    piece: Pages
    mapping: Mapping


class FileLocks:
    """The locked ranges of one mount, by the path of the file in the mount. Thread-safe."""

    def __init__(self, room: LockRoom) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._files: dict[bytes, list[_Locked]] = {}
        self._locked_bytes = 0
        self._closed = False

    @property
    def locked_bytes(self) -> int:
        """The number of locked bytes."""
        return self._locked_bytes

    def bytes_of(self, path: bytes) -> int:
        """Return the number of locked bytes of one file."""
        with self._lock:
            return sum(one.piece.length for one in self._files.get(path, ()))

    def lock(
        self, path: bytes, pieces: Sequence[Pages], files: dict[tuple[int, int], int]
    ) -> LockOutcome:
        """Read pieces of a file's backing files into memory and keep them there.

        Parameters:
            path: of the file in the mount.
            pieces: the pieces to lock; this uses their descriptors only during the call.
            files: all backing files of the file, even outside of the pieces, see `files_of`. Locked
                ranges of other files belong to a replaced file.
        """
        self._drop_outdated(path, pieces, files)
        left = self._missing(path, pieces)
        locked, held = 0, sum(piece.length for piece in pieces) - sum(one.length for one in left)
        left.reverse()
        while left:
            piece = left.pop()
            reason = self._room.take(piece.length)
            if reason and piece.length > _LEAST_PART:
                # A part of it may find room.
                middle = piece.offset + whole_pages(0, piece.length // 2)[1]
                end = piece.offset + piece.length
                left += [piece.part(middle, end), piece.part(piece.offset, middle)]
                continue
            if reason:
                return LockOutcome(locked, held, reason, refused=True)
            reason = self._lock_taken(path, piece)
            if reason == _HELD:
                self._room.give(piece.length)
                held += piece.length
                continue
            if reason:
                self._room.give(piece.length)
                return LockOutcome(locked, held, reason)
            locked += piece.length
        return LockOutcome(locked, held)

    def unlock(self, path: bytes | None) -> tuple[int, int]:
        """Unlock a file, all below a directory, or (None) everything; return files and bytes."""
        below = b"" if not path else path + b"/"
        with self._lock:
            chosen = [
                name
                for name in self._files
                if path is None or name == path or not path or name.startswith(below)
            ]
            gone = [locked for name in chosen for locked in self._files.pop(name)]
        return len(chosen), self._release(gone)

    def totals(self) -> LockReport:
        """Return the recorded locks, without checking them."""
        with self._lock:
            return LockReport(
                len(self._files), self._locked_bytes, self._locked_bytes, self._room.limit, 0, []
            )

    def report(self) -> LockReport:
        """Check the locks in the page table and by name, and return those in place now."""
        with self._lock:
            files = [(path, list(locked)) for path, locked in self._files.items()]
        mapped = _mapped_files()
        listed = [_described(path, locked, mapped) for path, locked in files]
        noted = [file for file in listed if file.note]
        plain = [file for file in listed if not file.note]
        return LockReport(
            files=len(listed),
            bytes=sum(file.bytes for file in listed),
            present=sum(file.present for file in listed),
            limit=self._room.limit,
            noted=len(noted),
            listed=[*noted, *plain][:_MOST_LISTED],
        )

    def close(self) -> None:
        """Unlock everything, and each range in progress as soon as its lock is done."""
        with self._lock:
            self._closed = True
        self.unlock(None)

    def _missing(self, path: bytes, pieces: Sequence[Pages]) -> list[Pages]:
        """Return the parts of the pieces that are still to lock."""
        with self._lock:
            return self._missing_now(path, pieces)

    def _missing_now(self, path: bytes, pieces: Sequence[Pages]) -> list[Pages]:
        known = sorted((one.piece for one in self._files.get(path, ())), key=lambda one: one.offset)
        left = []
        for piece in pieces:
            at, end = piece.offset, piece.offset + piece.length
            for one in known:
                if one.file == piece.file and one.offset < end and one.offset + one.length > at:
                    if one.offset > at:
                        left.append(piece.part(at, one.offset))
                    at = one.offset + one.length
            if at < end:
                left.append(piece.part(at, end))
        return left

    def _drop_outdated(
        self, path: bytes, pieces: Sequence[Pages], files: dict[tuple[int, int], int]
    ) -> None:
        """Unlock ranges of files that the path no longer shows, and ranges that lost pages."""
        with self._lock:
            known = list(self._files.get(path, ()))
        gone = {id(one) for one in known if _is_outdated(one, pieces, files)}
        with self._lock:
            now = self._files.pop(path, [])
            kept = [one for one in now if id(one) not in gone]
            if kept:
                self._files[path] = kept
        self._release([one for one in now if id(one) in gone])

    def _lock_taken(self, path: bytes, piece: Pages) -> str:
        """Lock a piece for which there is room; return "" or why the lock failed.

        `_HELD`: another thread with the same request has locked all of it meanwhile.
        """
        try:
            mapping = Mapping(piece.fd, piece.offset, piece.length)
        except OSError as error:
            return _mapping_reason(error)
        try:
            mapping.populate()
            mapping.lock()
        except OSError as error:
            mapping.close()
            return _lock_reason(error, piece)
        with self._lock:
            held = not self._missing_now(path, [piece])
            if not (held or self._closed):
                self._files.setdefault(path, []).append(_Locked(piece, mapping))
                self._locked_bytes += piece.length
                return ""
        mapping.close()
        return _HELD if held else "the mount is ending"

    def _release(self, gone: Sequence[_Locked]) -> int:
        size = sum(locked.piece.length for locked in gone)
        for locked in gone:
            locked.mapping.close()
        if gone:
            self._room.give(size)
        with self._lock:
            self._locked_bytes -= size
        return size


def backing_ranges(
    extents: Sequence[Extent], offset: int, length: int
) -> list[tuple[int, int, int]]:
    """Return the (descriptor, offset, length) of the parts of a file's range, without holes.

    Parameters:
        extents: the extents of the file.
        offset, length: the range, in bytes.
    """
    found = []
    start = 0
    for extent in extents:
        if start >= offset + length:
            break
        skipped = max(offset - start, 0)
        wanted = min(extent.length, offset + length - start) - skipped
        if extent.fd != HOLE and wanted > 0:
            found.append((extent.fd, extent.offset + skipped, wanted))
        start += extent.length
    return found


def files_of(extents: Sequence[Extent]) -> dict[tuple[int, int], int]:
    """Return the files of extents by (device, inode number), with their sizes in bytes.

    Raises:
        OSError: fstat(2) fails for one.
    """
    found = map(os.fstat, {extent.fd for extent in extents if extent.fd != HOLE})
    return {(status.st_dev, status.st_ino): status.st_size for status in found}


def pieces_of(extents: Sequence[Extent], offset: int, length: int) -> list[Pages]:
    """Return the whole pages of backing files that hold a range of a file, without holes.

    Raises:
        OSError: a backing file cannot be read. EOPNOTSUPP: its bytes are in memory already.
    """
    found: list[Pages] = []
    for part in backing_ranges(extents, offset, length):
        found += _pieces_of_file(*part)
    return found


def _pieces_of_file(fd: int, offset: int, length: int) -> list[Pages]:
    path = os.readlink(b"/proc/self/fd/%d" % fd)
    if path.startswith(_MEMORY):
        raise OSError(errno.EOPNOTSUPP, "in memory already: the daemon keeps its bytes itself")
    status = os.fstat(fd)
    end = min(offset + length, status.st_size)
    ranges: list[tuple[int, int]] = []
    for at, size in data_ranges(fd, offset, end) if offset < end else ():
        if ranges and at - sum(ranges[-1]) < _LEAST_HOLE:
            ranges[-1] = (ranges[-1][0], at + size - ranges[-1][0])
        else:
            ranges.append((at, size))
    file = (status.st_dev, status.st_ino)
    return [Pages(fd, file, path, *whole_pages(at, size)) for at, size in ranges]


class _Mapped:
    """The kernel's list of this process's mappings and their files."""

    def __init__(self, ranges: list[tuple[int, int, bytes]]) -> None:
        self._starts = [start for start, _, _ in ranges]
        self._ranges = ranges

    def path(self, address: int) -> bytes:
        """Return the path of the file that is mapped at an address, or b""."""
        at = bisect.bisect_right(self._starts, address) - 1
        return self._ranges[at][2] if at >= 0 and address < self._ranges[at][1] else b""


def _mapped_files() -> _Mapped:
    """Read this process's mappings; the kernel marks files without a name (proc_pid_maps(5))."""
    ranges = []
    with open(_MAPS, "rb") as file:
        for line in file:
            fields = line.rstrip(b"\n").split(None, 5)
            if len(fields) == 6:
                start, _, end = fields[0].partition(b"-")
                ranges.append((int(start, 16), int(end, 16), fields[5].replace(b"\\012", b"\n")))
    return _Mapped(ranges)


def _described(path: bytes, locked: Sequence[_Locked], mapped: _Mapped) -> LockedFile:
    # A mapping that has closed meanwhile has the address 0.
    alive = [one for one in locked if one.mapping.address]
    size = sum(one.piece.length for one in alive)
    present = sum(one.mapping.present() for one in alive) * PAGE_BYTES
    note = TRUNCATED if present < size else ""
    if any(_is_elsewhere(one, mapped) for one in alive):
        note = REPLACED
    return LockedFile(printable(os.fsdecode(path)), size, present, note)


def _is_outdated(
    locked: _Locked, pieces: Sequence[Pages], files: dict[tuple[int, int], int]
) -> bool:
    """Say whether a locked piece is of another file, lies behind the end, or lost pages.

    Look into the page table only for the requested ranges, since a large file has many pieces.
    """
    own = locked.piece
    size = files.get(own.file)
    if size is None or own.offset + own.length > whole_pages(0, size)[1]:
        return True
    asked = any(
        own.file == piece.file
        and own.offset < piece.offset + piece.length
        and piece.offset < own.offset + own.length
        for piece in pieces
    )
    return asked and locked.mapping.present() < locked.mapping.pages


def _is_elsewhere(locked: _Locked, mapped: _Mapped) -> bool:
    """Say whether the path now leads to another file than the locked one."""
    piece = locked.piece
    if mapped.path(locked.mapping.address) == piece.path:
        return False
    # On a stacked filesystem, an older kernel names the file below.
    try:
        status = os.stat(piece.path)
    except OSError:
        return True
    return (status.st_dev, status.st_ino) != piece.file


def _mapping_reason(error: OSError) -> str:
    if error.errno == errno.ENOMEM:
        return "the process has too many mappings: raise the sysctl vm.max_map_count"
    return f"cannot be mapped: {error.strerror}"


def _lock_reason(error: OSError, piece: Pages) -> str:
    if os.fstat(piece.fd).st_size < piece.offset + piece.length - PAGE_BYTES + 1:
        return "truncated during the lock"
    if error.errno == errno.EFAULT:
        return "the disk could not read a page of it"
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return f"the kernel did not lock it: {name} ({error.strerror})"
