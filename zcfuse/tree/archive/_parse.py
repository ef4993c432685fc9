"""Builds the sections of an index from an archive, with the matching parser.

Runs in a separate process, which `_indexer` limits, because the parsers trust the archive.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import Final

from zcfuse.tree.archive._builder import Builder
from zcfuse.tree.archive._compression import (
    EXTRA,
    Compression,
    DamagedStreamError,
    MissingLibraryError,
    compression_of,
    open_stream,
)
from zcfuse.tree.archive._errors import ArchiveError, NotAnArchiveError, shown
from zcfuse.tree.archive._limits import TAR_HEADER
from zcfuse.tree.archive._members import Damage, HardLink, LeftOut, Record
from zcfuse.tree.archive._reader import Reader, StreamReader, read_at
from zcfuse.tree.archive._tar import BLOCK, is_tar, tar_members
from zcfuse.tree.archive._zip import is_zip, zip_members

Progress = Callable[[int, int], None]
"""Called with (bytes of the archive done, total bytes), sometimes and at the end."""

MEMBERS_PER_REPORT: Final = 1000


def parse(
    path: bytes, fd: int, mtime_ns: int, progress: Progress, *, salvage: bool
) -> tuple[dict[str, bytes | bytearray], bool]:
    """Return the sections of an archive's index, and whether it is complete.

    Raises ArchiveError if the archive cannot be indexed, OSError if it cannot be read, and
    MemoryError.
    """
    status = os.fstat(fd)
    start = read_at(fd, BLOCK, 0)
    is_plain = len(start) == BLOCK and is_tar(start)
    compression = None if is_plain else compression_of(start)
    container = compression.container if compression else _container(path, fd, status.st_size)
    builder = Builder(container, status.st_uid, status.st_gid, mtime_ns)
    intake = _Intake(builder, progress, status.st_size)
    if compression:
        points = _parse_stream(path, fd, compression, intake, salvage=salvage)
        return builder.finish(points), intake.complete
    if container == "tar":
        reader = Reader(fd, status.st_size, TAR_HEADER + BLOCK)
        for done, member in tar_members(path, reader, salvage=salvage):
            intake.take(done, member)
    else:
        zip_members(path, fd, status.st_size, (status.st_uid, status.st_gid), intake.take)
    return builder.finish(), intake.complete


def _parse_stream(
    path: bytes, fd: int, compression: Compression, intake: _Intake, *, salvage: bool
) -> bytes:
    """Take in the members of a compressed tar archive, and return its seek points."""
    what, file = compression.name, shlex.quote(shown(path))
    remedy = f"decompress it first: {compression.command} {file}"
    if not compression.library:
        reason = f"compressed with {what}, in which no library seeks; {remedy}"
        raise NotAnArchiveError(path, reason, compressed=True)
    try:
        with open_stream(compression, fd) as stream:
            reader = StreamReader(stream, TAR_HEADER + BLOCK, intake.report)
            start = reader.read(BLOCK)
            if len(start) < BLOCK or not is_tar(start):
                reason = f"compressed with {what}, and no tar archive in it; {remedy}"
                raise NotAnArchiveError(path, reason, compressed=True)
            for _, member in tar_members(path, reader, salvage=salvage):
                intake.take(stream.done(), member)
            while intake.complete and reader.read(TAR_HEADER):
                reader.begin(reader.tell())  # the rest, whose checksums the library compares
            # The points of a cut stream end beyond its last whole symbol, and rapidgzip then
            # refuses all that follows the last point but one.
            return stream.points() if intake.complete else b""
    except MissingLibraryError as error:
        reason = f"compressed with {what}, which needs {error}: {EXTRA}; or {remedy}"
        raise NotAnArchiveError(path, reason, compressed=True) from error
    except DamagedStreamError as error:
        reason = f"its {what} stream is damaged or cut off ({error})"
        raise ArchiveError(path, reason) from error


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
            self.report(done)

    def report(self, done: int) -> None:
        """Tell the caller that `done` bytes of the archive are read."""
        self._done = min(max(self._done, done), self._total)
        self._progress(self._done, self._total)


def _container(path: bytes, fd: int, size: int) -> str:
    """Return "tar" or "zip"; raise NotAnArchiveError for another kind of file."""
    start = read_at(fd, BLOCK, 0)
    if not start:
        raise NotAnArchiveError(path, "the file is empty")
    if len(start) == BLOCK and is_tar(start):
        return "tar"
    if is_zip(fd, size, start):
        return "zip"
    raise NotAnArchiveError(path, "neither a tar nor a zip archive")
