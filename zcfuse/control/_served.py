"""A mount that this process serves in the caller's trio loop.

Its tasks are the control plane (pyfuse3), the watch on the data path, the status socket, and the
unmount. The order at the end matters: first unmount (or detach and abort), then end pyfuse3, which
still owns its end of the socket pair, then stop the data path.

Never look at the mount point in this module: this thread would wait for its own answer.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyfuse3
import trio

from zcfuse import __version__
from zcfuse.admin import FileRange, FileRequests, UnmountOutcome, unmount_within
from zcfuse.admin.explain import explain
from zcfuse.admin.status import (
    HotFiles,
    Refusal,
    Reply,
    Request,
    StatusDocument,
    SyncReply,
    UnmountReply,
    printable,
    serve_status,
    thread_usage,
)
from zcfuse.control._checks import (
    no_kernel_passthrough,
)
from zcfuse.datapath import Latencies
from zcfuse.fuse import Changes, DirectoryLeases, Operations
from zcfuse.linux import KernelMount, MountError, set_read_ahead
from zcfuse.options import MountOptions
from zcfuse.tree import Tree

if TYPE_CHECKING:
    from zcfuse.admin.metrics import MetricsServer
    from zcfuse.datapath import DataPath

log = logging.getLogger(__name__)

# The kernel sends INIT as soon as the mount exists. After a longer wait the data path is stuck.
_INIT_TIMEOUT_S: Final = 10.0
_INIT_POLL_S: Final = 0.005
# Time to notice the end of a connection, for a handler to return, for a last answer to go out.
_CHANNEL_GRACE_S: Final = 2.0
_CONTROL_GRACE_S: Final = 5.0
_REPLY_GRACE_S: Final = 1.0
# Time that umount2(2) or fusermount3 may take beyond the wait for a busy mount.
_UNMOUNT_CALL_S: Final = 30.0
# Room for two of the largest requests on their way while a client consumes a third.
_READ_AHEAD_KIB: Final = 4096

UNMOUNTED: Final = "unmounted"
ABORTED: Final = "aborted"


class AnnouncedOperations(Operations):
    """Operations that know whether the kernel has sent INIT."""

    initialised = False

    def init(self) -> None:
        """Record INIT; called in the trio thread before the answer goes out."""
        super().init()
        self.initialised = True


class Mount:
    """A mount in service."""

    def __init__(
        self,
        kernel: KernelMount,
        source: str,
        options: MountOptions,
        operations: AnnouncedOperations,
        datapath: DataPath | None,
        directory_leases: DirectoryLeases | None,
        changes: Changes,
        tree: Tree,
        files: FileRequests,
    ) -> None:
        self._kernel = kernel
        self._tree = tree
        self._files = files
        self._operations = operations
        self._datapath = datapath
        self._directory_leases = directory_leases
        self._changes = changes
        self._hot_files = None if datapath is None else HotFiles(datapath, operations.path_of)
        self._metrics = ""
        self._began = time.monotonic()
        self._wait = options.unmount_wait
        self._hurry = threading.Event()
        self._end_requested = trio.Event()
        self._detached = trio.Event()
        self._ended = trio.Event()
        self._control_done = trio.Event()
        # A cancellation of the caller must not end tasks that the unmount needs.
        self._host_scope = trio.CancelScope(shield=True)
        self._control_scope = trio.CancelScope()
        self._tasks_scope = trio.CancelScope()
        self._thread = threading.get_native_id()
        self._reason = ""
        self._failed = False
        self._outcome = UnmountOutcome(lazy=False, failed=False, message="")
        self.source: Final = source
        self.options: Final = options

    @property
    def mountpoint(self) -> str:
        """The mount point: an absolute path without symlinks."""
        return self._kernel.mountpoint

    @property
    def device(self) -> tuple[int, int]:
        """The (major, minor) number of the mounted filesystem."""
        return self._kernel.device

    @property
    def outcome(self) -> UnmountOutcome:
        """The outcome of the unmount; None before its end."""
        return self._outcome

    @property
    def failed(self) -> bool:
        """Whether the control plane failed, which ends the mount."""
        return self._failed

    def statistics(self) -> dict[str, dict[str, Any] | None]:
        """Return the counts of both planes: ``control``, and ``datapath`` (None if naive)."""
        return {
            "control": msgspec.to_builtins(self._operations.statistics()),
            "datapath": self._datapath_statistics(),
        }

    def status(self) -> StatusDocument:
        """Return the status document, as on the status socket."""
        datapath = self._datapath_statistics()
        if datapath is not None:
            latencies = msgspec.convert(datapath["latency"], Latencies)
            datapath["latency"] = latencies.described()
        return StatusDocument(
            pid=os.getpid(),
            source=printable(self.source),
            mountpoint=printable(self.mountpoint),
            device=f"{self.device[0]}:{self.device[1]}",
            uptime_s=round(time.monotonic() - self._began, 3),
            options=_described(self.options),
            control=msgspec.to_builtins(self._operations.statistics()),
            datapath=datapath,
            threads=thread_usage({self._thread: "control", **_datapath_roles(datapath)}),
            tree=self._tree.report(),
            locks=self._files.locks.totals() if self._files.locks.locked_bytes else None,
            hot_files=self._hot_files.now() if self._hot_files is not None else [],
            metrics=self._metrics,
            version=__version__,
        )

    def answer_scrapers(self, server: MetricsServer) -> None:
        """Have a server of metrics answer with `status` until it closes."""
        self._metrics = server.address
        server.start(self.status)

    def revoke_lease(self) -> None:
        """Ask the tree for every name and open from now on, instead of its leased directories.

        The kernel drops what it keeps and asks again. Open files stay as they are until they close.
        Without leases, nothing changes.
        """
        if self._directory_leases is not None:
            self._directory_leases.revoke()

    async def told(self) -> None:
        """Wait until the kernel knows of the changes in the tree (`Dir.replace` and the like).

        A later open gets the file that the name means now. Do not await it in a function that
        answers for the tree: the client of that answer may block the kernel. A cancellation ends
        only the waiting.
        """
        await self._changes.told()

    async def sync(self, wait: float = 30.0) -> bool:
        """Wait until the kernel knows of each change of the backing tree that returned before.

        A client that looks after this call sees those changes. After a cancellation the fence stays
        with its thread, which ends within `wait`.

        Parameters:
            wait: for how long, in seconds.

        Returns:
            False after the time has passed, or if ``coherence`` is not ``push``.
        """
        if self._datapath is None:
            return False
        sync = functools.partial(self._datapath.sync, round(wait * 1000))
        return await trio.to_thread.run_sync(sync, abandon_on_cancel=True)

    def request_end(self, wait: float | None = None) -> None:
        """Begin to unmount and return at once. After a second call, do not wait for a busy mount.

        Parameters:
            wait: how long to wait for a busy mount, in seconds; None: as the options say.
        """
        if self._end_requested.is_set():
            self._hurry.set()
            return
        if wait is not None:
            self._wait = wait
        self._end_requested.set()

    async def wait_ended(self) -> str:
        """Wait until the connection has ended, for any reason.

        Returns:
            ``unmounted``, ``aborted``, or the failure.
        """
        await self._ended.wait()
        return self._reason

    async def unmount(self, wait: float | None = None) -> UnmountOutcome:
        """Unmount within a bounded time and return the outcome. Repeated calls are harmless."""
        if not self._end_requested.is_set():
            self.request_end(wait)
        await self._detached.wait()
        return self._outcome

    async def _host(self, listener: socket.socket) -> None:
        """Run all tasks that serve the mount, until `_end`."""
        with self._host_scope:
            async with trio.open_nursery() as replies:
                with self._tasks_scope:
                    async with trio.open_nursery() as tasks:
                        tasks.start_soon(self._run_control)
                        if self._datapath is not None:
                            tasks.start_soon(self._watch_datapath, self._datapath)
                        tasks.start_soon(self._unmount_when_asked)
                        tasks.start_soon(self._changes.run)
                        tasks.start_soon(serve_status, listener, self._respond, replies)
                replies.cancel_scope.deadline = trio.current_time() + _REPLY_GRACE_S

    async def _wait_answering(self) -> None:
        """Wait for INIT, then tune the settings that need its result."""
        with trio.move_on_after(_INIT_TIMEOUT_S):
            while not (self._initialised() or self._ended.is_set()):
                await trio.sleep(_INIT_POLL_S)
        if not self._initialised():
            reason = self._reason or f"the kernel sent no INIT within {_INIT_TIMEOUT_S:g} s"
            raise MountError(f"{self.mountpoint}: the mount ended before it answered: {reason}")
        if self._datapath is not None:
            transport = self._transport()
            log.info("transport: %s %s", transport["kind"], transport["reason"])
        if self._ended.is_set():
            # Another process unmounted it already; its device number may be reused by now.
            return
        if self.options.path == "passthrough" and not self._greeting()["passthrough"]:
            raise no_kernel_passthrough()
        refused = set_read_ahead(self.device, self._read_ahead_kib())
        if refused:
            log.info("readahead stays as it is: %s", refused)

    def _read_ahead_kib(self) -> int:
        """Return the readahead in whole requests; a remainder would cost a small request each."""
        if self._datapath is None:
            return _READ_AHEAD_KIB
        request = int(self._greeting()["max_pages"]) * os.sysconf("SC_PAGESIZE") // 1024
        return max(_READ_AHEAD_KIB // request, 1) * request

    def _initialised(self) -> bool:
        if self._datapath is not None:
            return bool(self._greeting()["done"]) and bool(self._transport()["settled"])
        return self._operations.initialised

    def _greeting(self) -> dict[str, Any]:
        """Return the result of INIT from the data path."""
        return msgspec.convert((self._datapath_statistics() or {}).get("init"), dict[str, Any])

    def _transport(self) -> dict[str, Any]:
        """Return the data path's description of its channel."""
        return msgspec.convert((self._datapath_statistics() or {}).get("transport"), dict[str, Any])

    def _datapath_statistics(self) -> dict[str, object] | None:
        return self._datapath.statistics() if self._datapath is not None else None

    async def _end(self) -> None:
        await self.unmount()
        await self._end_control()
        self._tasks_scope.cancel()

    def _finish(self, reason: str) -> None:
        if not self._ended.is_set():
            self._kernel.notice_end()
            self._reason = reason
            self._ended.set()

    async def _run_control(self) -> None:
        try:
            with self._control_scope:
                await pyfuse3.main()
        except Exception as error:
            log.exception("the control plane failed")
            self._failed = True
            self._finish(f"the control plane failed: {error}")
            self.request_end(0)
        finally:
            self._control_done.set()
        if self._datapath is None:
            self._finish(ABORTED if self._kernel.notice_end() else UNMOUNTED)

    async def _watch_datapath(self, datapath: DataPath) -> None:
        await trio.lowlevel.wait_readable(datapath.ended_fd())
        self._finish(datapath.end_reason() or UNMOUNTED)

    async def _unmount_when_asked(self) -> None:
        await self._end_requested.wait()
        try:
            with trio.move_on_after(self._wait + _UNMOUNT_CALL_S):
                self._outcome = await trio.to_thread.run_sync(
                    unmount_within, self._kernel, self._wait, self._hurry, abandon_on_cancel=True
                )
            if self._datapath is not None:
                self._datapath.expect_end()
            # The filesystem may live on in another mount namespace, but its daemon ends here.
            with trio.move_on_after(_CHANNEL_GRACE_S):
                await self._ended.wait()
            if not self._ended.is_set():
                self._kernel.abort()
                self._finish(UNMOUNTED)
        finally:
            self._detached.set()

    async def _respond(self, request: Request) -> Reply:
        if request.request == "status":
            locks = await self._files.report()
            return msgspec.structs.replace(self.status(), locks=locks)
        if request.request == "explain":
            return await self._explain(request.files)
        if request.request == "sync":
            return SyncReply(done=await self.sync(request.wait_s or 0.0))
        if request.request != "unmount":
            return await self._files.answer(request)
        if not request.force:
            polite = await self._unmount_politely(request.wait_s)
            if polite.failed:
                message = printable(polite.message)
                return UnmountReply(failed=True, message=message, busy=polite.busy)
        outcome = await self.unmount(request.wait_s)
        return UnmountReply(failed=outcome.failed, message=printable(outcome.message))

    async def _unmount_politely(self, wait: float | None) -> UnmountOutcome:
        """Unmount, or keep serving if a program uses the mount.

        After a cancellation the attempt stays with its thread, which ends within `wait` seconds.
        """
        seconds = self._wait if wait is None else wait
        attempt = functools.partial(unmount_within, self._kernel, seconds, force=False)
        return await trio.to_thread.run_sync(attempt, abandon_on_cancel=True)

    async def _explain(self, files: Sequence[FileRange]) -> Reply:
        if len(files) != 1:
            return Refusal(message="name one file to explain")
        datapath, (file,) = self._datapath, files
        open_as = datapath.serves(file.nodeid) if datapath is not None else ""
        leases = self._directory_leases
        try:
            return await explain(file, self._files, self._tree, self.status(), leases, open_as)
        except OSError as error:
            return Refusal(message=f"the tree has no such file: {error.strerror}")

    async def _end_control(self) -> None:
        pyfuse3.terminate()
        with trio.move_on_after(_CONTROL_GRACE_S):
            await self._control_done.wait()
        if not self._control_done.is_set():
            log.error("a request handler did not end within %g s", _CONTROL_GRACE_S)
            self._control_scope.cancel()
            await self._control_done.wait()


def _described(options: MountOptions) -> dict[str, object]:
    described: dict[str, object] = msgspec.to_builtins(replace(options, source_name=None))
    if options.immutable:
        described.update(cache_timeout=None, directory_lease=True)  # immutable implies these
    return {**described, "read_only": not options.rw}


def _datapath_roles(statistics: dict[str, Any] | None) -> dict[int, str]:
    threads = (statistics or {}).get("threads", ())
    return {thread["tid"]: thread["role"] for thread in threads}


@asynccontextmanager
async def serving(served: Mount, listener: socket.socket) -> AsyncIterator[None]:
    body_error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served._host, listener)
        try:
            await served._wait_answering()
            yield
        except (Exception, KeyboardInterrupt) as error:
            # Raise it outside of the nursery, so that the caller gets no exception group.
            body_error = error
        finally:
            with trio.CancelScope(shield=True):
                await served._end()
    if body_error is not None:
        raise body_error
