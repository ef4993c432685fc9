"""The messages between a client of the indexer and its worker.

Each message is one datagram of a SOCK_SEQPACKET pair, as MessagePack.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Job(msgspec.Struct, array_like=True):
    """An archive to index, with two descriptors: the archive, and a file for the sections.

    `memory` is bytes beyond the process's current size, `seconds` are processor time.
    """

    path: bytes
    mtime_ns: int
    salvage: bool
    memory: int
    seconds: int


class Done(msgspec.Struct, array_like=True, tag=0):
    """The sections are written in order, with these sizes in bytes."""

    sizes: dict[str, int]
    complete: bool


class Report(msgspec.Struct, array_like=True, tag=1):
    """The progress in bytes of the archive."""

    done: int
    total: int


class Refused(msgspec.Struct, array_like=True, tag=2):
    """The archive cannot be indexed: the fields of an ArchiveError."""

    reason: str
    no_archive: bool
    compressed: bool
    salvageable: bool


class Unreadable(msgspec.Struct, array_like=True, tag=3):
    """A system call failed."""

    number: int
    text: str


class NoMemory(msgspec.Struct, array_like=True, tag=4):
    """Indexing needs more memory than the job allows."""


Answer: TypeAlias = Done | Report | Refused | Unreadable | NoMemory

DATAGRAM_BYTES = 64 * 1024
"""Longer than any message: a path has PATH_MAX bytes, a reason a few hundred."""
