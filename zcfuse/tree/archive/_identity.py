"""The identity of an archive, so that it never gets another one's index."""

from __future__ import annotations

import os
import time

import msgspec

from zcfuse.datapath import tick_ns
from zcfuse.tree.archive._members import clamp_ns


class ArchiveIdentity(msgspec.Struct, frozen=True):
    """The facts that an index depends on: the file's identity, size and times."""

    path: bytes
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identify(path: bytes, fd: int) -> ArchiveIdentity:
    """Return the identity of the open archive."""
    found = os.fstat(fd)
    # 64 bits of nanoseconds end in 2262.
    times = clamp_ns(found.st_mtime_ns), clamp_ns(found.st_ctime_ns)
    return ArchiveIdentity(path, found.st_dev, found.st_ino, found.st_size, *times)


def settle(fd: int) -> None:
    """Wait until a change of the file would show in its change time; at most 2.1 s.

    Two writes within one tick of the filesystem's clock leave equal times. A read within the tick
    of the last change could therefore miss a further change.
    """
    changed_ns = os.fstat(fd).st_ctime_ns
    tick = tick_ns(changed_ns)
    left = tick - (time.time_ns() - changed_ns)
    if left > 0:
        time.sleep(min(left, tick) / 1e9)
