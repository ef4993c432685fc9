"""Gets the index of an archive: the kept one if valid, otherwise a new one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum

from zcfuse.tree.archive import _kept
from zcfuse.tree.archive._errors import ArchiveError, StaleIndexError
from zcfuse.tree.archive._identity import ArchiveIdentity, identify, settle
from zcfuse.tree.archive._index import ArchiveIndex
from zcfuse.tree.archive._indexer import parsed
from zcfuse.tree.archive._parse import Progress
from zcfuse.tree.archive._place import ArchivePlace


class Keep(Enum):
    """The place of a kept index."""

    CACHE = "cache"
    """In the user's cache directory."""

    BESIDE = "beside"
    """As ARCHIVE.zcidx; if that cannot be written, in the cache directory."""

    NOT = "not"
    """Not kept; an existing one is ignored."""


def index_archive(
    path: str | bytes | os.PathLike[str],
    *,
    keep: Keep = Keep.CACHE,
    progress: Progress = lambda done, total: None,
    salvage: bool = False,
) -> ArchiveIndex:
    """Return the index of a tar archive, compressed or not, or of a zip archive.

    `progress` runs in this thread; an exception from it ends the indexing. `salvage` takes the
    members before the damage of a tar archive; otherwise damage is an error.

    Raises ArchiveError, one line, if the archive cannot be indexed, and OSError if it cannot be
    opened or read.
    """
    return index_place(ArchivePlace(path), keep=keep, progress=progress, salvage=salvage)


def index_place(
    place: ArchivePlace,
    *,
    keep: Keep,
    progress: Progress = lambda done, total: None,
    salvage: bool,
) -> ArchiveIndex:
    """Return the index of the archive that is at a place now; see `index_archive`."""
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
    """The possible files of a kept index, and why they were not used."""

    def __init__(self, place: ArchivePlace, keep: Keep, owner: int) -> None:
        self._place = place
        self._owner = owner
        self._reasons: list[str] = []
        self._files = [_kept.in_cache(place.path)] if keep != Keep.NOT else []
        if keep == Keep.BESIDE:
            self._files.insert(0, _kept.beside(place.path))

    def find(self, identity: ArchiveIdentity) -> ArchiveIndex | None:
        """Return the kept index, if valid."""
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
        self, identity: ArchiveIdentity, sections: Mapping[str, bytes], complete: bool
    ) -> ArchiveIndex:
        """Keep a new index in the first writable file, and return it from there."""
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
        return self._with_reasons(ArchiveIndex.of(self._place, identity, sections))

    def _copied(self, index: ArchiveIndex, file: bytes) -> ArchiveIndex:
        """Keep an index found in another place in the first file too, if possible."""
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
) -> tuple[ArchiveIdentity, Mapping[str, bytes], bool]:
    """Index the archive, and verify that it did not change meanwhile.

    Returns its identity, the sections of its index, and whether it is complete.
    """
    settle(fd)
    identity = identify(path, fd)
    sections, complete = parsed(path, fd, identity, progress, salvage=salvage)
    if identify(path, fd) != identity:
        raise ArchiveError(path, "it was changed while it was being indexed")
    progress(identity.size, identity.size)
    return identity, sections, complete
