"""Calls to filesystems that may never answer: each in a worker thread, for a bounded time.

FUSE and network filesystems are far (`zcfuse.tree.near_only`). A call to one holds up its own
client only. Each such filesystem has a few places for calls. One that has not answered a call for
`PATIENCE_S` is silent: further calls fail at once until a call returns. A thread that never returns
is left behind; it keeps its place and nothing else. Belongs to the trio thread.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
import trio

from zcfuse.tree import FarError, near_only

PLACES: Final = 3
"""Calls to one filesystem at a time; a ring has 8 entries for each processor."""

PATIENCE_S: Final = 5.0
"""How long a call waits for a place, or runs, before its filesystem counts as silent."""

SILENT_PLACES: Final = 3
"""Calls to silent filesystems, all together, whose clients still wait."""

_CLOSERS: Final = 2

log = logging.getLogger("zcfuse.control")
_T = TypeVar("_T")


class FarStatistics(msgspec.Struct, frozen=True):
    """Calls that went to worker threads: in all, under way, given up, and refused at once."""

    calls: int
    running: int
    timed_out: int
    refused: int


class _Job(Generic[_T]):
    """One call. `drop` gets a result that comes after its client has gone."""

    def __init__(self, call: Callable[[], _T], drop: Callable[[_T], None]) -> None:
        self.done = trio.Event()
        self.began = 0.0
        self._call = call
        self._drop = drop
        self._lock = threading.Lock()
        self._abandoned = False
        self._result: _T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call, in a worker thread; never raises."""
        with self._lock:
            if self._abandoned:
                return
        result, error = None, None
        try:
            result = self._call()
        except BaseException as raised:
            error = raised
        with self._lock:
            self._result, self._error = result, error
            late = self._abandoned
        if late and error is None:
            self._let_go(cast("_T", result))

    def fail(self, error: BaseException) -> None:
        """Record that no thread can make the call."""
        self._error = error

    def abandon(self) -> None:
        """Leave the call to its thread."""
        with self._lock:
            self._abandoned = True

    def result(self) -> _T:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return cast("_T", self._result)

    def _let_go(self, result: _T) -> None:
        with contextlib.suppress(Exception):
            self._drop(result)


class _Filesystem:
    def __init__(self) -> None:
        self.places = trio.CapacityLimiter(PLACES)
        self.jobs: set[_Job[Any]] = set()

    def is_silent(self) -> bool:
        latest = trio.current_time() - PATIENCE_S
        return any(0 < job.began < latest for job in self.jobs)


class FarCalls:
    """The calls of one mount. `timeout` (seconds) is the longest that a client waits."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._filesystems: dict[int, _Filesystem] = {}
        self._silent = 0
        self._calls = 0
        self._timed_out = 0
        self._refused = 0
        self._closers = 0
        self._to_close: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def statistics(self) -> FarStatistics:
        """Return the counters as they are now."""
        running = sum(len(one.jobs) for one in self._filesystems.values())
        return FarStatistics(self._calls, running, self._timed_out, self._refused)

    async def ask(
        self, call: Callable[[], _T], drop: Callable[[_T], None] = lambda _: None
    ) -> tuple[_T, int | None]:
        """Make a call, here if it stays near; return its result, and for which mount it went far.

        Parameters:
            call: may be made twice: what it did before it met a far filesystem is repeated.
            drop: gets a result that comes after the client has gone.

        Raises:
            OSError: ETIMEDOUT where the filesystem does not answer, and whatever the call raises.
        """
        try:
            with near_only:
                return call(), None
        except FarError as error:
            mount = error.mount
        return await self.run(mount, call, drop), mount

    async def run(
        self, mount: int, call: Callable[[], _T], drop: Callable[[_T], None] = lambda _: None
    ) -> _T:
        """Make a call in a worker thread, for the filesystem of a mount; raises as `ask` does."""
        self._calls += 1
        filesystem = self._filesystems.setdefault(mount, _Filesystem())
        if filesystem.is_silent():
            self._refused += 1
            raise OSError(errno.ETIMEDOUT, "the filesystem behind it does not answer")
        job = _Job(call, drop)
        filesystem.jobs.add(job)
        # The call's context goes with it, as to a thread of a task.
        context = contextvars.copy_context()
        trio.lowlevel.spawn_system_task(self._work, mount, filesystem, job, context=context)
        try:
            await self._wait(job)
        finally:
            if not job.done.is_set():
                job.abandon()
        return job.result()

    def close_later(self, close: Callable[[], None]) -> None:
        """Close something far in another thread, without waiting: close(2) may flush."""
        self._to_close.put(close)
        if self._closers < _CLOSERS:
            self._closers += 1
            threading.Thread(target=self._close_all, daemon=True).start()

    async def _wait(self, job: _Job[Any]) -> None:
        with trio.move_on_after(min(PATIENCE_S, self._timeout)):
            await job.done.wait()
        if not job.done.is_set() and job.began and self._silent < SILENT_PLACES:
            self._silent += 1
            try:
                with trio.move_on_after(max(self._timeout - PATIENCE_S, 0)):
                    await job.done.wait()
            finally:
                self._silent -= 1
        if not job.done.is_set():
            self._timed_out += 1
            log.warning("a filesystem inside the source does not answer")
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    async def _work(self, mount: int, filesystem: _Filesystem, job: _Job[Any]) -> None:
        try:
            async with filesystem.places:
                job.began = trio.current_time()
                # Of its own: the thread that is left behind must hold this place and no other.
                await trio.to_thread.run_sync(
                    job.run, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True
                )
        except RuntimeError as error:
            job.fail(OSError(errno.EAGAIN, f"no thread for it: {error}"))
        finally:
            job.done.set()
            filesystem.jobs.discard(job)
            if not filesystem.jobs:
                self._filesystems.pop(mount, None)

    def _close_all(self) -> None:
        while True:
            with contextlib.suppress(Exception):
                self._to_close.get()()
