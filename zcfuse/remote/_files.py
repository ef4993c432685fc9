"""Files of a remote tree: versions that are partly in the cache, and their opens.

Belongs to the trio thread of the mount. An open of a complete, verified version is a plain file, so
the kernel serves it. Of other opens the data path serves present bytes from the cache file. Reads
of missing ones come here and wait until a worker has fetched them; several reads of a missing range
wait for one fetch.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import trio

from zcfuse.datapath import Latency, Presence
from zcfuse.remote._ahead import ReadAhead
from zcfuse.remote._cache import BLOCK_BYTES, PIECE_BYTES, Cache, Entry, key_of, pieces_of
from zcfuse.remote._fetchers import Answer, Fetchers, Parts, awaited
from zcfuse.remote._messages import (
    AHEAD,
    CHECKING,
    DEMANDED,
    Arrived,
    Ensure,
    Ensured,
    Evict,
    Evicted,
    Info,
)
from zcfuse.remote._source import place_of
from zcfuse.tree import Answer as TreeAnswer
from zcfuse.tree import (
    Attributes,
    BackingFile,
    BeingMadeError,
    Growing,
    RegularFile,
    UpcallFile,
)

# An open waits for the digests of a kept file up to this size; larger files are verified meanwhile.
_AWAITED_BYTES: Final = 64 << 20
_SECOND_NS: Final = 1_000_000_000
_GRACE_S: Final = 2.0
_MOST_ASKS: Final = 4
_MOST_VERSIONS: Final = 10_000
_EVICT_EVERY_BYTES: Final = 256 << 20
# States of a piece.
_MISSING: Final = 0
_RECORDED: Final = 1
_ARRIVED: Final = 2
_IS_MISSING: Final = bytes((1, 0, 0)) + bytes(253)


class Counts(msgspec.Struct):
    """Counts of a mount's files. They leave out bytes that the kernel served by itself."""

    hits: int = 0
    misses: int = 0
    fetched_bytes: int = 0
    requests: int = 0
    request_seconds: float = 0.0
    retries: int = 0
    failures: int = 0
    cancelled: int = 0
    damaged: int = 0
    evicted_bytes: int = 0
    complete_opens: int = 0
    partial_opens: int = 0
    by_driver: dict[str, int] = {}


class Store:
    """The versions that a mount knows, its cache and its workers."""

    def __init__(
        self,
        cache: Cache,
        fetchers: Fetchers,
        url: str,
        identity: str,
        deadline_s: float,
        connections: int,
        changed: Callable[[str], None],
    ) -> None:
        self.cache = cache
        self.fetchers = fetchers
        self.counts = Counts()
        self.latency = Latency()
        self.deadline_s = deadline_s
        self.connections = connections
        self.changed = changed
        self._url = url
        self._identity = identity
        self._versions: dict[str, Version] = {}
        self._until_eviction = 0
        self._evicting: Answer | None = None
        self._late: deque[Answer] = deque()

    def open(self, info: Info, attributes: Attributes) -> BackingFile:
        """Open a version. Raises BeingMadeError while a kept file of modest size is verified."""
        key = key_of(self._identity, info.path, info.version)
        version = self._versions.get(key)
        if version is None:
            if len(self._versions) >= _MOST_VERSIONS:
                self._versions = {k: one for k, one in self._versions.items() if one.is_open}
            version = self._versions[key] = Version(self, key, info)
        return version.open(attributes)

    def place(self, path: str) -> str:
        """Return the URL of a file, without parts that may be secret."""
        return place_of(self._url, path)

    def fetched(self, done: Ensured) -> None:
        """Count a worker's answer; have the cache cut back once in a while."""
        self._count(done)
        self.count_late()
        counts = self.counts
        if self._evicting is not None and self._evicting.done():
            answer, self._evicting = self._evicting, None
            if answer.exception() is None:
                reply = answer.result()
                counts.evicted_bytes += reply.freed_bytes if isinstance(reply, Evicted) else 0
        if done.fetched_bytes and self._until_eviction <= 0 and self._evicting is None:
            self.evict()

    def count_late(self) -> None:
        """Count the answers that came after the last reader had gone."""
        while self._late:
            late = self._late.popleft().result()
            assert isinstance(late, Ensured)
            self._count(late)

    def _count(self, done: Ensured) -> None:
        counts = self.counts
        counts.fetched_bytes += done.fetched_bytes
        counts.requests += done.requests
        for time_ns in done.times_ns:
            counts.request_seconds += time_ns / _SECOND_NS
            first = 1 << max(time_ns.bit_length() - 1, 0)
            self.latency = self.latency.plus(Latency(1, time_ns, time_ns, ((first, 2 * first, 1),)))
        counts.retries += done.retries
        counts.damaged += done.damaged
        for reason, reads in done.by_driver.items():
            counts.by_driver[reason] = counts.by_driver.get(reason, 0) + reads
        self._until_eviction -= done.fetched_bytes

    def came_late(self, answer: Answer) -> None:
        """Keep an answer that nobody waits for until the next one is counted. Any thread."""
        if answer.exception() is None:
            self._late.append(answer)

    def evict(self) -> None:
        """Have a worker remove what is beyond the limits of the cache."""
        self._until_eviction = _EVICT_EVERY_BYTES
        self._evicting = self.fetchers.ask(Evict)


class _Flight:
    """A range of pieces that a worker fetches, and those that it says have come."""

    __slots__ = ("is_counted", "parts", "start", "stop")

    def __init__(self, start: int, stop: int, see: Callable[[Arrived], Arrived]) -> None:
        self.start = start
        self.stop = stop
        self.parts = Parts(see)
        self.is_counted = False


class Version:
    """One version of a file: which of its pieces this mount has, and who fetches others.

    `good` has a byte a piece: missing, arrived or recorded. It holds while the entry is open, or
    its data file has the stamp that it had at the last close. An arrived piece can be read, because
    a worker wrote it since this mount began. If it does not become durable, it is missing again.

    The data path serves the good pieces that `presence` shows. It hides those that are announced,
    the first of each part that was fetched ahead: the reader that reaches one is then heard of, and
    fetched ahead of further.
    """

    def __init__(self, store: Store, key: str, info: Info) -> None:
        assert info.size is not None
        self.key = key
        self.info = info
        self.size = info.size
        self._store = store
        self._good = bytearray(pieces_of(self.size))
        self._presence = Presence(len(self._good), PIECE_BYTES)
        self._announced: set[int] = set()
        self._flights: dict[Answer, _Flight] = {}
        self._check: Answer | None = None
        self._checked = False
        self._entry: Entry | None = None
        self._opens = 0
        self._stamp: tuple[int, int, int] | None = None
        self._ahead = ReadAhead(store.connections)

    @property
    def is_open(self) -> bool:
        """Whether a partial open holds it."""
        return self._opens > 0

    @property
    def is_complete(self) -> bool:
        """Whether every piece is there, verified and recorded."""
        return self._good.count(_RECORDED) == len(self._good)

    def open(self, attributes: Attributes) -> BackingFile:
        """Return an open file: a plain one if the version is complete."""
        entry = self._enter()
        try:
            self._collect()
            if not self._checked and self._wait_for_check(entry):
                raise BeingMadeError(errno.EAGAIN, "the cache file is being verified")
            if not self._opens and _MISSING not in self._good and not self.is_complete:
                raise BeingMadeError(errno.EAGAIN, "the cache file is becoming durable")
            entry.use()
            if self.size and self.is_complete:
                found = RegularFile(
                    self._store.cache.reader(self.key, entry.stamp()), lambda _: attributes
                )
                self._store.counts.complete_opens += 1
            else:
                self._store.counts.partial_opens += 1
                self._opens += 1
                return RemoteFile(self, attributes)
        finally:
            if not self._opens:
                self._leave()
        return found

    @property
    def growing(self) -> Growing | None:
        """What the data path may read while the version is open."""
        if self._entry is None or not self.size:
            return None
        return Growing(self._entry.data, self.size, self._presence)

    def close(self) -> None:
        """Note that one partial open is closed."""
        self._opens -= 1
        if not self._opens:
            self._collect()
            self._cancel()
            self._leave()

    def kept(self, size: int, offset: int) -> bytes | None:
        """Return a range if it is there and verified, without waiting."""
        self._collect()
        first, end = offset // PIECE_BYTES, pieces_of(offset + size)
        if self._good.find(_MISSING, first, end) >= 0:
            return None
        assert self._entry is not None
        return os.pread(self._entry.data, size, offset)

    def read(self, size: int, offset: int) -> bytes | None:
        """Return a range if it is there; otherwise ask for it. Fetch ahead of the reader."""
        data = self.kept(size, offset)
        begins_part = self._arrive(offset // PIECE_BYTES, pieces_of(offset + size))
        if data is None:
            self._demand(offset // PIECE_BYTES, pieces_of(offset + size), DEMANDED)
        self._fetch_ahead(size, offset, begins_part)
        return data

    async def fetch(self, size: int, offset: int) -> bytes:
        """Return a range once workers have made it present. Raises OSError as they fail."""
        store = self._store
        end = time.monotonic() + store.deadline_s + _GRACE_S
        asks = 1
        while True:
            # Before the look at what is there, so that nothing comes between.
            flight = self._flight_over(offset, size)
            came = None if flight is None else flight.parts.next
            data = self.kept(size, offset)
            if data is not None:
                return data
            left = end - time.monotonic()
            if came is None and asks < _MOST_ASKS:
                asks += 1  # the answer is gone with an earlier state of the cache file
                self._demand(offset // PIECE_BYTES, pieces_of(offset + size), DEMANDED)
                continue
            if came is None or left <= 0:
                store.counts.failures += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            try:
                await awaited(came, left)
            except OSError as error:
                store.counts.failures += 1
                if error.errno in (errno.ESTALE, errno.ENOENT):
                    store.changed(self.info.path)
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from error
                raise
            await trio.lowlevel.checkpoint()

    def _fetch_ahead(self, size: int, offset: int, begins_part: bool) -> None:
        """Ask for what lies ahead of a sequential reader, in parts that end at multiples."""
        ahead, part_bytes = self._ahead.note(size, offset, begins_part=begins_part)
        if ahead:
            end = offset + size
            part = part_bytes // PIECE_BYTES
            stop = min((end + ahead) // part_bytes * part, len(self._good))
            self._demand(pieces_of(end), stop, AHEAD, part)

    def _arrive(self, first: int, end: int) -> bool:
        """Show the announced pieces of a range from now on: a reader has reached them.

        Return whether there were any.
        """
        reached = self._announced.intersection(range(first, end))
        for piece in reached:
            self._announced.discard(piece)
            if self._good[piece]:
                self._presence.show(piece, piece + 1)
        return bool(reached)

    def _demand(
        self, first: int, end: int, priority: int, part: int = BLOCK_BYTES // PIECE_BYTES
    ) -> None:
        """Ask for the pieces that are neither there nor asked for, at most `part` at a time."""
        wanted = self._good[first:end]
        for flight in self._flights.values():
            low, high = max(flight.start, first), min(flight.stop, end)
            if low < high:
                wanted[low - first : high - first] = b"\1" * (high - low)
        for start, stop in _runs(wanted, first, part):
            offset = start * PIECE_BYTES
            length = min(stop * PIECE_BYTES, self.size) - offset
            hidden = start if priority == AHEAD else -1
            flight = _Flight(start, stop, _shower(self._presence, hidden))
            if priority == AHEAD:
                self._announced.add(start)
            self._flights[self._requested(offset, length, priority, flight.parts)] = flight

    def _requested(
        self, offset: int, length: int, priority: int, parts: Parts[Arrived] | None = None
    ) -> Answer:
        store = self._store
        seconds = 0.0 if store.fetchers.is_offline else store.deadline_s
        fetch = priority != CHECKING
        return store.fetchers.ask(
            lambda number: Ensure(
                number, self.key, self.info, offset, length, fetch, seconds, priority
            ),
            parts,
        )

    def _flight_over(self, offset: int, size: int) -> _Flight | None:
        """Return the first request, ended or not, for a missing piece of a range."""
        missing = self._good.find(_MISSING, offset // PIECE_BYTES, pieces_of(offset + size))
        for flight in self._flights.values():
            if flight.start <= missing < flight.stop:
                return flight
        return None

    def _collect(self) -> None:
        """Take what has arrived. A reader that waits for an answer also gets its error."""
        ended = [answer for answer in self._flights if answer.done()]
        for flight in self._flights.values():
            for part in flight.parts.take():
                self._come(part.first, part.stop, _ARRIVED)
        for answer in ended:
            flight = self._flights.pop(answer)
            if answer.exception() is None:
                self._take(answer, is_counted=flight.is_counted)
            self._lose(flight)
        if self._check is not None and self._check.done():
            check, self._check = self._check, None
            self._checked = True
            if check.exception() is None:
                self._take(check)

    def _cancel(self) -> None:
        """Give up what is on its way: no reader is left that may want it.

        What only has to become durable goes on.
        """
        given_up = [
            answer
            for answer, flight in self._flights.items()
            if self._good.find(_MISSING, flight.start, flight.stop) >= 0
        ]
        self._store.counts.cancelled += len(given_up)
        self._store.fetchers.cancel(given_up)
        for answer, flight in self._flights.items():
            if not flight.is_counted:
                flight.is_counted = True
                answer.add_done_callback(self._store.came_late)
        for answer in given_up:
            self._lose(self._flights.pop(answer))

    def _take(self, answer: Answer, *, is_counted: bool = False) -> None:
        done = answer.result()
        assert isinstance(done, Ensured)
        for offset, length in done.good:
            self._come(offset // PIECE_BYTES, pieces_of(offset + length), _RECORDED)
        if not is_counted:
            self._store.fetched(done)

    def _come(self, first: int, stop: int, state: int) -> None:
        """Note pieces that are there, and show them unless they are announced."""
        if state == _RECORDED:
            self._good[first:stop] = bytes((state,)) * (stop - first)
        else:
            missing = bytes((_MISSING,))
            self._good[first:stop] = self._good[first:stop].replace(missing, bytes((state,)))
        for piece in sorted(self._announced.intersection(range(first, stop))):
            self._presence.show(first, piece)
            first = piece + 1
        self._presence.show(first, stop)

    def _lose(self, flight: _Flight) -> None:
        """Forget the pieces that arrived by a request and were not recorded."""
        for piece in range(flight.start, flight.stop):
            if self._good[piece] == _ARRIVED:
                self._good[piece] = _MISSING
                self._presence.hide(piece, piece + 1)

    def _wait_for_check(self, entry: Entry) -> bool:
        """Have the kept ranges verified, once; return whether the open should wait for that."""
        if self._check is None:
            if entry.is_new or not self.size:
                self._checked = True
                return False
            self._check = self._requested(0, self.size, CHECKING)
        return self.size <= _AWAITED_BYTES

    def _enter(self) -> Entry:
        """Return the open entry. Trust nothing of it that changed since the last close."""
        if self._entry is not None:
            return self._entry
        info = self.info
        place = self._store.place(info.path)
        entry = self._store.cache.open(self.key, self.size, place, info.version)
        if entry.stamp() != self._stamp:
            self._good = bytearray(len(self._good))
            self._presence = Presence(len(self._good), PIECE_BYTES)
            self._announced.clear()
            # Another daemon writes at this moment: reads verify what they need.
            self._checked = self._check is not None
            self._check = None
            self._flights.clear()
        self._entry = entry
        return entry

    def _leave(self) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            self._stamp = entry.stamp()
            entry.close()
            # A request that was given up may still show pieces of the one before.
            self._presence = Presence(len(self._good), PIECE_BYTES)
            self._announced.clear()
            for first, stop in _runs(self._good.translate(_IS_MISSING), 0, len(self._good)):
                self._presence.show(first, stop)


class RemoteFile(UpcallFile):
    """An open of a version that is not complete, or was not when it was opened."""

    __slots__ = ("_attributes", "_version")

    def __init__(self, version: Version, attributes: Attributes) -> None:
        self._version: Version | None = version
        self._attributes = attributes

    @property
    def growing(self) -> Growing | None:
        """The cache file, and which of its pieces are there."""
        return None if self._version is None else self._version.growing

    def pread(self, size: int, offset: int) -> bytes:
        """Return a range that is there; EAGAIN if it is not."""
        version, wanted = self._range(size, offset)
        data = b"" if wanted <= 0 else version.kept(wanted, offset)
        if data is None:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return data

    def read(self, size: int, offset: int) -> TreeAnswer[bytes]:
        """Return a range, or an awaitable of it if some of it is missing."""
        version, wanted = self._range(size, offset)
        if wanted <= 0:
            return b""
        data = version.read(wanted, offset)
        counts = version._store.counts
        if data is None:
            counts.misses += 1
            return version.fetch(wanted, offset)
        counts.hits += 1
        return data

    def attributes(self) -> Attributes:
        """Return the attributes of the version."""
        return self._attributes

    def close(self) -> None:
        """Close the version; a second call does nothing."""
        version, self._version = self._version, None
        if version is not None:
            version.close()

    def _range(self, size: int, offset: int) -> tuple[Version, int]:
        version = self._version
        if version is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return version, min(size, version.size - offset)


def _shower(presence: Presence, hidden: int) -> Callable[[Arrived], Arrived]:
    """Return what shows pieces in the thread that hears of them, `hidden` left out."""

    def show(part: Arrived) -> Arrived:
        first = part.first
        if first <= hidden < part.stop:
            presence.show(first, hidden)
            first = hidden + 1
        presence.show(first, part.stop)
        return part

    return show


def _runs(wanted: bytearray, first: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of zeros as (start, stop), each within one block of `most` pieces."""
    at = wanted.find(0)
    while at >= 0:
        block_end = ((first + at) // most + 1) * most - first
        stop = wanted.find(1, at)
        stop = min(len(wanted) if stop < 0 else stop, block_end)
        yield first + at, first + stop
        at = wanted.find(0, stop)
