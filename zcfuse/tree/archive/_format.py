"""The records of an index, in memory as in a kept file: fixed sizes, little-endian, no pointers.

An index is five sections. *Entries* are names: those of one directory lie together, sorted. *Nodes*
are what names lead to; hard links are entries with one node. *Pieces* are the runs of sparse
members, *names* the bytes of names and of targets of symlinks, *meta* the rest as JSON.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgspec

FORMAT_VERSION: Final = 2
"""Raised whenever a section, or what a parser makes of an archive, changes."""

SECTIONS: Final = ("entries", "nodes", "pieces", "names", "meta")

ENTRY: Final = Struct("<QIH2x")
"""Offset into names, node, length of the name."""

NODE: Final = Struct("<IIIIqQQQIB3x")
"""Mode, uid, gid, nlink, mtime_ns, size, place, extent, detail, kind.

| kind | place | extent | detail |
|---|---|---|---|
| directory | first entry | number of entries | - |
| file | offset in the archive | - | - |
| sparse | first piece | number of pieces | 512-byte blocks that are no holes |
| symlink | offset into names | length | - |
| deflated, bzip2, lzma | offset in the archive | bytes there | CRC-32 |
| unreadable | - | - | reason, a position in meta's list |
"""

SECTOR_BYTES: Final = 512
"""The unit in which stat(2) counts what a file takes."""

PIECE: Final = Struct("<QQQ")
"""Offset in the file, offset in the archive, length."""


class Note(msgspec.Struct, frozen=True):
    """Something that an archive holds and its tree does not, or shows otherwise.

    `count` members met `reason`; `example` is the name of the first.
    """

    reason: str
    count: int
    example: bytes


class Meta(msgspec.Struct, frozen=True):
    """Facts about an index as a whole; `damage` says where a salvaged archive ends."""

    container: str
    members: int
    reasons: tuple[str, ...]
    notes: tuple[Note, ...]
    damage: str = ""
