"""Builds the sections of an index from an archive, with the matching parser.

Runs in a separate process, which `_indexer` limits, because the parsers trust the archive.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import Final

from zcfuse.tree.archive._builder import Builder
from zcfuse.tree.archive._errors import NotAnArchiveError, shown
from zcfuse.tree.archive._members import Damage, HardLink, LeftOut, Record
from zcfuse.tree.archive._reader import read_at
from zcfuse.tree.archive._tar import BLOCK, is_tar, tar_members
from zcfuse.tree.archive._zip import is_zip, zip_members

Progress = Callable[[int, int], None]
"""Called with (bytes of the archive done, total bytes), sometimes and at the end."""

MEMBERS_PER_REPORT: Final = 1000

COMPRESSED: Final = {
    b"\x1f\x8b": ("gzip", "gzip -dk"),
    b"BZh": ("bzip2", "bzip2 -dk"),
    b"\xfd7zXZ\x00": ("xz", "xz -dk"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dk"),
    b"LZIP": ("lzip", "lzip -dk"),
}
"""First bytes of a compression format: its name, and the command that decompresses it."""


def parse(
    path: bytes, fd: int, mtime_ns: int, progress: Progress, *, salvage: bool
) -> tuple[dict[str, bytes | bytearray], bool]:
    """Return the sections of an archive's index, and whether it is complete.

    Raises ArchiveError if the archive cannot be indexed, OSError if it cannot be read, and
    MemoryError.
    """
    status = os.fstat(fd)
    container = _container(path, fd, status.st_size)
    builder = Builder(container, status.st_uid, status.st_gid, mtime_ns)
    intake = _Intake(builder, progress, status.st_size)
    if container == "tar":
        for done, member in tar_members(path, fd, status.st_size, salvage=salvage):
            intake.take(done, member)
    else:
        zip_members(path, fd, status.st_size, (status.st_uid, status.st_gid), intake.take)
    return builder.finish(), intake.complete


class _Intake:
    """Passes members to the builder, and sometimes progress to the caller."""

    def __init__(self, builder: Builder, progress: Progress, total: int) -> None:
        self._builder = builder
        self._progress = progress
        self._total = total
        self._count = 0
        self._done = 0
        self.complete = True

    def take(self, done: int, member: Record | HardLink | LeftOut) -> None:
        """Add a member after `done` bytes of the archive, which never decrease."""
        self._builder.add(member)
        if isinstance(member, Damage):
            self.complete = False
        self._count += 1
        if self._count % MEMBERS_PER_REPORT == 0:
            self._done = min(max(self._done, done), self._total)
            self._progress(self._done, self._total)


def _container(path: bytes, fd: int, size: int) -> str:
    """Return "tar" or "zip"; ArchiveError names another kind of file, and the remedy."""
    start = read_at(fd, BLOCK, 0)
    if not start:
        raise NotAnArchiveError(path, "the file is empty")
    if len(start) == BLOCK and is_tar(start):
        return "tar"
    for magic, (name, command) in COMPRESSED.items():
        if start.startswith(magic):
            what = f"compressed with {name}, so its members are no runs of bytes of it"
            remedy = f"decompress it first: {command} {shlex.quote(shown(path))}"
            raise NotAnArchiveError(path, f"{what}; {remedy}", compressed=True)
    if is_zip(fd, size, start):
        return "zip"
    raise NotAnArchiveError(path, "neither a tar nor a zip archive")
