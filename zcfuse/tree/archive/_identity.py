"""Which file an archive is, and whether it is still the one that was indexed."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Final

import msgspec

from zcfuse.tree.archive._errors import ArchiveError

TICK_SECONDS: Final = 0.05
"""Longer than the step in which Linux filesystems stamp times (a jiffy, 10 ms at most)."""

COARSE_TICK_SECONDS: Final = 2.1
"""The same for filesystems whose times have no fractions (2 s on FAT)."""


class ArchiveIdentity(msgspec.Struct, frozen=True):
    """What must not have changed for an index to hold: who the file is, how long, and its times."""

    path: bytes
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def open_archive(path: bytes) -> int:
    """Open the archive for reading and return its descriptor; never waits for a FIFO's writer."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise ArchiveError(path, "not a regular file; an archive has to be one, to be read in place")


def identify(path: bytes, fd: int) -> ArchiveIdentity:
    """Return the identity of the open archive."""
    found = os.fstat(fd)
    return ArchiveIdentity(
        path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


def settle(fd: int) -> None:
    """Wait until a change of the file would show in its time of change; 2.1 s at the most.

    Two writes within one tick of the filesystem's clock leave the same times behind, so what is
    read within the tick of the last change might be changed once more unseen.
    """
    changed_ns = os.fstat(fd).st_ctime_ns
    tick = TICK_SECONDS if changed_ns % 1_000_000_000 else COARSE_TICK_SECONDS
    age = time.time() - changed_ns / 1e9
    if age < tick:
        time.sleep(min(tick - age, tick))


def open_unchanged(identity: ArchiveIdentity) -> int:
    """Open the archive that was indexed and return its descriptor.

    Raises OSError: ESTALE where the path leads to another file by now, or to one that was changed.
    """
    fd = os.open(identity.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if identify(identity.path, fd) == identity:
        return fd
    os.close(fd)
    raise OSError(errno.ESTALE, "the archive has changed since it was indexed", identity.path)
