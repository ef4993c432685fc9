"""Asking daemons to keep files in memory: the client's side of ``zcfuse warm --lock``.

One job after the other, so that what there is room for is locked in the order in which it was
named. The daemon finishes a job that it has begun, and reports it, whatever becomes of the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from zcfuse.admin import MOST_FILES, FileRange, LockReply, UnlockReply
from zcfuse.admin.status import Request, StatusError, ask
from zcfuse.cli._output import size
from zcfuse.cli.warm._files import Failure, Piece
from zcfuse.cli.warm._reading import ranges_of
from zcfuse.linux import PAGE_BYTES, MountEntry, whole_pages

# For one job: as much as a slow disk may need for that.
_PATIENCE_S: Final = 300.0
_NOWHERE: Final = "in no zcfuse mount: no daemon could keep it in memory"


class LockTally(msgspec.Struct):
    """Bytes, of whole pages: `locked` now, `held` since an earlier time. `left_out` had no room."""

    locked: int = 0
    held: int = 0
    left_out: int = 0


class Locker:
    """Locks jobs, up to `limit` bytes in all. `advance` is called with bytes that are done with."""

    def __init__(self, limit: int, advance: Callable[[int], None]) -> None:
        self.tally = LockTally()
        self.failures: list[Failure] = []
        self._limit = limit
        self._advance = advance
        # No further piece is tried in a mount that has no room; a smaller one might have found it,
        # but what is locked would not follow the order any more.
        self._full: dict[object, str] = {}

    def run(self, jobs: Iterable[Sequence[Piece]]) -> None:
        """Lock all jobs. Raises StatusError where a daemon cannot be asked."""
        for job in jobs:
            self._job(job)
            self._advance(sum(piece.length for piece in job))

    def _job(self, job: Sequence[Piece]) -> None:
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

    def _lock(self, mount: MountEntry, pieces: Sequence[Piece]) -> None:
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

    def _divided(self, job: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
        """Return the first pieces of a job that the limit has room for, and the others."""
        left = self._limit - self.tally.locked - self.tally.held
        for count, piece in enumerate(job):
            if piece.length > left:
                fitting, over = list(job[:count]), list(job[count + 1 :])
                # Whole pages of what is not aligned may be more than was allowed.
                part = max(0, left) // PAGE_BYTES * PAGE_BYTES
                if part:
                    fitting.append(piece._replace(length=part))
                rest = piece._replace(offset=piece.offset + part, length=piece.length - part)
                return fitting, [rest, *over]
            left -= whole_pages(piece.offset, piece.length)[1]
        return list(job), []

    def _fail(self, piece: Piece, reason: str) -> None:
        failure = (piece.file.path, reason)
        if failure not in self.failures[-1:]:
            self.failures.append(failure)


def unlock(mount: MountEntry, paths: Sequence[bytes]) -> UnlockReply:
    """Have a daemon unlock files and all below directories; without paths everything.

    Raises:
        StatusError: the daemon cannot be asked.
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
