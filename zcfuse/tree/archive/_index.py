"""The index of an archive: answers for its tree name by name, without an object per member.

An index is read-only; any thread may use it. Nodes are numbers; 0 is the root, and several names of
one node are hard links.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from zcfuse.datapath import SECTOR_BYTES
from zcfuse.tree.archive._errors import DamagedIndexError
from zcfuse.tree.archive._format import ENTRY, NODE, PIECE, Meta, Note
from zcfuse.tree.archive._identity import ArchiveIdentity
from zcfuse.tree.archive._members import PACKED, Kind, Run
from zcfuse.tree.archive._place import ArchivePlace
from zcfuse.tree.archive._sections import Section

LISTED_AT_ONCE: Final = 512
"""Entries per read of a listing."""

PIECES_AT_ONCE: Final = 512


class Member(msgspec.Struct, frozen=True, gc=False):
    """The data of one node.

    `mode` has the type bits. `offset` and `stored` locate the bytes in the archive, for kinds with
    one range; for a sparse member `stored` counts the bytes outside holes, rounded up. `crc` is the
    CRC-32 of a packed member's bytes, `reason` says why a member is unreadable. Sizes in bytes.
    """

    node: int
    kind: Kind
    mode: int
    uid: int
    gid: int
    nlink: int
    mtime_ns: int
    size: int
    offset: int = 0
    stored: int = 0
    crc: int = 0
    reason: str = ""


class ArchiveIndex:
    """The names, attributes and places of the members of one archive."""

    root: Final = 0

    def __init__(
        self,
        place: ArchivePlace,
        identity: ArchiveIdentity,
        sections: Mapping[str, Section],
        *,
        kept: str | None = None,
        kept_reason: str = "",
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Make an index from its sections; use index_archive() to get one.

        `kept` is the file of the index, or None if it is only in memory. `kept_reason` says why,
        or why a kept index was rebuilt. `reused` is whether a kept index was used instead of
        reading the archive. `close` frees the sections.
        """
        self.place = place
        self.identity = identity
        self.kept = kept
        self.kept_reason = kept_reason
        self.reused = False
        self._entries = sections["entries"]
        self._nodes = sections["nodes"]
        self._pieces = sections["pieces"]
        self._names = sections["names"]
        meta = sections["meta"]
        self._meta = msgspec.json.decode(meta.read(0, meta.size), type=Meta)
        self._close = close

    @property
    def container(self) -> str:
        """Return "tar" or "zip"."""
        return self._meta.container

    @property
    def members(self) -> int:
        """Return the number of members in the archive, including those left out."""
        return self._meta.members

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return the counted differences between the archive and the tree."""
        return self._meta.notes

    @property
    def damage(self) -> str:
        """Return the end of a damaged archive's readable part; empty for a whole archive."""
        return self._meta.damage

    def __len__(self) -> int:
        """Return the number of names below the root."""
        return self._entries.size // ENTRY.size

    def lookup(self, directory: int, name: bytes) -> int | None:
        """Return the node of a name in a directory, or None.

        Raises NotADirectoryError if `directory` is not a directory.
        """
        low, count = self._entries_of(directory)
        high = low + count
        while low < high:
            middle = (low + high) // 2
            node, found = self._entry(middle)
            if found == name:
                return node
            low, high = (middle + 1, high) if found < name else (low, middle)
        return None

    def list(self, directory: int, start: int = 0) -> Iterator[tuple[bytes, int]]:
        """Yield (name, node) of a directory in the order of the names' bytes.

        Skips `start` entries. Raises NotADirectoryError if `directory` is not a directory.
        """
        first, count = self._entries_of(directory)
        for offset in range(start, count, LISTED_AT_ONCE):
            number = min(LISTED_AT_ONCE, count - offset)
            packed = self._entries.read((first + offset) * ENTRY.size, number * ENTRY.size)
            entries = [*ENTRY.iter_unpack(packed)]
            begin, (last, _, length) = entries[0][0], entries[-1]
            names = self._names.read(begin, last + length - begin)
            for at, node, length in entries:
                yield names[at - begin : at - begin + length], node

    def member(self, node: int) -> Member:
        """Return the data of a node."""
        mode, uid, gid, nlink, mtime_ns, size, place, extent, detail, number = self._node(node)
        kind, offset, stored, crc, reason = Kind(number), 0, 0, 0, ""
        if kind == Kind.FILE:
            offset, stored = place, size
        elif kind == Kind.SPARSE:
            stored = detail * SECTOR_BYTES
        elif kind in PACKED:
            offset, stored, crc = place, extent, detail
        elif kind == Kind.UNREADABLE:
            reason = self._reason(detail)
        return Member(
            node, kind, mode, uid, gid, nlink, mtime_ns, size, offset, stored, crc, reason
        )

    def readlink(self, node: int) -> bytes:
        """Return the target of a symlink, byte for byte; EINVAL for other nodes."""
        *_, place, extent, _, kind = self._node(node)
        if kind != Kind.SYMLINK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self._names.read(place, extent)

    def runs(self, node: int) -> Iterator[Run]:
        """Yield the runs of a file, in order and without gaps from 0 to its size.

        Raises OSError: EIO for an unreadable member, EINVAL if it is not a file or must be
        decompressed first.
        """
        *_, size, place, extent, detail, number = self._node(node)
        kind = Kind(number)
        if kind == Kind.UNREADABLE:
            raise OSError(errno.EIO, self._reason(detail))
        if kind == Kind.SPARSE:
            return self._sparse_runs(size, place, extent)
        if kind != Kind.FILE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._check(place, size)
        return iter((Run(place, size),) if size else ())

    @property
    def size(self) -> int:
        """Return the size of the names and their data in bytes."""
        return sum(section.size for section in self._tables())

    def sections(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Return all entries, nodes, pieces and names, byte for byte. Raises DamagedIndexError."""
        entries, nodes, pieces, names = (table.read(0, table.size) for table in self._tables())
        return entries, nodes, pieces, names

    def open(self) -> int:
        """Open the archive and return its descriptor, which is the caller's to close.

        Raises OSError: ESTALE if it is no longer the indexed file.
        """
        return self.place.open_unchanged(self.identity)

    def check(self) -> None:
        """Raise as open() would, without using a descriptor."""
        self.place.check_unchanged(self.identity)

    def close(self) -> None:
        """Free the index; a second call does nothing."""
        self._close()

    def _tables(self) -> tuple[Section, Section, Section, Section]:
        return self._entries, self._nodes, self._pieces, self._names

    def _sparse_runs(self, size: int, first: int, count: int) -> Iterator[Run]:
        done = 0
        for start in range(0, count, PIECES_AT_ONCE):
            number = min(PIECES_AT_ONCE, count - start)
            packed = self._pieces.read((first + start) * PIECE.size, number * PIECE.size)
            for logical, offset, length in PIECE.iter_unpack(packed):
                self._check(offset, length)
                if logical > done:
                    yield Run(None, logical - done)
                yield Run(offset, length)
                done = logical + length
        if size > done:
            yield Run(None, size - done)

    def _entries_of(self, directory: int) -> tuple[int, int]:
        """Return the first entry of a directory and their number."""
        mode, *_, first, count, _, kind = self._node(directory)
        if kind != Kind.DIRECTORY or not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return first, count

    def _entry(self, number: int) -> tuple[int, bytes]:
        """Return the node and the name of an entry."""
        at, node, length = ENTRY.unpack(self._entries.read(number * ENTRY.size, ENTRY.size))
        return node, self._names.read(at, length)

    def _node(self, number: int) -> tuple[int, ...]:
        return NODE.unpack(self._nodes.read(number * NODE.size, NODE.size))

    def _reason(self, number: int) -> str:
        if number >= len(self._meta.reasons):
            raise DamagedIndexError("", f"reason {number}")
        return self._meta.reasons[number]

    def _check(self, offset: int, length: int) -> None:
        """Raise DamagedIndexError unless a run lies within the archive."""
        if not 0 <= offset <= offset + length <= self.identity.size:
            raise DamagedIndexError("", f"a run from {offset} on of {length} bytes")
