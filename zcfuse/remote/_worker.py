"""A worker process: it asks the server and writes into the cache, so that no byte passes a daemon.

The main thread reads requests; a fixed number of threads answer them, the demanded ones first. Some
more threads than connections keep all connections at work while others write. The process ends when
its mount does.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import queue
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from zcfuse.remote._cache import BLOCK_BYTES, PIECE_BYTES, Cache, Entry, Record, pieces_of
from zcfuse.remote._drivers import ChangedError, Data, Driver, RefusedError
from zcfuse.remote._messages import (
    Arrived,
    Cancel,
    Ensure,
    Ensured,
    Evict,
    Evicted,
    Failed,
    Info,
    ListDirectory,
    Listed,
    Look,
    Looked,
    Page,
    Reply,
    Request,
    Setup,
    encode,
    receive,
)
from zcfuse.remote._source import place_of

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 3.0
_LEAST_TIMEOUT_S: Final = 0.5
# Threads beyond those that wait for the server: they wait for the disk.
_WRITERS_A_CONNECTION: Final = 1
# A listing without sizes (of HTTP) takes one request for each name.
_LOOKS: Final = 8

_T = TypeVar("_T")


class _Attempts:
    """The requests of one job to the server, which go on until its deadline."""

    def __init__(
        self,
        deadline_s: float,
        connections: threading.Semaphore,
        is_cancelled: Callable[[], object],
    ) -> None:
        self._connections = connections
        self._is_cancelled = is_cancelled
        self.deadline = time.monotonic() + deadline_s
        self.requests = 0
        self.retries = 0
        self.times_ns: list[int] = []
        self.by_driver: Counter[str] = Counter()

    def run(self, ask: Callable[[float], _T]) -> _T:
        """Call `ask` with the time-out of each attempt until it returns.

        Raises final errors at once, and after the deadline `_UnreachableError`. Begins no attempt
        for a request that is cancelled (ECANCELED). `check` ends one that is under way.
        """
        pause = _FIRST_PAUSE_S
        while True:
            try:
                with self._connections:
                    return self._asked_once(ask)
            except (ChangedError, RefusedError, PermissionError, ImportError):
                raise
            except (_CancelledError, _UnwritableError):
                raise
            except FileNotFoundError as error:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            except Exception as error:
                wait = pause * random.uniform(0.5, 1.0)
                if time.monotonic() + wait > self.deadline:
                    raise _UnreachableError(errno.EIO, _told(error)) from error
            time.sleep(wait)
            self.retries += 1
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def check(self) -> None:
        """Raise ECANCELED if nobody wants the answer any more."""
        if self._is_cancelled():
            raise _CancelledError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def _asked_once(self, ask: Callable[[float], _T]) -> _T:
        self.check()
        self.requests += 1
        began = time.monotonic_ns()
        try:
            return ask(max(self.deadline - time.monotonic(), _LEAST_TIMEOUT_S))
        finally:
            self.times_ns.append(time.monotonic_ns() - began)


class _UnreachableError(OSError):
    """All attempts failed."""


class _UnwritableError(OSError):
    """The cache did not take the bytes of an answer."""


class _CancelledError(OSError):
    """Nobody wants the answer any more."""


class Worker:
    """Answers requests. Several threads call `answer`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._cache = Cache(setup.cache_directory, setup.cache_size, setup.cache_floor)
        self._driver: Driver | None = None
        self._making = threading.Lock()
        self._connections = threading.BoundedSemaphore(setup.connections)

    def prepare(self) -> None:
        """Load the driver, which takes about a second, before a request needs it."""
        with contextlib.suppress(Exception):  # the request gets the error
            self._asked().prepare()

    def answer(
        self,
        request: Request,
        send: Callable[[Reply], None],
        is_cancelled: Callable[[], object] = bool,
    ) -> Reply:
        """Do what a request says; never raises. `send` gets what comes before the answer."""
        seconds = getattr(request, "deadline_s", 0.0)
        attempts = _Attempts(seconds, self._connections, is_cancelled)
        try:
            return self._answer(request, attempts, send)
        except OSError as error:
            refused = isinstance(error, PermissionError)
            number = errno.EACCES if refused else error.errno or errno.EIO
            lost = isinstance(error, _UnreachableError)
            text = error.strerror or str(error)
            return Failed(request.number, number, text, lost, attempts.requests)
        except Exception as error:
            text = _told(error)
            return Failed(request.number, errno.EIO, text, False, attempts.requests)

    def _answer(
        self, request: Request, attempts: _Attempts, send: Callable[[Reply], None]
    ) -> Reply:
        if isinstance(request, ListDirectory):
            return self._list(request, send)
        if isinstance(request, Look):
            return Looked(request.number, self._look(request.path, request.name, attempts))
        if isinstance(request, Evict):
            return Evicted(request.number, self._cache.evict())
        assert isinstance(request, Ensure)
        return self._ensure(request, attempts, send)

    def _asked(self) -> Driver:
        with self._making:
            if self._driver is None:
                self._driver = Driver(self._setup.url, self._setup.options)
            return self._driver

    def _list(self, request: ListDirectory, send: Callable[[Reply], None]) -> Listed:
        """Fetch page by page, each within the deadline."""
        driver = self._asked()
        path = request.path or driver.root
        token = ""
        while True:
            attempts = _Attempts(request.deadline_s, self._connections, bool)
            page = functools.partial(driver.page, path, token)
            entries, left_out, whole, following = attempts.run(page)
            if request.sizes:
                entries = self._sized(entries, path, attempts)
            if following is None:
                return Listed(request.number, entries, left_out, whole)
            send(Page(request.number, entries, left_out))
            token = following

    def _sized(self, entries: list[Info], path: str, attempts: _Attempts) -> list[Info]:
        """Ask for the sizes that a listing left out; drop names that are gone."""
        lacking = [one for one in entries if one.size is None and not one.is_directory]
        if not lacking:
            return entries
        with ThreadPoolExecutor(_LOOKS) as pool:
            names = [one.name for one in lacking]
            found = pool.map(lambda name: self._look(path, name, attempts), names)
            known = dict(zip(names, found, strict=True))
        looked = [known.get(one.name, one) for one in entries]
        return [one for one in looked if one is not None]

    def _look(self, path: str, name: bytes, attempts: _Attempts) -> Info | None:
        driver = self._asked()
        return attempts.run(lambda timeout: driver.look(path or driver.root, name, timeout))

    def _ensure(
        self, request: Ensure, attempts: _Attempts, send: Callable[[Reply], None]
    ) -> Ensured:
        info = request.info
        assert info.size is not None
        url = place_of(self._setup.url, info.path)
        entry = self._cache.open(request.key, info.size, url, info.version)
        try:
            if not request.fetch:
                good, damaged = _verified(entry, request.start, request.length)
                return Ensured(request.number, good, damaged=damaged)
            with entry.fetching(request.start, request.length, attempts.deadline):
                good, damaged = _verified(entry, request.start, request.length)
                fetched = 0
                for start, length in _missing(request.start, request.length, good):
                    self._fetch(
                        entry,
                        info,
                        (start, length),
                        attempts,
                        lambda first, stop: send(Arrived(request.number, first, stop)),
                    )
                    good.append((start, length))
                    fetched += length
        finally:
            entry.close()
        counts = fetched, attempts.requests, attempts.retries, damaged, attempts.times_ns
        return Ensured(request.number, good, *counts, attempts.by_driver)

    def _fetch(
        self,
        entry: Entry,
        info: Info,
        wanted: tuple[int, int],
        attempts: _Attempts,
        arrived: Callable[[int, int], None],
    ) -> None:
        """Write a range as it comes, and record it; announce its pieces before they are durable.

        An attempt goes on where the one before was cut off.
        """
        start, length = wanted
        if not self._cache.has_room(length):
            self._cache.evict()
            if not self._cache.has_room(length):
                raise OSError(errno.ENOSPC, f"{self._cache.directory}: the disk is full")
        driver = self._asked()
        writing = entry.writing(start)
        end = start + length

        def keep(data: Data) -> None:
            attempts.check()
            first = writing.end // PIECE_BYTES
            try:
                writing.add(data)
            except OSError as error:
                raise _UnwritableError(error.errno, error.strerror) from error
            stop = pieces_of(end) if writing.end == end else writing.end // PIECE_BYTES
            if stop > first:
                arrived(first, stop)

        def ask(timeout: float) -> None:
            if writing.end < end:
                reason = driver.read(info, writing.end, end - writing.end, timeout, keep)
                if reason:
                    attempts.by_driver[reason] += 1

        attempts.run(ask)
        writing.finish()


def _told(error: BaseException) -> str:
    """Return an error as a line, without URLs, which may hold a signature."""
    name = type(error).__name__
    text = " ".join(str(error).split())
    return name if not text or "://" in text else f"{name}: {text[:200]}"


def _verified(entry: Entry, start: int, length: int) -> tuple[list[tuple[int, int]], int]:
    """Compare the digests of a range; return the intact ranges, and the number damaged."""
    first, end = start // PIECE_BYTES, -(-(start + length) // PIECE_BYTES)
    records = entry.records()
    seen: dict[Record, None] = {}
    for piece in range(first, end) if end - first < len(records) else sorted(records):
        if first <= piece < end and piece in records:
            seen[records[piece]] = None
    good, damaged = [], 0
    for record in seen:
        if entry.is_intact(record):
            good.append((record.offset, record.length))
        else:
            entry.drop(record)
            damaged += 1
    return good, damaged


def _missing(start: int, length: int, good: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the runs of a range that no intact range covers."""
    at, end = start, start + length
    for offset, size in sorted(good):
        if offset >= end:
            break
        if offset > at:
            yield from _blocks(at, offset)
        at = max(at, offset + size)
    if at < end:
        yield from _blocks(at, end)


def _blocks(start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = min((start // BLOCK_BYTES + 1) * BLOCK_BYTES, end)
        yield start, stop - start
        start = stop


def main(fd: int) -> None:
    """Serve the mount at the other end of a socket until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the mount ends this process
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    channel = socket.socket(fileno=fd)
    setup = receive(channel, Setup)
    if setup is None:
        return
    worker = Worker(setup)
    waiting: queue.PriorityQueue[tuple[int, int, Request]] = queue.PriorityQueue()
    sending = threading.Lock()

    threading.Thread(target=worker.prepare, daemon=True).start()

    def send(reply: Reply) -> None:
        data = encode(reply)
        with sending, contextlib.suppress(OSError):
            channel.sendall(data)

    cancelled: dict[int, bool] = {}  # of the requests that have no answer yet

    def serve() -> None:
        while True:
            _, _, request = waiting.get()
            is_cancelled = functools.partial(cancelled.get, request.number)
            reply = worker.answer(request, send, is_cancelled)
            del cancelled[request.number]
            send(reply)

    for _ in range(setup.connections * (1 + _WRITERS_A_CONNECTION)):
        threading.Thread(target=serve, daemon=True).start()
    order = itertools.count()
    with contextlib.suppress(msgspec.MsgspecError):
        while (request := receive(channel, Request)) is not None:  # type: ignore[arg-type]
            if not isinstance(request, Cancel):
                cancelled[request.number] = False
                waiting.put((request.priority, next(order), request))
            elif request.number in cancelled:
                cancelled[request.number] = True
    os._exit(0)  # threads may wait for the network
