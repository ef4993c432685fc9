"""How to get the index of an archive: the kept one where it holds, else a new one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from zcfuse.tree.archive import _kept
from zcfuse.tree.archive._builder import Builder
from zcfuse.tree.archive._errors import (
    ArchiveError,
    NotAnArchiveError,
    StaleIndexError,
    shown,
)
from zcfuse.tree.archive._identity import ArchiveIdentity, identify, settle
from zcfuse.tree.archive._index import ArchiveIndex
from zcfuse.tree.archive._members import Damage, HardLink, LeftOut, Record
from zcfuse.tree.archive._place import ArchivePlace
from zcfuse.tree.archive._reader import read_at
from zcfuse.tree.archive._sections import MemorySection
from zcfuse.tree.archive._tar import BLOCK, is_tar, tar_members
from zcfuse.tree.archive._zip import is_zip, zip_members

Progress = Callable[[int, int], None]
"""Called with (bytes of the archive done, bytes in all), now and then and at the end."""

MEMBERS_PER_REPORT: Final = 1000

COMPRESSED: Final = {
    b"\x1f\x8b": ("gzip", "gzip -dk"),
    b"BZh": ("bzip2", "bzip2 -dk"),
    b"\xfd7zXZ\x00": ("xz", "xz -dk"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dk"),
    b"LZIP": ("lzip", "lzip -dk"),
}
"""First bytes of what tar archives are compressed with: its name, and a command that undoes it."""


class Keep(Enum):
    """Where an index is kept."""

    CACHE = "cache"
    """In the user's cache directory."""

    BESIDE = "beside"
    """As ARCHIVE.zcidx; where that cannot be written, in the cache directory."""

    NOT = "not"
    """Nowhere; one that is there is not looked at either."""


def index_archive(
    path: str | bytes | os.PathLike[str],
    *,
    keep: Keep = Keep.CACHE,
    progress: Progress = lambda done, total: None,
    salvage: bool = False,
) -> ArchiveIndex:
    """Return the index of an uncompressed tar archive or of a zip archive.

    `progress` is called from this thread; what it raises ends the indexing. With `salvage` the
    members before the damage of a tar archive are taken; without, damage is an error.

    Raises ArchiveError, one line, where the archive cannot be indexed, and OSError where it cannot
    be opened or read.
    """
    place = ArchivePlace(path)
    fd = place.open()
    try:
        kept = _Kept(place, keep, os.fstat(fd).st_uid)
        found = kept.find(identify(place.path, fd))
        if found is not None:
            return found
        identity, sections, complete = _build(place.path, fd, progress, salvage)
        return kept.add(identity, sections, complete)
    finally:
        os.close(fd)


class _Kept:
    """The files that the index of an archive may be kept in, and why they were not used."""

    def __init__(self, place: ArchivePlace, keep: Keep, owner: int) -> None:
        self._place = place
        self._owner = owner
        self._reasons: list[str] = []
        self._files = [_kept.in_cache(place.path)] if keep != Keep.NOT else []
        if keep == Keep.BESIDE:
            self._files.insert(0, _kept.beside(place.path))

    def find(self, identity: ArchiveIdentity) -> ArchiveIndex | None:
        """Return the index that is kept, if there is one that holds."""
        for number, file in enumerate(self._files):
            try:
                index = _kept.load(file, self._place, identity, self._owner)
            except FileNotFoundError:
                continue
            except (OSError, StaleIndexError) as error:
                self._reasons.append(f"{os.fsdecode(file)} was not used: {_text(error)}")
                continue
            found = self._copied(index, self._files[0]) if number else index
            found.reused = True
            return found
        return None

    def add(
        self, identity: ArchiveIdentity, sections: Mapping[str, bytes | bytearray], complete: bool
    ) -> ArchiveIndex:
        """Keep a new index in the first file that can be written, and return it from there."""
        if not complete:
            self._reasons.append("the archive is damaged, and only a part of it is shown")
        for file in self._files if complete else ():
            try:
                _kept.keep(file, identity, sections)
                index = _kept.load(file, self._place, identity, self._owner)
            except (OSError, StaleIndexError) as error:
                self._reasons.append(f"not kept as {os.fsdecode(file)}: {_text(error)}")
            else:
                return self._with_reasons(index)
        if not self._files:
            self._reasons.append("not asked for")
        in_memory = {name: MemorySection(data) for name, data in sections.items()}
        return self._with_reasons(ArchiveIndex(self._place, identity, in_memory))

    def _copied(self, index: ArchiveIndex, file: bytes) -> ArchiveIndex:
        """Keep an index that was found elsewhere in the first file too, if that can be."""
        try:
            _kept.copy(os.fsencode(index.kept or ""), file)
            first = _kept.load(file, self._place, index.identity, self._owner)
        except (OSError, StaleIndexError) as error:
            self._reasons.append(f"not kept as {os.fsdecode(file)}: {_text(error)}")
            return self._with_reasons(index)
        index.close()
        return self._with_reasons(first)

    def _with_reasons(self, index: ArchiveIndex) -> ArchiveIndex:
        index.kept_reason = "; ".join(self._reasons)
        return index


def _text(error: OSError | StaleIndexError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _build(
    path: bytes, fd: int, progress: Progress, salvage: bool
) -> tuple[ArchiveIdentity, dict[str, bytes | bytearray], bool]:
    """Read the archive, and make sure that it was one and the same while it was read.

    Returns its identity, the sections of its index, and whether that is all of it.
    """
    settle(fd)
    identity = identify(path, fd)
    status = os.fstat(fd)
    container = _container(path, fd, identity.size)
    builder = Builder(container, status.st_uid, status.st_gid, identity.mtime_ns)
    intake = _Intake(builder, progress, identity.size)
    if container == "tar":
        for done, member in tar_members(path, fd, identity.size, salvage=salvage):
            intake.take(done, member)
    else:
        zip_members(path, fd, identity.size, (status.st_uid, status.st_gid), intake.take)
    sections = builder.finish()
    if identify(path, fd) != identity:
        raise ArchiveError(path, "it was changed while it was being indexed")
    progress(identity.size, identity.size)
    return identity, sections, intake.complete


class _Intake:
    """Passes members on to the builder, and now and then how far it is to who waits."""

    def __init__(self, builder: Builder, progress: Progress, total: int) -> None:
        self._builder = builder
        self._progress = progress
        self._total = total
        self._count = 0
        self._done = 0
        self.complete = True

    def take(self, done: int, member: Record | HardLink | LeftOut) -> None:
        """Take a member; `done` bytes of the archive are behind, never fewer than reported."""
        self._builder.add(member)
        if isinstance(member, Damage):
            self.complete = False
        self._count += 1
        if self._count % MEMBERS_PER_REPORT == 0:
            self._done = min(max(self._done, done), self._total)
            self._progress(self._done, self._total)


def _container(path: bytes, fd: int, size: int) -> str:
    """Return "tar" or "zip"; ArchiveError says what else it is, and what to do."""
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
