"""The records of an index, in memory as in a kept file: fixed sizes, little-endian, no pointers.

An index has six sections. *Entries* are names; those of one directory are adjacent and sorted.
*Nodes* are the targets of names; hard links are entries with one node. *Pieces* are the ranges of
sparse members, *names* the bytes of names and symlink targets, *meta* the rest as JSON. *Points*
are a compressed archive's seek points, in a form that only the library of its format reads. The
native index describes the records (`sources/member_index.hpp`).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgspec

from zcfuse.datapath import ENTRY_FORMAT, NODE_FORMAT, PIECE_FORMAT

FORMAT_VERSION: Final = 3
"""Increases whenever a section or a parser's result changes."""

SECTIONS: Final = ("entries", "nodes", "pieces", "names", "meta", "points")

ENTRY: Final = Struct(ENTRY_FORMAT)
"""Offset into names, node, length of the name."""

NODE: Final = Struct(NODE_FORMAT)
"""Mode, uid, gid, nlink, mtime_ns, size, place, extent, detail, kind."""

PIECE: Final = Struct(PIECE_FORMAT)
"""Offset in the file, offset in the archive, length."""


class Note(msgspec.Struct, frozen=True):
    """A difference between an archive and its tree.

    `count` members have the `reason`; `example` is the name of the first.
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
