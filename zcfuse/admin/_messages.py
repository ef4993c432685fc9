"""The messages between a client and a daemon about files of a mount: requests and answers.

A message names a file by its path from the root of the mount. If the client has the file open and
its kernel reveals the nodeid (name_to_handle_at(2)), the client sends that too. Then the daemon
does not look the name up again as another user.
"""

from __future__ import annotations

from typing import Final

import msgspec

# The most files in a request, which also limits its size in bytes.
MOST_FILES: Final = 64
# One system call makes one lock, and no signal can interrupt it: some tenths of a second.
MOST_BYTES: Final = 64 << 20


class FileRange(msgspec.Struct, frozen=True):
    """`length` bytes of a file from `offset`. `nodeid` is from the client's kernel, or 0."""

    path: bytes
    nodeid: int = 0
    offset: int = 0
    length: int = 0


class LockOutcome(msgspec.Struct, frozen=True):
    """The outcome of locking one range, in bytes of whole pages of the backing files.

    `locked` were locked now, `held` before. `reason` says why some are unlocked, or is "".
    `refused` says that there is no more room, so the client should ask for no further ranges.
    """

    locked: int
    held: int
    reason: str = ""
    refused: bool = False


class LockReply(msgspec.Struct, frozen=True, tag="locked"):
    """An outcome for each range, in the order of the request."""

    outcomes: list[LockOutcome]


class UnlockReply(msgspec.Struct, frozen=True, tag="unlocked"):
    """The number of unlocked files and bytes."""

    files: int
    bytes: int


class CacheState(msgspec.Struct, frozen=True):
    """How a file's readers are served, and how much of it is in memory behind the mount.

    `mode` is "passthrough", "cached", "upcall" or "naive", or "" if the daemon could not find out.
    `backing_bytes` of the range are in the backing files' cache; None if the kernel hides that from
    this user. `twice` says that bytes read from the file stay in two caches, the mount's own and
    the backing file's.
    """

    mode: str
    backing_bytes: int | None = None
    twice: bool = False


class CacheReply(msgspec.Struct, frozen=True, tag="caches"):
    """A state for each range, in the order of the request."""

    states: list[CacheState]


class LockedFile(msgspec.Struct, frozen=True):
    """A file with locked ranges. `present` of its `bytes` are in memory; `note` says why not more.

    A note also says if the file was replaced or removed; then the old file is locked.
    """

    path: str
    bytes: int
    present: int
    note: str


class LockReport(msgspec.Struct, frozen=True):
    """All locked bytes of a mount's files, in whole pages.

    `limit` is the lock budget that these share with buffers and windows; None without one.
    `listed` are the first files, those with a note before the others.
    """

    files: int
    bytes: int
    present: int
    limit: int | None
    noted: int
    listed: list[LockedFile]
