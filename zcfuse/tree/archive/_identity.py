"""Which file an archive is, so that an index of another one is never taken for its own."""

from __future__ import annotations

import os
import time
from typing import Final

import msgspec

from zcfuse.tree.archive._members import clamp_ns

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


def identify(path: bytes, fd: int) -> ArchiveIdentity:
    """Return the identity of the open archive."""
    found = os.fstat(fd)
    # Times after 2262 do not fit 64 bits of nanoseconds.
    times = clamp_ns(found.st_mtime_ns), clamp_ns(found.st_ctime_ns)
    return ArchiveIdentity(path, found.st_dev, found.st_ino, found.st_size, *times)


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
