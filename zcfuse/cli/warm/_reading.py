"""Reading files ahead into the page cache that serves their readers.

A thread maps a piece of a file through the mount and populates the mapping. Under passthrough the
mapping shows the backing file, otherwise the mount's own file. So these are always the pages that
readers get, and nothing is copied to this process. mincore(2) counts the pages in memory before and
after.

Without passthrough, the daemon reads the backing file, whose cache then holds a second copy. If
that cache held nothing of a piece before, the client asks the daemon to drop it there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final, Literal

import msgspec

from zcfuse.admin import CacheReply, FileRange
from zcfuse.admin.status import Request, StatusError, ask
from zcfuse.cli.warm._files import Failure, FilePiece, pieces_of
from zcfuse.linux import PAGE_BYTES, Mapping, data_ranges, may_ask, nodeid_of, whole_pages

# Pieces at a time: enough to keep a disk's queue filled, few enough to keep their order.
WORKERS: Final = 4
# Bytes to populate in one call, which no signal can interrupt.
_STEP_BYTES: Final = 8 << 20
# For the answer of a daemon that may be busy with other clients' files.
_PATIENCE_S: Final = 30.0
_NOT_CACHED: Final = "its bytes are made when they are read, and not kept"
_EVICTED: Final = "memory is short: the kernel dropped pages as soon as they were read"


class Tally(msgspec.Struct):
    """Bytes by outcome: `resident` were in memory before, `read` were not.

    `unknown` were read too, but only a file's owner learns from the kernel whether they were in
    memory. `holes` are not read. The daemon dropped `spared` behind the mount, which has them.
    """

    resident: int = 0
    read: int = 0
    unknown: int = 0
    holes: int = 0
    spared: int = 0


class Warmer:
    """Warms jobs in a few threads. Calls `advance` with the number of bytes just finished."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.tally = Tally()
        self.failures: list[Failure] = []
        self._advance = advance
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._before: dict[FilePiece, int] = {}

    def run(self, jobs: Iterator[list[FilePiece]]) -> None:
        """Warm all jobs. After an interrupt, finish the running steps, then raise it."""
        with ThreadPoolExecutor(WORKERS) as workers:
            running: set[Future[None]] = set()
            try:
                for job in jobs:
                    if len(running) >= 2 * WORKERS:
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        _raise_errors(done)
                    self._look_ahead(job)
                    running.add(workers.submit(self._job, job))
                _raise_errors(wait(running).done)
            except BaseException:
                self._stopped.set()
                raise

    def _job(self, job: Sequence[FilePiece]) -> None:
        cold = self._cold_behind(job)
        read = {piece: self._piece(piece) for piece in job}
        self._spare({piece: size for piece, size in read.items() if size and piece in cold})

    def _piece(self, piece: FilePiece) -> int:
        """Warm a piece and return how many bytes of it were not in memory before."""
        if self._stopped.is_set():
            return 0
        left = piece.length

        def advance(done: int) -> None:
            nonlocal left
            left -= done
            self._advance(done)

        try:
            fd = os.open(piece.file.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return self._open_piece(fd, piece, advance)
            finally:
                os.close(fd)
        except OSError as error:
            reason = _NOT_CACHED if error.errno == errno.ENODEV else error.strerror or str(error)
            self._fail(piece, reason)
            return 0
        finally:
            self._advance(left)

    def _open_piece(self, fd: int, piece: FilePiece, advance: Callable[[int], None]) -> int:
        status = os.fstat(fd)
        end = min(piece.offset + piece.length, status.st_size)
        if end < piece.offset + piece.length:
            self._fail(piece, "truncated: it is shorter than when it was found")
        told = may_ask(status)
        ranges = data_ranges(fd, piece.offset, end)
        before = self._before.pop(piece, None)
        if before is None:
            before = _resident(fd, piece.offset, end) if told else 0
        for start, length in ranges:
            for at in range(start, start + length, _STEP_BYTES):
                if self._stopped.is_set():
                    return 0
                step = min(_STEP_BYTES, start + length - at)
                self._step(fd, piece, at, step, told)
                advance(step)
        return self._count(end - piece.offset, sum(size for _, size in ranges), before, told)

    def _step(self, fd: int, piece: FilePiece, offset: int, length: int, told: bool) -> None:
        mapping = Mapping(fd, *whole_pages(offset, length))
        try:
            if not told or mapping.in_core() < mapping.pages:
                mapping.will_need()
                _populate(fd, mapping, offset, length)
            if told and mapping.in_core() < mapping.pages:
                self._fail(piece, _EVICTED)
        finally:
            mapping.close()

    def _count(self, size: int, data: int, before: int, told: bool) -> int:
        """Add a warmed piece to the tally; return how many bytes were read."""
        resident = min(before, data)
        with self._lock:
            self.tally.holes += max(size, 0) - data
            self.tally.resident += resident
            if told:
                self.tally.read += data - resident
            else:
                self.tally.unknown += data
        return data - resident

    def _look_ahead(self, job: Sequence[FilePiece]) -> None:
        """Count the resident bytes of all pieces of a file, before readahead crosses pieces."""
        for piece in job:
            if piece.offset or piece.length == piece.file.size:
                continue
            with contextlib.suppress(OSError), open(piece.file.path, "rb", buffering=0) as file:
                if may_ask(os.fstat(file.fileno())):
                    for part in pieces_of(piece.file):
                        end = part.offset + part.length
                        self._before[part] = _resident(file.fileno(), part.offset, end)

    def _fail(self, piece: FilePiece, reason: str) -> None:
        failure = (piece.file.path, reason)
        with self._lock:
            if failure not in self.failures[-WORKERS:]:
                self.failures.append(failure)

    def _cold_behind(self, job: Sequence[FilePiece]) -> set[FilePiece]:
        """Return the pieces that the backing files' cache does not hold, and so may drop later.

        Pieces under passthrough are not among them, because that cache serves them.
        """
        reply = _asked("caches", job)
        if reply is None:
            return set()
        pairs = zip(job, reply.states, strict=True)
        return {piece for piece, state in pairs if state.twice and state.backing_bytes == 0}

    def _spare(self, read: dict[FilePiece, int]) -> None:
        if read and _asked("spare", list(read)) is not None:
            with self._lock:
                self.tally.spared += sum(read.values())


def _resident(fd: int, start: int, end: int) -> int:
    """Return how many bytes of a range are in memory, counted in whole pages."""
    if start >= end:
        return 0
    mapping = Mapping(fd, *whole_pages(start, end - start))
    try:
        return mapping.in_core() * PAGE_BYTES
    finally:
        mapping.close()


def _populate(fd: int, mapping: Mapping, offset: int, length: int) -> None:
    """Read a range into memory and wait for it. Raises OSError if a part cannot be read.

    Populating fails without the reason, and old kernels cannot do it. Then read the range, which
    raises the reason or does the work.
    """
    try:
        if mapping.populate():
            return
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
    end = offset + length
    while offset < end:
        data = os.pread(fd, min(end - offset, 1 << 20), offset)
        if not data:
            raise OSError(errno.EFAULT, "truncated: it became shorter while it was read")
        offset += len(data)


def _asked(request: Literal["caches", "spare"], pieces: Sequence[FilePiece]) -> CacheReply | None:
    """Ask the daemon of a job's mount about its pieces; None if no daemon answers."""
    place = pieces[0].file.place
    if place is None:
        return None
    try:
        files = ranges_of(pieces)
        reply = ask(place.mount, Request(request, files=files), timeout=_PATIENCE_S)
    except StatusError:
        return None
    return reply if isinstance(reply, CacheReply) else None


def ranges_of(pieces: Sequence[FilePiece]) -> list[FileRange]:
    """Return pieces in the form of a request; a piece that cannot be opened has no nodeid."""
    return [_range_of(piece) for piece in pieces]


def _range_of(piece: FilePiece) -> FileRange:
    assert piece.file.place is not None, "a daemon knows only files of its mount"
    nodeid = 0
    try:
        fd = os.open(piece.file.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        pass
    else:
        nodeid = nodeid_of(fd)
        os.close(fd)
    return FileRange(piece.file.place.path, nodeid, piece.offset, piece.length)


def _raise_errors(done: set[Future[None]]) -> None:
    for future in done:
        future.result()
