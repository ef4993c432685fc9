"""How to get the index of an archive: the kept one where it holds, else a new one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from enum import Enum
from typing import Final

from zcfuse.tree.archive import _kept
from zcfuse.tree.archive._builder import Builder
from zcfuse.tree.archive._errors import ArchiveError, StaleIndexError, shown
from zcfuse.tree.archive._identity import ArchiveIdentity, identify, open_archive, settle
from zcfuse.tree.archive._index import ArchiveIndex
from zcfuse.tree.archive._members import HardLink, LeftOut, Record
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
    members before the first unreadable tar header are taken, where that would else be an error.

    Raises ArchiveError, one line, where the archive cannot be indexed, and OSError where it cannot
    be opened or read.
    """
    absolute = os.path.realpath(os.fsencode(path))
    fd = open_archive(absolute)
    try:
        reasons: list[str] = []
        places = _places(absolute, keep)
        for place in places:
            found = _load(place, identify(absolute, fd), os.fstat(fd).st_uid, reasons)
            if found is not None:
                return found if place == places[0] else _kept_first(found, places[0], reasons)
        identity, sections = _build(absolute, fd, progress, salvage)
        return _keep(identity, sections, places, reasons)
    finally:
        os.close(fd)


def _places(path: bytes, keep: Keep) -> list[bytes]:
    """Return where an index may be, in the order in which they are tried."""
    places = [_kept.in_cache(path)] if keep != Keep.NOT else []
    return [_kept.beside(path), *places] if keep == Keep.BESIDE else places


def _load(
    place: bytes, identity: ArchiveIdentity, owner: int, reasons: list[str]
) -> ArchiveIndex | None:
    """Return the index kept at a place, or None, with a reason where there is one but unusable."""
    try:
        return _kept.load(place, identity, owner)
    except FileNotFoundError:
        return None
    except StaleIndexError as error:
        reasons.append(f"{os.fsdecode(place)} was not used: {error}")
    except OSError as error:
        reasons.append(f"{os.fsdecode(place)} was not used: {error.strerror}")
    return None


def _kept_first(index: ArchiveIndex, place: bytes, reasons: list[str]) -> ArchiveIndex:
    """Keep an index that was found in the second place in the first too, if that can be."""
    try:
        _kept.copy(os.fsencode(index.kept or ""), place)
        first = _kept.load(place, index.identity, os.geteuid())
    except (OSError, StaleIndexError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        index.kept_reason = "; ".join([*reasons, f"not kept as {os.fsdecode(place)}: {text}"])
        return index
    index.close()
    first.kept_reason = "; ".join(reasons)
    return first


def _build(
    path: bytes, fd: int, progress: Progress, salvage: bool
) -> tuple[ArchiveIdentity, dict[str, bytes | bytearray]]:
    """Read the archive, and make sure that it was one and the same while it was read."""
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
    return identity, sections


class _Intake:
    """Passes members on to the builder, and now and then how far it is to who waits."""

    def __init__(self, builder: Builder, progress: Progress, total: int) -> None:
        self._builder = builder
        self._progress = progress
        self._total = total
        self._count = 0
        self._done = 0

    def take(self, done: int, member: Record | HardLink | LeftOut) -> None:
        """Take a member; `done` bytes of the archive are behind, never fewer than reported."""
        self._builder.add(member)
        self._count += 1
        if self._count % MEMBERS_PER_REPORT == 0:
            self._done = min(max(self._done, done), self._total)
            self._progress(self._done, self._total)


def _container(path: bytes, fd: int, size: int) -> str:
    """Return "tar" or "zip"; ArchiveError says what else it is, and what to do."""
    start = read_at(fd, BLOCK, 0)
    if not start:
        raise ArchiveError(path, "the file is empty")
    for magic, (name, command) in COMPRESSED.items():
        if start.startswith(magic):
            what = f"compressed with {name}, so its members are no runs of bytes of it"
            remedy = f"decompress it first: {command} {shlex.quote(shown(path))}"
            raise ArchiveError(path, f"{what}; {remedy}")
    if len(start) == BLOCK and is_tar(start):
        return "tar"
    if is_zip(fd, size, start):
        return "zip"
    raise ArchiveError(path, "neither a tar nor a zip archive")


def _keep(
    identity: ArchiveIdentity,
    sections: dict[str, bytes | bytearray],
    places: list[bytes],
    reasons: list[str],
) -> ArchiveIndex:
    """Keep the index in the first place that can be written, and return it from there."""
    for place in places:
        try:
            _kept.keep(place, identity, sections)
            index = _kept.load(place, identity, os.geteuid())
        except StaleIndexError as error:
            reasons.append(f"{os.fsdecode(place)} was not used: {error}")
        except OSError as error:
            reasons.append(f"not kept as {os.fsdecode(place)}: {error.strerror}")
        else:
            index.kept_reason = "; ".join(reasons)
            return index
    in_memory = {name: MemorySection(data) for name, data in sections.items()}
    return ArchiveIndex(identity, in_memory, kept_reason="; ".join(reasons) or "not asked for")
