"""What a client may ask a daemon about files of its mount, and the answers: messages only.

A file is named by its path from the root of the mount. Where the client has it open and its kernel
says by which nodeid (name_to_handle_at(2)), that is sent too: a policy is then not asked for the
name once more, in the name of somebody else.
"""

from __future__ import annotations

from typing import Final

import msgspec

# A request names so many files at most, which also bounds its size in bytes.
MOST_FILES: Final = 64
# One lock is made in one system call, which cannot be broken off: some tenths of a second.
MOST_BYTES: Final = 64 << 20


class FileRange(msgspec.Struct, frozen=True):
    """`length` bytes of a file from `offset`. `nodeid`: as the client's kernel has it, or 0."""

    path: bytes
    nodeid: int = 0
    offset: int = 0
    length: int = 0


class LockOutcome(msgspec.Struct, frozen=True):
    """What came of locking one range; bytes are those of whole pages of the backing files.

    `locked` were locked now, `held` had been locked before; `reason` says why not all are, or "".
    `refused`: that there is no more room, so that there is no use in asking for further ranges.
    """

    locked: int
    held: int
    reason: str = ""
    refused: bool = False


class LockReply(msgspec.Struct, frozen=True, tag="locked"):
    """An outcome for each range, in the order of the request."""

    outcomes: list[LockOutcome]


class UnlockReply(msgspec.Struct, frozen=True, tag="unlocked"):
    """How many files, and bytes of them, are locked no more."""

    files: int
    bytes: int


class CacheState(msgspec.Struct, frozen=True):
    """What serves a file's readers, and how much of it the page cache holds behind the mount.

    `mode` is "passthrough", "cached", "upcall" or "naive", or "" where the file could not be asked
    about. `backing_bytes` are those of its range in the backing files' cache, None where the kernel
    does not tell this user. `twice`: what is read of the file stays in two caches, the mount's own
    and the backing file's.
    """

    mode: str
    backing_bytes: int | None = None
    twice: bool = False


class CacheReply(msgspec.Struct, frozen=True, tag="caches"):
    """A state for each range, in the order of the request."""

    states: list[CacheState]


class LockedFile(msgspec.Struct, frozen=True):
    """A file with locked ranges. `present` of its `bytes` are in memory; `note` says why not all.

    A note also tells of a file that has been replaced or removed: what is locked is the old one.
    """

    path: str
    bytes: int
    present: int
    note: str


class LockReport(msgspec.Struct, frozen=True):
    """All that is locked of a mount's files, in bytes of whole pages.

    `limit` is the lock budget that these share with buffers and windows, None where none was set.
    `listed` are files, those with a note first; there may be more.
    """

    files: int
    bytes: int
    present: int
    limit: int | None
    noted: int
    listed: list[LockedFile]
