"""The messages between a mount and the process that unpacks members of compressed tar archives.

Each message is one datagram of a SOCK_SEQPACKET pair, as MessagePack.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Unpack(msgspec.Struct, array_like=True):
    """A member to write to a file: `stored` bytes from `offset` of the decompressed archive.

    The message carries descriptors: the file, then the pieces if the member is sparse
    (`in_pieces`), then the archive and its seek points if `opens`. Without `opens` the archive
    `key` is still open.
    The process closes the archive `closes` first, unless that is 0. `memory` is in bytes,
    `seconds` are processor time.
    """

    key: int
    container: str
    opens: bool
    closes: int
    offset: int
    stored: int
    crc: int
    in_pieces: bool
    memory: int
    seconds: int


class Unpacked(msgspec.Struct, array_like=True, tag=0):
    """The file has the member's bytes."""


class Bad(msgspec.Struct, array_like=True, tag=1):
    """The member cannot be unpacked."""

    reason: str


class Failed(msgspec.Struct, array_like=True, tag=2):
    """A system call failed."""

    number: int
    text: str


Outcome: TypeAlias = Unpacked | Bad | Failed

DATAGRAM_BYTES = 4096
"""Longer than any message: reasons are cut to 200 characters."""

OPEN_ARCHIVES = 4
"""Archives that one process keeps open: a decoder takes up to 100 MiB."""
