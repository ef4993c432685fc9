"""The index of an archive: its tree, answered name by name without making objects of it all.

An index is read-only and may be used from any thread. Nodes are numbers; 0 is the root, and names
of one node are hard links of one another.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from zcfuse.tree.archive._errors import DamagedIndexError
from zcfuse.tree.archive._format import ENTRY, NODE, PIECE, SECTOR_BYTES, Meta, Note
from zcfuse.tree.archive._identity import ArchiveIdentity
from zcfuse.tree.archive._members import PACKED, Kind, Run
from zcfuse.tree.archive._place import ArchivePlace
from zcfuse.tree.archive._sections import Section

LISTED_AT_ONCE: Final = 512
"""Entries read at a time for a listing."""

PIECES_AT_ONCE: Final = 512


class Member(msgspec.Struct, frozen=True, gc=False):
    """What is known of one node.

    `mode` has the type bits. `offset` and `stored` say where the bytes are in the archive, for
    kinds that have them in one run; of a sparse member `stored` counts what is no hole, rounded
    up. `crc` is the CRC-32 of a packed member's bytes, `reason` why an unreadable one is. Sizes in
    bytes.
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
        """Make an index of its sections; index_archive() is how to get one.

        `kept` is the file that the index is kept in, None where it is in memory only, and
        `kept_reason` says why that is so, or why a kept index was made anew. `reused` is whether it
        was found, and the archive not read for it. `close` frees what the sections hold.
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
        """Return the number of members in the archive, those left out included."""
        return self._meta.members

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return what is left out or shown otherwise than it stands in the archive, counted."""
        return self._meta.notes

    @property
    def damage(self) -> str:
        """Return where the readable part of a damaged archive ends; empty for a whole archive."""
        return self._meta.damage

    def __len__(self) -> int:
        """Return the number of names below the root."""
        return self._entries.size // ENTRY.size

    def lookup(self, directory: int, name: bytes) -> int | None:
        """Return the node of a name in a directory, None where there is none.

        Raises NotADirectoryError where `directory` is none.
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

        `start` entries are passed over. Raises NotADirectoryError where `directory` is none.
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
        """Return what is known of a node."""
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
        """Return the target of a symlink, byte for byte; EINVAL where the node is none."""
        *_, place, extent, _, kind = self._node(node)
        if kind != Kind.SYMLINK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self._names.read(place, extent)

    def runs(self, node: int) -> Iterator[Run]:
        """Yield the runs of a file, in order and without gaps from 0 to its size.

        Raises OSError: EIO where the member cannot be read, EINVAL where it is no file or has to be
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
        """Return the bytes that the names and what they stand for take."""
        return sum(section.size for section in self._tables())

    def sections(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Return all entries, nodes, pieces and names, byte for byte. Raises DamagedIndexError."""
        entries, nodes, pieces, names = (table.read(0, table.size) for table in self._tables())
        return entries, nodes, pieces, names

    def open(self) -> int:
        """Open the archive and return its descriptor, which is the caller's to close.

        Raises OSError: ESTALE where it is no longer the one that was indexed.
        """
        return self.place.open_unchanged(self.identity)

    def check(self) -> None:
        """Raise as open() would, without the need of a descriptor."""
        self.place.check_unchanged(self.identity)

    def close(self) -> None:
        """Free what the index holds; a second call does nothing."""
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
