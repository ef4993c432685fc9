"""Collects the members of an archive in order, with bounded memory per member.

Everything is appended to flat arrays. After the last member `_assembly` finds the final meaning of
each name, and the target of each hard link.
"""

from __future__ import annotations

import stat
from typing import Final

import msgspec

from zcfuse.datapath import SECTOR_BYTES
from zcfuse.tree.archive._assembly import assemble
from zcfuse.tree.archive._columns import ROOT, Columns
from zcfuse.tree.archive._format import NODE, PIECE, Meta, Note
from zcfuse.tree.archive._members import IN_PIECES, PACKED, Damage, HardLink, Kind, LeftOut, Record
from zcfuse.tree.archive._names import UnusableNameError, components, is_plain

MADE_DIRECTORY_MODE: Final = 0o755
BROKEN_LINK_MODE: Final = 0o444
"""Readable, so that an open gives EIO and not EACCES."""

ROOT_IS_DIRECTORY: Final = "its name is that of the archive's root"

SYMLINK: Final = stat.S_IFLNK | 0o777
"""The mode of symlinks, which Linux never changes."""

TYPES: Final = {Kind.DIRECTORY: stat.S_IFDIR}


class Builder:
    """Collects members in add(), and builds the sections of an index in finish()."""

    def __init__(self, container: str, uid: int, gid: int, mtime_ns: int) -> None:
        """Begin with the root. Directories without a member belong to `uid` and `gid`."""
        self._container = container
        self._owner = (uid, gid, mtime_ns)
        self._members = 0
        self._damage = ""
        self._columns = Columns()
        self._reasons: dict[str, int] = {}
        self._notes: dict[str, tuple[int, bytes]] = {}
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._last = (b"", ROOT)
        self._columns.directory_node[ROOT] = self.made_directory()

    def add(self, member: Record | HardLink | LeftOut) -> None:
        """Add the next member of the archive."""
        if isinstance(member, Damage):
            self._damage = member.reason
            self.note(member.reason, member.name)
            return
        self._members += 1
        if isinstance(member, LeftOut):
            self.note(member.reason, member.name)
            return
        try:
            if isinstance(member, Record) and member.kind == Kind.DIRECTORY:
                self._describe(member)
            else:
                self._place(member)
        except UnusableNameError as error:
            self.note(str(error), member.name)

    def finish(self, points: bytes = b"") -> dict[str, bytes | bytearray]:
        """Return the sections of the index by name; consumes the builder.

        `points` are the seek points of a compressed archive.
        """
        sections = assemble(self._columns, self)
        notes = tuple(Note(reason, *found) for reason, found in self._notes.items())
        meta = Meta(self._container, self._members, tuple(self._reasons), notes, self._damage)
        return {**sections, "meta": msgspec.json.encode(meta), "points": points}

    # -- for the assembly ----------------------------------------------------------------------

    def number_of(self, path: bytes) -> int | None:
        """Return the number of a directory, or None if no member describes it or lies in it."""
        number = ROOT
        for part in path.split(b"/") if path else ():
            found = self._numbers.get((number, part))
            if found is None:
                return None
            number = found
        return number

    def made_directory(self) -> int:
        """Append the node of a directory that no member describes, and return its number."""
        mode = stat.S_IFDIR | MADE_DIRECTORY_MODE
        return self._append(NODE.pack(mode, *self._made(), 0, 0, 0, 0, Kind.DIRECTORY))

    def broken_link(self, reason: str, target: bytes) -> int:
        """Append the node of a hard link that leads nowhere, and return its number."""
        detail = self._reason(reason, target)
        mode = stat.S_IFREG | BROKEN_LINK_MODE
        return self._append(NODE.pack(mode, *self._made(), 0, 0, 0, detail, Kind.UNREADABLE))

    def note(self, reason: str, name: bytes) -> None:
        """Count a reason; keep the first name as its example."""
        count, example = self._notes.get(reason, (0, name))
        self._notes[reason] = (count + 1, example)

    # -- one member ----------------------------------------------------------------------------

    def _describe(self, member: Record) -> None:
        """Set the attributes of a directory; its last member wins."""
        number = self._directory(member.name)
        self._columns.directory_node[number] = self._node(member)
        self._columns.described_before[number] = self._columns.entries

    def _place(self, member: Record | HardLink) -> None:
        """Enter a member that is not a directory under its name."""
        above, _, name = member.name.rpartition(b"/")
        if not is_plain(name):
            parts = components(member.name)
            if not parts:
                return self.note(ROOT_IS_DIRECTORY, member.name)
            above, name = b"/".join(parts[:-1]), parts[-1]
        directory = self._directory(above)
        if isinstance(member, HardLink):
            return self._columns.add_link(directory, name, member.target)
        return self._columns.add_entry(directory, name, self._node(member))

    def _directory(self, path: bytes) -> int:
        """Return the number of a directory; create it and its parents if missing."""
        last, number = self._last
        if path == last:
            return number
        number = ROOT
        for part in components(path):
            found = self._numbers.get((number, part))
            if found is None:
                found = self._columns.add_directory(number, part)
                self._numbers[number, part] = found
            number = found
        self._last = (path, number)
        return number

    def _node(self, record: Record) -> int:
        """Append a member's node and return its number."""
        kind, size, place, extent, detail = record.kind, record.size, record.offset, 0, 0
        columns = self._columns
        if kind in IN_PIECES:
            place, extent = len(columns.pieces) // PIECE.size, len(record.pieces)
            detail = min(-(-record.stored // SECTOR_BYTES), 2**32 - 1)
            for piece in record.pieces:
                columns.pieces += PIECE.pack(piece.logical, piece.offset, piece.length)
        elif kind == Kind.SYMLINK:
            place, extent, size = len(columns.targets), len(record.link), len(record.link)
            columns.targets += record.link
        elif kind in PACKED:
            extent, detail = record.stored, record.crc
        elif kind == Kind.UNREADABLE:
            place, detail = 0, self._reason(record.reason, record.name)
        mode = SYMLINK if kind == Kind.SYMLINK else TYPES.get(kind, stat.S_IFREG) | record.mode
        owner = (record.uid, record.gid, 0, record.mtime_ns)
        return self._append(NODE.pack(mode, *owner, size, place, extent, detail, kind))

    def _append(self, node: bytes) -> int:
        self._columns.nodes += node
        return len(self._columns.nodes) // NODE.size - 1

    def _made(self) -> tuple[int, int, int, int]:
        """Return uid, gid, links so far and mtime_ns for nodes without a member."""
        uid, gid, mtime_ns = self._owner
        return uid, gid, 0, mtime_ns

    def _reason(self, reason: str, name: bytes) -> int:
        self.note(f"cannot be read (EIO): {reason}", name)
        return self._reasons.setdefault(reason, len(self._reasons))
