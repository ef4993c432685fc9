"""The index of an archive: answers for its tree name by name, without an object per member.

The native index answers, in memory that the data path shares. Of the large ones a process keeps
those that it used last. An index is read-only; any thread may use it. Nodes are numbers; 0 is the
root, and several names of one node are hard links.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

import msgspec

from zcfuse.datapath import MemberIndex
from zcfuse.tree._types import Attributes
from zcfuse.tree.archive._errors import DamagedIndexError
from zcfuse.tree.archive._format import ENTRY, SECTIONS, Meta, Note
from zcfuse.tree.archive._identity import ArchiveIdentity
from zcfuse.tree.archive._members import IN_PIECES, PACKED, Kind, Run
from zcfuse.tree.archive._place import ArchivePlace

LISTED_AT_ONCE: Final = 512
"""Names per call of a listing."""

LOADED_BYTES: Final = 128 << 20
"""Memory for large kept indexes; the one used last may exceed it."""

Tables: TypeAlias = tuple[bytes, bytes, bytes, bytes]
"""The sections entries, nodes, pieces and names."""


class Member(msgspec.Struct, frozen=True, gc=False):
    """The data of one node.

    `mode` has the type bits. `offset` and `stored` locate the bytes in the archive, for kinds with
    one range; for a sparse member `stored` counts the bytes outside holes, rounded up. In a
    compressed tar archive both are those of the decompressed bytes. `crc` is the CRC-32 of a packed
    member's bytes, `reason` says why a member is unreadable. Sizes in bytes.
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


class _Loaded:
    """The large indexes in memory, those used last at the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[ArchiveIndex, MemberIndex] = OrderedDict()

    def get(self, index: ArchiveIndex) -> MemberIndex:
        """Return an index, reading it if necessary; DamagedIndexError, FarError."""
        with self._lock:
            found = self._found.get(index)
            if found is not None:
                self._found.move_to_end(index)
                return found
        found = index.read()
        with self._lock:
            self._found[index] = found
            while len(self._found) > 1 and self._bytes() > LOADED_BYTES:
                self._found.popitem(last=False)
        return found

    def drop(self, index: ArchiveIndex) -> None:
        """Free an index."""
        with self._lock:
            self._found.pop(index, None)

    def _bytes(self) -> int:
        return sum(index.bytes for index in self._found.values())


_loaded: Final = _Loaded()


class ArchiveIndex:
    """The names, attributes and places of the members of one archive."""

    root: Final = 0

    def __init__(
        self,
        place: ArchivePlace,
        identity: ArchiveIdentity,
        meta: bytes,
        tables: Callable[[], Tables],
        size: int,
        names: int,
        *,
        points: Callable[[], bytes] = bytes,
        kept: str | None = None,
        kept_reason: str = "",
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Make an index; use index_archive() to get one.

        `tables` reads its sections, `size` bytes with `names` entries, at the first use; `points`
        reads the seek points of a compressed archive. `kept` is the file of the index, or None if
        it is only in memory. `kept_reason` says why, or why a kept index was rebuilt. `reused` is
        whether a kept index was used instead of reading the archive. `close` ends the use of
        `tables` and `points`.
        """
        self.place = place
        self.identity = identity
        self.kept = kept
        self.kept_reason = kept_reason
        self.reused = False
        self.size: Final = size
        self._names = names
        self._tables = tables
        self._points = points
        self._meta = msgspec.json.decode(meta, type=Meta)
        self._always: MemberIndex | None = None
        self._close = close

    @classmethod
    def of(
        cls, place: ArchivePlace, identity: ArchiveIdentity, sections: Mapping[str, bytes]
    ) -> ArchiveIndex:
        """Return an index that is only in memory."""
        entries, nodes, pieces, names, meta, points = (bytes(sections[name]) for name in SECTIONS)
        tables = entries, nodes, pieces, names
        size = sum(map(len, tables))
        count = len(entries) // ENTRY.size
        index = cls(place, identity, meta, lambda: tables, size, count, points=lambda: points)
        index.load()
        return index

    @property
    def container(self) -> str:
        """Return "tar", "zip", or "tar." and the ending of its compression, as in "tar.gz"."""
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
        return self._names

    def load(self) -> None:
        """Keep the index in memory from now on."""
        self._always = self.read()
        self._tables = _no_tables

    def read(self) -> MemberIndex:
        """Return the native index from its sections. Raises DamagedIndexError, FarError."""
        found = self.identity
        return MemberIndex(self._tables(), (found.size, found.mtime_ns, found.ctime_ns))

    @property
    def native(self) -> MemberIndex:
        """The index that answers. Raises DamagedIndexError if it cannot be read, and FarError."""
        return _loaded.get(self) if self._always is None else self._always

    def lookup(self, directory: int, name: bytes) -> int | None:
        """Return the node of a name in a directory, or None.

        Raises OSError: ENOTDIR if `directory` is not a directory, ENAMETOOLONG.
        """
        return self.native.lookup(directory, name)

    def list(self, directory: int, start: int = 0) -> Iterator[tuple[bytes, int]]:
        """Yield (name, node) of a directory in the order of the names' bytes.

        Skips `start` entries. Raises NotADirectoryError if `directory` is not a directory.
        """
        while found := self.native.names(directory, start, LISTED_AT_ONCE):
            yield from found
            start += len(found)

    def attributes(
        self, node: int, *, first_ino: int = 0, uid: int | None = None, gid: int | None = None
    ) -> Attributes:
        """Return a node's attributes, with these owners and with numbers from `first_ino` on."""
        return Attributes(*self.native.attributes(node, first_ino=first_ino, uid=uid, gid=gid))

    def member(self, node: int) -> Member:
        """Return the data of a node."""
        found = self.native.member(node)
        number, mode, uid, gid, nlink, mtime_ns, size, place, stored, detail = found
        kind = Kind(number)
        return Member(
            node,
            kind,
            mode,
            uid,
            gid,
            nlink,
            mtime_ns,
            size,
            offset=place if kind == Kind.FILE or kind in PACKED - IN_PIECES else 0,
            stored=stored,
            crc=detail if kind in PACKED - IN_PIECES else 0,
            reason=self._reason(detail) if kind == Kind.UNREADABLE else "",
        )

    def readlink(self, node: int) -> bytes:
        """Return the target of a symlink, byte for byte; EINVAL for other nodes."""
        return self.native.target(node)

    def runs(self, node: int) -> Iterator[Run]:
        """Yield the runs of a file, in order and without gaps from 0 to its size.

        Raises OSError: EIO for an unreadable member, EINVAL if it is not a file or must be
        decompressed first.
        """
        found = self.member(node)
        if found.kind == Kind.UNREADABLE:
            raise OSError(errno.EIO, found.reason)
        if found.kind not in (Kind.FILE, Kind.SPARSE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return (Run(*run) for run in self.native.runs(node))

    def stream_runs(self, node: int) -> Iterator[Run]:
        """Yield the runs of a sparse member of a compressed archive, in the decompressed bytes."""
        return (Run(*run) for run in self.native.runs(node))

    def seek_points(self) -> bytes:
        """Return the seek points of a compressed archive, as its library wrote them."""
        return self._points()

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
        self._tables = _no_tables
        self._points = bytes
        _loaded.drop(self)
        self._close()

    def _reason(self, number: int) -> str:
        if number >= len(self._meta.reasons):
            raise DamagedIndexError("", f"reason {number}")
        return self._meta.reasons[number]


def _no_tables() -> Tables:
    raise OSError(errno.EBADF, "the index is closed")
