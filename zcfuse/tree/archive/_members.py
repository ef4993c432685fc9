"""What the parsers hand to the builder: one record a member, in the order of the archive."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import msgspec

LARGEST_SIZE: Final = 2**63 - 1
"""The largest file that a Linux client can ask for, in bytes."""

NOBODY: Final = 65534
"""Who owns a member whose owner does not fit 32 bits: the kernel's overflow id."""


class Kind(IntEnum):
    """What a member is, and with it how its bytes are had. Written into kept indexes."""

    DIRECTORY = 1
    FILE = 2
    SPARSE = 3
    SYMLINK = 4
    DEFLATED = 5
    BZIP2 = 6
    LZMA = 7
    UNREADABLE = 8


PACKED: Final = frozenset({Kind.DEFLATED, Kind.BZIP2, Kind.LZMA})
"""Kinds whose bytes have to be decompressed."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """A run of bytes of a member: `length` bytes at `offset` of the archive; None is a hole."""

    offset: int | None
    length: int


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A run of a sparse member that is not a hole: where it is in the file and in the archive."""

    logical: int
    offset: int
    length: int


class Record(msgspec.Struct):
    """A member as it stands in the archive; `name` is as found, not yet checked.

    `mode` are permission bits only. `offset` and `stored` say where the bytes are in the archive
    and how many they are there. `link` is the target of a symlink, byte for byte.
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
    pieces: Sequence[Piece] = ()
    reason: str = ""


class HardLink(msgspec.Struct):
    """A further name of another member, which is given by its name in the archive."""

    name: bytes
    target: bytes


class LeftOut(msgspec.Struct):
    """A member that is not shown, and why."""

    name: bytes
    reason: str


class Damage(LeftOut):
    """Where the readable part of a damaged archive ends. The reason says what is lost."""


def clamp_ns(nanoseconds: int) -> int:
    """Return a time that fits 64 bits."""
    return max(-(2**63), min(nanoseconds, 2**63 - 1))


def clamp_owner(owner: int) -> int:
    """Return a user or group id that fits 32 bits and is not the reserved -1."""
    return owner if 0 <= owner < 2**32 - 1 else NOBODY
