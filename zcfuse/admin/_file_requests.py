"""Answers requests of clients about files of the mount: lock, unlock, explain.

This module runs on the trio thread and asks the tree, and the files that it opens, as for any
request of the kernel. Work that may wait for a disk or lock memory runs in a few worker threads. So
neither the loop nor the data path waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio

from zcfuse.admin._messages import (
    MOST_BYTES,
    MOST_FILES,
    CacheReply,
    CacheState,
    FileRange,
    LockOutcome,
    LockReply,
    LockReport,
    UnlockReply,
)
from zcfuse.admin.locks import FileLocks, backing_ranges, files_of, pieces_of
from zcfuse.admin.status import Refusal, Reply, Request
from zcfuse.fuse import FarCalls
from zcfuse.linux import whole_pages
from zcfuse.tree import Answer, Attributes, BackingFile, Extent, Node, Tree, Who

log = logging.getLogger(__name__)

# Two workers: one may wait for a disk while the other's pages come from memory.
_THREADS: Final = 2
# Each request holds one of the few places of the status socket while its disk hangs.
_MOST_LOCKING: Final = 8
_RETRY_S: Final = 0.01
_NO_BYTES: Final = "a program makes its bytes when they are read: there is nothing to keep"

_T = TypeVar("_T")

Serve = Callable[[BackingFile], tuple[str, str]]
"""How the data path would serve an open file: the mode, and why not a better one."""


class Opened:
    """A file that is open for one request, near or, where `mount` is not None, far."""

    def __init__(self, backing: BackingFile, far: FarCalls, mount: int | None) -> None:
        self.backing: Final = backing
        self._far = far
        self._mount = mount

    async def ask(self, call: Callable[[BackingFile], _T]) -> _T:
        """Make a call that may wait for the file's filesystem."""
        if self._mount is None:
            return call(self.backing)
        return await self._far.run(self._mount, functools.partial(call, self.backing))


class FileRequests:
    """Answers for the files of one mount.

    Parameters:
        tree: the tree of the mount.
        locks: the files kept in memory.
        serve: says how the data path would serve an open file.
        node_of: returns the node of a nodeid of the kernel; raises OSError for an unknown one.
        answer_timeout: how long the tree may take, in seconds.
        far: makes the calls that may meet a filesystem that does not answer; None: a separate one.
    """

    def __init__(
        self,
        tree: Tree,
        locks: FileLocks,
        serve: Serve,
        node_of: Callable[[int], Node],
        answer_timeout: float,
        far: FarCalls | None = None,
    ) -> None:
        self._tree = tree
        self.serve = serve
        self._node_of = node_of
        self._answer_timeout = answer_timeout
        self._far = far or FarCalls(answer_timeout)
        self._workers = trio.CapacityLimiter(_THREADS)
        # A separate limit, so that a hanging disk keeps no user from seeing or releasing locked
        # files.
        self._reporters = trio.CapacityLimiter(_THREADS)
        self._locking = 0
        self.locks: Final = locks

    async def answer(self, request: Request) -> Reply:
        """Answer a request to lock, to unlock, or about the page cache.

        After a cancellation, the current range stays with its thread, which records it.
        """
        if len(request.files) > MOST_FILES:
            return Refusal(message=f"more than {MOST_FILES} files in one request")
        if request.request == "lock":
            if self._locking >= _MOST_LOCKING:
                return Refusal(
                    message=f"{_MOST_LOCKING} requests to lock files still wait for an answer: does"
                    " a disk hang? Try again later"
                )
            self._locking += 1
            try:
                return await self.lock(request.files)
            finally:
                self._locking -= 1
        if request.request == "unlock":
            return await self.unlock(request.files)
        return await self.caches(request.files, drop=request.request == "spare")

    async def lock(self, files: Sequence[FileRange]) -> LockReply:
        """Lock ranges one after the other. After one without room, skip the others."""
        outcomes: list[LockOutcome] = []
        for file in files:
            await trio.lowlevel.checkpoint()  # requests of the kernel come in between
            if outcomes and outcomes[-1].refused:
                outcomes.append(LockOutcome(0, 0, outcomes[-1].reason, refused=True))
                continue
            try:
                outcomes.append(await self._lock(file))
            except OSError as error:
                outcomes.append(LockOutcome(0, 0, _reason(error)))
        return LockReply(outcomes)

    async def unlock(self, files: Sequence[FileRange]) -> UnlockReply:
        """Unlock files and all files below directories; without names, everything."""
        count = size = 0
        paths: list[bytes | None] = [file.path for file in files]
        for path in paths or [None]:
            done = await self._in_thread(
                functools.partial(self.locks.unlock, path), self._reporters
            )
            count, size = count + done[0], size + done[1]
        return UnlockReply(count, size)

    async def caches(self, files: Sequence[FileRange], *, drop: bool) -> CacheReply:
        """Say how files are served, and how much of them is in memory behind the mount.

        With `drop`, first drop it from memory there, because the mount's own cache has it now.
        """
        states = []
        for file in files:
            await trio.lowlevel.checkpoint()  # requests of the kernel come in between
            states.append(await self._cache(file, drop=drop))
        return CacheReply(states)

    async def report(self) -> LockReport | None:
        """Return the locked files with their bytes in memory now; None without any."""
        if not self.locks.locked_bytes:
            return None
        return await self._in_thread(self.locks.report, self._reporters)

    async def chain(self, file: FileRange) -> list[Node]:
        """Return the nodes from the root to a file.

        Look the file up by its names. If answers depend on the client, use the nodeid instead, and
        leave out the nodes between.

        Raises:
            OSError: there is no such file.
        """
        who = Who(os.geteuid(), os.getegid(), 0)
        chain = [self._tree.root]
        for name in filter(None, file.path.split(b"/")):
            if chain[-1].volatile and file.nodeid:
                known = functools.partial(self._node_of, file.nodeid)
                return [*chain, (await self._far.ask(known))[0]]
            with _failing_as_eio():
                look = functools.partial(self._tree.lookup_for, chain[-1], name, who)
                node, _ = await self._answered((await self._far.ask(look))[0])
            chain.append(node)
        return chain

    @asynccontextmanager
    async def opened(self, node: Node) -> AsyncIterator[Opened]:
        """Open a file of the tree within a bounded time; close it after the block.

        Raises:
            OSError: the file does not open.
        """
        deadline = trio.current_time() + self._answer_timeout
        while True:
            try:
                with _failing_as_eio():
                    open_it = functools.partial(self._tree.open, node)
                    backing, mount = await self._far.ask(open_it, _close)
                break
            except BlockingIOError:
                if trio.current_time() > deadline:
                    raise
            await trio.sleep(_RETRY_S)
        try:
            yield Opened(backing, self._far, mount)
        finally:
            if mount is None:
                backing.close()
            else:
                self._far.close_later(backing.close)

    async def _lock(self, file: FileRange) -> LockOutcome:
        if not 0 <= file.length <= MOST_BYTES or file.offset < 0:
            raise OSError(errno.EINVAL, f"more than {MOST_BYTES >> 20} MiB in one request")
        node = (await self.chain(file))[-1]
        async with self.opened(node) as opened:
            if (await opened.ask(self.serve))[0] == "upcall":
                return LockOutcome(0, 0, _NO_BYTES)
            work = _Work(self.locks, file, opened.backing.extents)
        return await self._in_thread(work.run, self._workers)

    async def _cache(self, file: FileRange, *, drop: bool) -> CacheState:
        try:
            node = (await self.chain(file))[-1]
            async with self.opened(node) as opened:
                mode, _ = await opened.ask(self.serve)
                if mode == "passthrough" or opened.backing.direct or node.volatile:
                    return CacheState(mode)
                if drop:
                    await opened.ask(lambda backing: _drop(backing, file))
                held = await opened.ask(lambda backing: resident(backing, file.offset, file.length))
                return CacheState(mode, held, twice=True)
        except OSError as error:
            log.debug("%r: %s", file.path, error)
            return CacheState("")

    async def attributes(self, node: Node) -> Attributes:
        """Return a node's attributes."""
        return (await self._far.ask(lambda: self._tree.attributes(node)))[0]

    async def _answered(self, answer: Answer[_T]) -> _T:
        if not isinstance(answer, Awaitable):
            return answer
        with trio.move_on_after(self._answer_timeout):
            return await answer
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    async def _in_thread(self, work: Callable[[], _T], limiter: trio.CapacityLimiter) -> _T:
        return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)


@contextlib.contextmanager
def _failing_as_eio() -> Iterator[None]:
    """Turn each exception of the tree except OSError into EIO, as the kernel would get."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        log.exception("the tree failed")
        raise OSError(errno.EIO, f"the tree failed: {error!r}") from error


class _Work:
    """Locks a range of one file. It has copies of its descriptors, which `run` closes."""

    def __init__(self, locks: FileLocks, file: FileRange, extents: Sequence[Extent]) -> None:
        self._locks = locks
        self._path = file.path
        self._made_of = files_of(extents)
        self._ranges = backing_ranges(extents, file.offset, file.length)
        # Objects close their descriptors even if no thread ever runs the job.
        self._files = {
            fd: os.fdopen(os.dup(fd), "rb", buffering=0) for fd in {fd for fd, *_ in self._ranges}
        }

    def run(self) -> LockOutcome:
        """Lock the range; call it in a worker thread, because even finding holes may use a disk."""
        with contextlib.ExitStack() as files:
            for file in self._files.values():
                files.enter_context(file)
            extents = [
                Extent(self._files[fd].fileno(), offset, length)
                for fd, offset, length in self._ranges
            ]
            pieces = pieces_of(extents, 0, sum(extent.length for extent in extents))
            return self._locks.lock(self._path, pieces, self._made_of)


def resident(backing: BackingFile, offset: int, length: int) -> int | None:
    """Return how many bytes of a range the backing files' cache holds, counted in whole pages.

    Return None if the kernel cannot say (cachestat(2)).
    """
    from zcfuse.linux import cachestat

    total = 0
    for fd, start, size in backing_ranges(backing.extents, offset, length):
        try:
            total += cachestat(fd, *whole_pages(start, size)).cached_bytes
        except OSError:
            return None
    return total


def _close(backing: BackingFile) -> None:
    backing.close()


def _drop(backing: BackingFile, file: FileRange) -> None:
    for fd, start, size in backing_ranges(backing.extents, file.offset, file.length):
        os.posix_fadvise(fd, start, size, os.POSIX_FADV_DONTNEED)


def _reason(error: OSError) -> str:
    number = error.errno or 0
    if error.strerror != os.strerror(number):
        return str(error.strerror)  # the message of this program
    return f"{errno.errorcode.get(number, number)}: {error.strerror}"
