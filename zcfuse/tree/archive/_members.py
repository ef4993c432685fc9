"""The parsers' records for the builder: one per member, in the order of the archive."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import msgspec

from zcfuse.datapath import MEMBER_KINDS

LARGEST_SIZE: Final = 2**63 - 1
"""The largest file size on Linux, in bytes."""

NOBODY: Final = 65534
"""The owner of a member whose owner does not fit 32 bits: the kernel's overflow id."""


class Kind(IntEnum):
    """The kind of a member and of its storage. Kept indexes contain the values."""

    DIRECTORY, FILE, SPARSE, SYMLINK = MEMBER_KINDS[:4]
    DEFLATED, BZIP2, LZMA, STREAMED, STREAMED_SPARSE, UNREADABLE = MEMBER_KINDS[4:]


STREAMED: Final = frozenset({Kind.STREAMED, Kind.STREAMED_SPARSE})
"""Kinds in a compressed tar archive; places are those of its decompressed bytes."""

PACKED: Final = frozenset({Kind.DEFLATED, Kind.BZIP2, Kind.LZMA}) | STREAMED
"""Kinds with compressed bytes."""

IN_PIECES: Final = frozenset({Kind.SPARSE, Kind.STREAMED_SPARSE})


class Run(msgspec.Struct, frozen=True, gc=False):
    """A range of a member: `length` bytes at `offset` of the archive; None is a hole."""

    offset: int | None
    length: int


class DataRange(msgspec.Struct, frozen=True, gc=False):
    """A data range of a sparse member: its offsets in the file and in the archive."""

    logical: int
    offset: int
    length: int


class Record(msgspec.Struct):
    """A member as in the archive; `name` is not yet checked.

    `mode` has only permission bits. `offset` and `stored` are the place and size of the bytes in
    the archive. `link` is the target of a symlink, byte for byte.
    """

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    offset: int = 0
    stored: int = 0
    crc: int = 0
    link: bytes = b""
    pieces: Sequence[DataRange] = ()
    reason: str = ""


class HardLink(msgspec.Struct):
    """Another name of a member; `target` is that member's name in the archive."""

    name: bytes
    target: bytes


class LeftOut(msgspec.Struct):
    """A member that is left out, and why."""

    name: bytes
    reason: str


class Damage(LeftOut):
    """The end of a damaged archive's readable part. The reason names the loss."""


def clamp_ns(nanoseconds: int) -> int:
    """Return a time that fits 64 bits."""
    return max(-(2**63), min(nanoseconds, 2**63 - 1))


def clamp_owner(owner: int) -> int:
    """Return a user or group id that fits 32 bits and is not the reserved -1."""
    return owner if 0 <= owner < 2**32 - 1 else NOBODY
