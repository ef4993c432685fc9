"""Asks daemons to keep files in memory: the client's side of ``zcfuse warm --lock``.

It sends one job after the other, so that the daemon locks files in the order of the command line.
The daemon finishes a job that it began and reports it, even if the client ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from zcfuse.admin import MOST_FILES, FileRange, LockReply, UnlockReply
from zcfuse.admin.status import Request, StatusError, ask
from zcfuse.cli._output import size
from zcfuse.cli.warm._files import Failure, FilePiece
from zcfuse.cli.warm._reading import ranges_of
from zcfuse.linux import PAGE_BYTES, MountEntry, whole_pages

# For one job on a slow disk.
_PATIENCE_S: Final = 300.0
_NOWHERE: Final = "in no zcfuse mount: no daemon could keep it in memory"


class LockTally(msgspec.Struct):
    """Bytes in whole pages: `locked` now, `held` from before, `left_out` for lack of room."""

    locked: int = 0
    held: int = 0
    left_out: int = 0


class Locker:
    """Locks jobs, up to `limit` bytes in all. Calls `advance` with the number of bytes finished."""

    def __init__(self, limit: int, advance: Callable[[int], None]) -> None:
        self.tally = LockTally()
        self.failures: list[Failure] = []
        self._limit = limit
        self._advance = advance
        # Try no further piece in a mount without room. A smaller piece might fit, but then the
        # locked files would not follow the order any more.
        self._full: dict[object, str] = {}

    def run(self, jobs: Iterable[Sequence[FilePiece]]) -> None:
        """Lock all jobs. Raises StatusError if a daemon does not answer."""
        for job in jobs:
            self._job(job)
            self._advance(sum(piece.length for piece in job))

    def _job(self, job: Sequence[FilePiece]) -> None:
        place = job[0].file.place
        if place is None:
            for piece in job:
                self._fail(piece, _NOWHERE)
            return
        reason = self._full.get(place.mount.device, "")
        fitting, over = ([], list(job)) if reason else self._divided(job)
        if fitting:
            self._lock(place.mount, fitting)
        for piece in over:
            self.tally.left_out += piece.length
            self._fail(piece, reason or f"over --lock {size(self._limit)}")

    def _lock(self, mount: MountEntry, pieces: Sequence[FilePiece]) -> None:
        request = Request("lock", files=ranges_of(pieces))
        reply = ask(mount, request, timeout=_PATIENCE_S)
        if not isinstance(reply, LockReply):
            raise StatusError(f"{mount.mountpoint}: unexpected answer {reply!r}")
        for piece, outcome in zip(pieces, reply.outcomes, strict=True):
            self.tally.locked += outcome.locked
            self.tally.held += outcome.held
            if outcome.refused:
                self._full[mount.device] = outcome.reason
            if outcome.reason:
                self.tally.left_out += max(0, piece.length - outcome.locked - outcome.held)
                self._fail(piece, outcome.reason)

    def _divided(self, job: Sequence[FilePiece]) -> tuple[list[FilePiece], list[FilePiece]]:
        """Return the first pieces of a job that fit the limit, and the others."""
        left = self._limit - self.tally.locked - self.tally.held
        for count, piece in enumerate(job):
            if piece.length > left:
                fitting, over = list(job[:count]), list(job[count + 1 :])
                # Round down, because whole pages of an unaligned piece may exceed the limit.
                part = max(0, left) // PAGE_BYTES * PAGE_BYTES
                if part:
                    fitting.append(piece._replace(length=part))
                rest = piece._replace(offset=piece.offset + part, length=piece.length - part)
                return fitting, [rest, *over]
            left -= whole_pages(piece.offset, piece.length)[1]
        return list(job), []

    def _fail(self, piece: FilePiece, reason: str) -> None:
        failure = (piece.file.path, reason)
        if failure not in self.failures[-1:]:
            self.failures.append(failure)


def unlock(mount: MountEntry, paths: Sequence[bytes]) -> UnlockReply:
    """Have a daemon unlock files and all files below directories; without paths, all files.

    Raises:
        StatusError: the daemon does not answer.
    """
    files = size = 0
    named = [FileRange(path) for path in paths]
    for start in range(0, max(1, len(named)), MOST_FILES):
        request = Request("unlock", files=named[start : start + MOST_FILES])
        reply = ask(mount, request, timeout=_PATIENCE_S)
        if not isinstance(reply, UnlockReply):
            raise StatusError(f"{mount.mountpoint}: unexpected answer {reply!r}")
        files, size = files + reply.files, size + reply.bytes
    return UnlockReply(files, size)
