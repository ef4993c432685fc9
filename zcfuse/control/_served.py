"""A mount that this process serves in the caller's trio loop.

Its tasks are the control plane (pyfuse3), the watch on the data path, the status socket, and the
unmount. The order at the end matters: first unmount (or detach and abort), then end pyfuse3, which
still owns its end of the socket pair, then stop the data path.

Never look at the mount point in this module: this thread would wait for its own answer.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from zcfuse import __version__
from zcfuse.admin import FileRange, FileRequests, UnmountOutcome, unmount_within
from zcfuse.admin.explain import explain
from zcfuse.admin.status import (
    MOST_HOT_FILES,
    HotFile,
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
from zcfuse.admin.trace import POLL_S, Event, Tracer, events_of
from zcfuse.control._checks import Serving, no_kernel_passthrough, shortfalls
from zcfuse.datapath import Latencies
from zcfuse.fuse import Changes, DirectoryLeases, Operations
from zcfuse.linux import KernelMount, MountError, set_read_ahead
from zcfuse.options import DEFAULT_HOT_FILES, MountOptions
from zcfuse.reasons import reason_text
from zcfuse.tree import Tree, VirtualTree, move_file

if TYPE_CHECKING:
    from zcfuse.admin.metrics import MetricsServer
    from zcfuse.control._renewal import Renewal
    from zcfuse.control.survive import Survival
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

# The status socket's readers name themselves; these are the program's own.
_READERS: Final = itertools.count(1)
_ENDS_WITH_DAEMON: Final = "this mount ends with its daemon: mount it with --survive"
_NO_DATAPATH: Final = "the mount has no data path to trace (--path naive)"
CONTROL_TASKS: Final = 512
"""Requests that Python works on at a time; the data path gives each user a share of them."""

UNMOUNTED: Final = "unmounted"
ABORTED: Final = "aborted"
LEFT: Final = "left to the holder"


class Mount:
    """A mount in service."""

    def __init__(
        self,
        kernel: KernelMount,
        source: str,
        options: MountOptions,
        operations: Operations,
        datapath: DataPath | None,
        directory_leases: DirectoryLeases | None,
        changes: Changes,
        tree: Tree,
        files: FileRequests,
        renewal: Renewal,
        survival: Survival | None = None,
        *,
        silent_opens: bool = True,
    ) -> None:
        self._kernel = kernel
        self._renewal = renewal
        self._silent_opens = silent_opens
        self._tree = tree
        self._files = files
        self._survival = survival
        self._operations = operations
        self._datapath = datapath
        self._directory_leases = directory_leases
        self._changes = changes
        # A size that somebody chose is also how many are told.
        told = 0 if options.hot_files == DEFAULT_HOT_FILES else options.hot_files
        self._hot_files = (
            None
            if datapath is None
            else HotFiles(datapath, operations.path_of, max(told, MOST_HOT_FILES))
        )
        self._tracer = None if datapath is None else Tracer(datapath, operations.path_of)
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
    def shortfalls(self) -> list[str]:
        """A line for each option that cannot do for this tree what it promises."""
        if self._datapath is None:
            return shortfalls(self._tree, self.options, None)
        transport, leases = self._transport(), self._directory_leases
        no_push = "" if leases is None else leases.push_refused
        channel, why = str(transport["kind"]), str(transport["reason"])
        serving = Serving(channel, why, no_push, self._silent_opens)
        return shortfalls(self._tree, self.options, serving)

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
            threads=thread_usage(_roles(self._thread, datapath)),
            tree=self._tree.report(),
            locks=self._files.locks.totals() if self._files.locks.locked_bytes else None,
            hot_files=self.hot_files(),
            metrics=self._metrics,
            version=__version__,
            processes=self._processes(),
            survival=self._survival.report() if self._survival is not None else None,
        )

    def _processes(self) -> dict[str, int]:
        processes = {"control": os.getpid()}
        if self._datapath is not None:
            processes["datapath"] = os.getpid()
        if self._survival is not None:
            processes["holder"] = self._survival.holder
        return processes

    def hot_files(self) -> list[HotFile]:
        """Return the files that are asked for most, by name: their opens, reads and bytes.

        How many it counts is an option (``hot_files``). Of a passthrough file it knows the opens
        only, for the kernel answers the reads.
        """
        return self._hot_files.now() if self._hot_files is not None else []

    def events(self, every: float = POLL_S) -> AsyncGenerator[Event, None]:
        """Trace the mount: return each request that it answers from now on, some time later.

        Requests that the kernel answers itself are not seen: names, attributes and pages that it
        has, and the reads of a passthrough file, of which only the open is. Close the iterator to
        end the trace (`contextlib.aclosing`). It ends by itself with the mount, and where nobody
        asks for the next event for 10 s.

        Parameters:
            every: seconds between two looks. Each serving thread keeps about 35,000 events between
                them; what is beyond is counted in `Event.lost`.

        Raises:
            RuntimeError: somebody traces already, or the mount has no data path.
        """
        if self._tracer is None:
            raise RuntimeError(_NO_DATAPATH)
        reader = f"events {next(_READERS)}"
        try:
            self._tracer.drain(reader)
        except PermissionError as error:
            raise RuntimeError(str(error)) from None
        return self._events(self._tracer, reader, every)

    async def _events(
        self, tracer: Tracer, reader: str, every: float
    ) -> AsyncGenerator[Event, None]:
        try:
            while True:
                ended = self._ended.is_set()
                for event in events_of(tracer.drain(reader)):
                    yield event
                if ended:
                    return
                with trio.move_on_after(every):
                    await self._ended.wait()
        finally:
            tracer.end(reader)

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

    async def notified(self) -> None:
        """Wait until the kernel knows of the changes in the tree (`Dir.replace` and the like).

        A later open gets the file that the name means now. Do not await it in a function that
        answers for the tree: the client of that answer may block the kernel. A cancellation ends
        only the waiting.
        """
        await self._changes.notified()

    async def move(self, path: str, to: str | bytes | os.PathLike[str]) -> None:
        """Serve a file from another place from now on: from a faster disk, for instance.

        Clients that open the file after that read `to`. Clients that have it open keep the old one,
        mapped or not, until the last close. The file shows the mode, the owner and the time that it
        had. It is a new file to clients, with another inode number, because the kernel ties the
        pages and the passthrough of an inode to one backing file.

        Parameters:
            path: of the file, from the root of the mount. It must be a `File` that a `Dir` holds. A
                file of a `Mirror` cannot move: others may rename or replace it in its directory.
            to: a regular file with the same bytes, which the caller vouches for. Only the size is
                compared.

        Raises:
            FileNotFoundError: there is no such entry, or no file `to`.
            TypeError: it is no File, or a directory on the way is no Dir that holds its entries.
            ValueError: the sizes differ.

        Returns once the kernel knows; not to be awaited by a function that answers for the tree. A
        cancellation ends only the waiting.
        """
        if not isinstance(self._tree, VirtualTree):
            raise TypeError(f"move: only a file of a Dir can be moved, not one of {self._tree!r}")
        move_file(self._tree.root.directory, path, to)
        await self.notified()

    async def sync(self, wait: float = 30.0) -> bool:
        """Wait until the kernel knows of each change of the backing tree that returned before.

        A client that looks after this call sees those changes. After a cancellation the fence stays
        with its thread, which ends within `wait`.

        Parameters:
            wait: for how long, in seconds.

        Returns:
            False after the time has passed, or if no changes are pushed.
        """
        until = trio.current_time() + wait
        if self._datapath is None or not await self._renewal.look(until):
            return False
        left = max(0.0, until - trio.current_time())
        sync = functools.partial(self._datapath.sync, round(left * 1000))
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
            ``unmounted``, ``aborted``, or the failure; ``left to the holder`` after the block of a
            mount that survives.
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
                        tasks.start_soon(self._renewal.run)
                        if self._survival is not None:
                            tasks.start_soon(self._end_without_holder, self._survival)
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
            log.info("transport: %s %s", transport["kind"], reason_text(str(transport["reason"])))
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
        if not await self._left_to_holder():
            await self.unmount()
        await self._end_control()
        self._tasks_scope.cancel()

    async def _left_to_holder(self) -> bool:
        """Stop serving without an unmount, if a holder keeps the mount for the next program."""
        survival, datapath = self._survival, self._datapath
        if survival is None or datapath is None:
            return False
        from zcfuse.control.survive import ProgramSurvival

        if not isinstance(survival, ProgramSurvival):
            return False
        if self._end_requested.is_set() or self._ended.is_set():
            return False
        self._reason = LEFT
        survival.leave(free=await trio.to_thread.run_sync(datapath.leave))
        self._ended.set()
        return True

    def _finish(self, reason: str) -> None:
        if not self._ended.is_set():
            self._kernel.notice_end()
            self._reason = reason
            if self._survival is not None:
                self._survival.ending()
            self._ended.set()

    async def _end_without_holder(self, survival: Survival) -> None:
        await survival.wait_alone(self.device)
        self.request_end()

    async def _run_control(self) -> None:
        try:
            with self._control_scope:
                await self._operations.session.main(1, CONTROL_TASKS)
        except Exception as error:
            log.exception("the control plane failed")
            if self._survival is not None:
                self._survival.give_up("the control plane failed")
            self._failed = True
            self._finish(f"the control plane failed: {error}")
            self.request_end(0)
        finally:
            self._control_done.set()
        if self._datapath is None:
            self._finish(ABORTED if self._kernel.notice_end() else UNMOUNTED)

    async def _watch_datapath(self, datapath: DataPath) -> None:
        await trio.lowlevel.wait_readable(datapath.ended_fd())
        if self._reason == LEFT:
            return
        reason = datapath.end_reason() or UNMOUNTED
        if self._survival is not None and reason not in (UNMOUNTED, ABORTED):
            self._survival.give_up(reason)
        self._finish(reason)

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
        if request.request in ("renew", "hand_over"):
            if self._survival is None:
                return Refusal(message=_ENDS_WITH_DAEMON)
            return await self._survival.upgraded(hand_over=request.request == "hand_over")
        if request.request in ("trace", "untrace"):
            return self._traced(request)
        if request.request != "unmount":
            return await self._files.answer(request)
        if not request.force:
            polite = await self._unmount_politely(request.wait_s)
            if polite.failed:
                message = printable(polite.message)
                return UnmountReply(failed=True, message=message, busy=polite.busy)
        outcome = await self.unmount(request.wait_s)
        return UnmountReply(failed=outcome.failed, message=printable(outcome.message))

    def _traced(self, request: Request) -> Reply:
        if self._tracer is None:
            return Refusal(message=_NO_DATAPATH)
        if request.request == "untrace":
            reply = self._tracer.drain(request.reader)
            self._tracer.end(request.reader)
            return reply
        try:
            return self._tracer.drain(request.reader)
        except PermissionError as error:
            return Refusal(message=str(error))

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
        self._operations.session.terminate()
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


def _roles(control: int, statistics: dict[str, Any] | None) -> dict[int, str]:
    roles = {one["tid"]: one["role"] for one in (statistics or {}).get("threads", ())}
    return roles | {control: "control"}  # this thread also starts the data path


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
