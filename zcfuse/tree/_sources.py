"""The real files behind one entry, while it is looked at or open, and the runs of their bytes.

A `Sources` serves one look or one open, in one thread. A look uses one descriptor at a time,
whatever the number of files. Open files keep their descriptors until `close`.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Awaitable, Iterable
from typing import Final, Protocol

import msgspec

from zcfuse.linux import AT_EMPTY_PATH, Status, statx
from zcfuse.tree._entry import LARGEST
from zcfuse.tree._paths import PathOpener
from zcfuse.tree._types import Who

LOG: Final = logging.getLogger("zcfuse.tree")

# O_NONBLOCK: a FIFO must not make open(2) wait for a writer. A later check finds its kind.
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY

ACCESS_ACL: Final = b"system.posix_acl_access"

Stamp = tuple[tuple[int, int, int], ...]
"""The files' identities: (device, inode number, time of birth) of each, in order of first use."""


class Source(msgspec.Struct, eq=False):
    """A file; `fd` is -1 unless the file is kept open.

    `acl` is the file's access ACL in the kernel's form (acl(5)), or empty. For memory that the tree
    holds, `status` is None, and `owner` closes the descriptor.
    """

    fd: int
    size: int
    status: Status | None = None
    owner: object = None
    acl: bytes = b""


class Maker(Protocol):
    """Makes bytes when they are read."""

    def made_for(self, who: Who, offset: int, size: int) -> Awaitable[bytes]:
        """Return exactly `size` bytes from `offset`, for the process that opened the file."""


class Run(msgspec.Struct, frozen=True, eq=False):
    """`length` bytes from `offset` of a source or of a maker; without both, zeros.

    `open_ended`: it ends with the file, and had `length` bytes at the last look.
    """

    source: Source | None
    offset: int
    length: int
    open_ended: bool = False
    maker: Maker | None = None


class Runs(msgspec.Struct, frozen=True, eq=False):
    """The bytes of an entry. `complete` is False if the last run ends early, with its file."""

    runs: tuple[Run, ...]
    complete: bool = True

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(run.length for run in self.runs)

    @property
    def are_made(self) -> bool:
        """Whether a program makes some of the bytes."""
        return any(run.maker is not None for run in self.runs)

    def cut(self, offset: int, length: int | None) -> Runs:
        """Return the runs of `length` bytes from `offset`; None: all that follow."""
        if offset == 0 and length is None:
            return self
        left = length
        found: list[Run] = []
        for run in self.runs:
            if left == 0:
                break
            if offset >= run.length:
                offset -= run.length
                continue
            size = run.length - offset if left is None else min(run.length - offset, left)
            keeps_end = run.open_ended and left is None
            found.append(Run(run.source, run.offset + offset, size, keeps_end, run.maker))
            offset = 0
            left = None if left is None else left - size
        return Runs(tuple(found), self.complete if left is None else left == 0)


def joined(parts: Iterable[Runs]) -> Runs:
    """Join the runs of several parts, up to the first incomplete part.

    The last part keeps an open end.

    Raises OSError: EOVERFLOW if the parts exceed the largest file size.
    """
    found: list[Run] = []
    size = 0
    part = Runs(())
    for part in parts:
        size += part.size
        if size > LARGEST:
            raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))
        for run in part.runs:
            last = found[-1] if found else None
            if last is not None and _follows(last, run):
                length = last.length + run.length
                found[-1] = Run(last.source, last.offset, length, maker=last.maker)
            elif run.length:
                found.append(Run(run.source, run.offset, run.length, maker=run.maker))
        if not part.complete:
            return Runs(tuple(found), False)
    if part.runs and part.runs[-1].open_ended:
        _grow_at_end(found, part.runs[-1])
    return Runs(tuple(found))


def _grow_at_end(found: list[Run], run: Run) -> None:
    """Let the last run end where its file ends; an empty file may grow too."""
    if not run.length:
        found.append(run)
    last = found[-1]
    found[-1] = Run(last.source, last.offset, last.length, open_ended=True)


def _follows(run: Run, other: Run) -> bool:
    if run.source is not other.source or run.maker is not other.maker:
        return False
    is_hole = run.source is None and run.maker is None
    return is_hole or run.offset + run.length == other.offset


class Sources:
    """Opens or looks at the files of one entry, each once. Owns their descriptors."""

    __slots__ = ("_by_path", "_keep", "_opener")

    def __init__(self, opener: PathOpener, *, keep: bool) -> None:
        """`keep`: open the files and keep them open; otherwise only look at them."""
        self._opener = opener
        self._keep = keep
        self._by_path: dict[bytes, Source] = {}

    def of(self, path: bytes) -> Source:
        """Return a regular file by its path.

        Raises OSError: EISDIR for a directory, EINVAL for other kinds, and the errors of open(2).
        """
        source = self._by_path.get(path)
        if source is None:
            source = self._by_path[path] = self._made(path)
        return source

    @property
    def statuses(self) -> list[Status]:
        """The files' statuses, in order of first use."""
        return [source.status for source in self._by_path.values() if source.status is not None]

    @property
    def acls(self) -> set[bytes]:
        """The different access ACLs of the files; empty for a file without one."""
        return {source.acl for source in self._by_path.values() if source.status is not None}

    def stamp(self) -> Stamp:
        """Return the files' identities."""
        return tuple((one.device, one.attributes.ino, one.btime_ns) for one in self.statuses)

    def refresh(self) -> None:
        """Look at the open files again."""
        for source in self._by_path.values():
            source.status = status = statx(source.fd, b"", AT_EMPTY_PATH)
            source.size = status.attributes.size

    def close(self) -> None:
        """Give the descriptors back; a second call does nothing."""
        for source in self._by_path.values():
            fd, source.fd = source.fd, -1
            if fd >= 0:
                os.close(fd)

    def _made(self, path: bytes) -> Source:
        fd = self._opened(path) if self._keep else self._opener.open(path, os.O_PATH)
        kept = False
        try:
            status = statx(fd, b"", AT_EMPTY_PATH)
            _require_regular(path, status.attributes.mode)
            acl = _acl(fd)
            kept = self._keep
            return Source(fd if kept else -1, status.attributes.size, status, acl=acl)
        finally:
            if not kept:
                os.close(fd)

    def _opened(self, path: bytes) -> int:
        try:
            # Only an owner may ask not to change the time of access (open(2)).
            return self._opener.open(path, _READ | os.O_NOATIME)
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise
            return self._opener.open(path, _READ)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            # A socket, or a device without a driver.
            raise OSError(errno.EINVAL, "not a regular file", path) from None


def _acl(fd: int) -> bytes:
    try:
        return os.getxattr(f"/proc/self/fd/{fd}", ACCESS_ACL)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return b""
        raise


def _require_regular(path: bytes, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    LOG.warning("%r is %s, not a regular file", os.fsdecode(path), _kind(mode))
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(number, "not a regular file", path)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
