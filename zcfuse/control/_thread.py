"""A mount for programs without trio: its loop runs in a separate thread.

The caller's thread waits only for the beginning, for the end, and for what it asks the loop to run.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, overload

import trio

from zcfuse.control._attach import attach as take_over
from zcfuse.control._mount import as_tree, check_engine, mount
from zcfuse.control._served import Mount
from zcfuse.linux import MountError
from zcfuse.options import MountOptions
from zcfuse.tree import Dir, Tree

if TYPE_CHECKING:
    from zcfuse.engine import KernelServed

# Beyond the wait for a busy mount: what umount2(2), a handler and the threads may take.
_END_GRACE_S: Final = 60.0

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ServedMount:
    """A mount that another thread serves. Any thread but that one may use it."""

    def __init__(self, mounted: Mount, token: trio.lowlevel.TrioToken) -> None:
        self._mounted = mounted
        self._token = token

    @property
    def mountpoint(self) -> str:
        """Where it is mounted: an absolute path without symlinks."""
        return self._mounted.mountpoint

    def run(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in the thread that serves the mount, and return what it returns.

        That thread may look at the tree at any time, so change the tree by this method:
        ``run(tree.add, "b", entry)``. The function must not wait, and must not look at the mount.

        Raises:
            trio.RunFinishedError: the mount has ended.
            BaseException: what the function raised.
        """
        call = functools.partial(function, *args, **kwargs)
        return trio.from_thread.run_sync(call, trio_token=self._token)

    @property
    def mount(self) -> Mount:
        """The mount itself, for functions that `run` and `run_async` call."""
        return self._mounted

    def run_async(self, function: Callable[[], Awaitable[_T]], /) -> _T:
        """Await an async function in the loop that serves the mount, and return what it returns.

        Raises:
            trio.RunFinishedError: the mount has ended.
            BaseException: what the function raised.
        """
        return trio.from_thread.run(function, trio_token=self._token)

    def notified(self) -> None:
        """Wait until the kernel knows the changes of the tree, as `Mount.notified` does."""
        self.run_async(self._mounted.notified)

    def move(self, path: str, to: str | bytes | os.PathLike[str]) -> None:
        """Serve a file from another place from now on, as `Mount.move` does."""
        self.run_async(functools.partial(self._mounted.move, path, to))

    def statistics(self) -> dict[str, dict[str, Any] | None]:
        """Return the counts of both planes, as `Mount.statistics` does."""
        return self.run(self._mounted.statistics)

    def unmount(self, wait: float | None = None) -> None:
        """Unmount now, as `Mount.unmount` does, also a mount that would survive the program.

        Parameters:
            wait: how long to wait for a busy mount, in seconds; None: as the options say.
        """
        self.run_async(functools.partial(self._mounted.unmount, wait))

    def wait_ended(self, timeout: float | None = None) -> str | None:
        """Wait until the mount has ended, whoever ended it.

        Parameters:
            timeout: for how long, in seconds; None: without a limit.

        Returns:
            ``unmounted``, ``aborted`` or what failed; None after the time.
        """

        async def bounded() -> str | None:
            with trio.move_on_after(float("inf") if timeout is None else timeout):
                return await self._mounted.wait_ended()
            return None

        return self.run_async(bounded)


class _Thread:
    """The thread of one mount, and its messages to the caller."""

    def __init__(self, mounted: AbstractAsyncContextManager[Mount], options: MountOptions) -> None:
        self._mounted = mounted
        self._options = options
        self._begun = threading.Event()
        self._leave = trio.Event()
        self._abandoned = False
        self._served: ServedMount | None = None
        self._error: BaseException | None = None
        # A daemon thread: one that cannot end must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="zcfuse serve", daemon=True)

    def start(self) -> ServedMount:
        """Mount; raise what `mount` raises."""
        self._thread.start()
        try:
            self._begun.wait()
        except BaseException:
            # The thread looks at _abandoned after it has set _served, so one of the two ends it.
            self._abandoned = True
            if self._served is not None:
                self._let_go(self._served)
            self._thread.join(self._bound())
            raise
        if self._served is None:
            self._thread.join()
            assert self._error is not None
            raise self._error
        return self._served

    def end(self) -> None:
        """Unmount, within a bounded time; raise what ended the loop before."""
        assert self._served is not None
        self._let_go(self._served)
        self._thread.join(self._bound())
        if self._thread.is_alive():
            raise MountError(f"{self._served.mountpoint}: the thread of the mount did not end")
        if self._error is not None:
            raise self._error

    def _let_go(self, served: ServedMount) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # the loop failed: its error follows
            served.run(self._leave.set)

    def _bound(self) -> float:
        return self._options.unmount_wait + _END_GRACE_S

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            self._error = error
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        async with self._mounted as mounted:
            self._served = ServedMount(mounted, trio.lowlevel.current_trio_token())
            self._begun.set()
            if not self._abandoned:
                await self._leave.wait()


@overload
def serve(
    tree: Tree | Dir,
    mountpoint: str | bytes | os.PathLike[str],
    *,
    engine: Literal["fuse"] = "fuse",
    attach: bool = False,
    **options: Any,  # noqa: ANN401 - those of MountOptions
) -> AbstractContextManager[ServedMount]: ...


@overload
def serve(
    tree: Tree | Dir,
    mountpoint: str | bytes | os.PathLike[str],
    *,
    engine: Literal["kernel"],
    **options: Any,  # noqa: ANN401 - those of MountOptions
) -> AbstractContextManager[KernelServed]: ...


def serve(
    tree: Tree | Dir,
    mountpoint: str | bytes | os.PathLike[str],
    *,
    engine: Literal["fuse", "kernel"] = "fuse",
    attach: bool = False,
    **options: Any,
) -> AbstractContextManager[ServedMount | KernelServed]:
    """Mount a tree and serve it for the length of a ``with`` block, from a thread.

    A program may serve several mounts at a time, each at a separate mount point.

    Parameters:
        tree: what to show; a Tree is closed by the caller, after the block. Change a Dir by
            `ServedMount.run`.
        mountpoint: an existing directory that nothing is mounted on.
        engine: as for `mount`. With "kernel" there is no thread, and the block gets a
            `KernelServed`.
        attach: take over the mount there, whose program has ended, as `zcfuse.attach` does.
        options: those of `MountOptions`, by name.

    Raises:
        MountError: the mount or an option was refused, and nothing is left mounted; or the thread
            did not end, a minute after `unmount_wait`.
        TypeError: `tree` is not a tree, or an option is unknown.
        ValueError: there is no such engine.

    The end of the block unmounts: it waits `unmount_wait` seconds for a busy mount, then detaches
    it. If another program has unmounted already, nothing happens. With ``survive=True`` or `attach`
    it leaves the mount to its holder, as `mount` does; `ServedMount.unmount` ends it.
    """
    check_engine(engine)
    chosen = MountOptions(**options)
    if engine == "fuse":
        if attach:
            return _by_thread(take_over(mountpoint, tree, chosen), chosen)
        return _by_thread(mount(tree, mountpoint, chosen), chosen)
    from zcfuse.control._by_kernel import served_by_kernel

    return served_by_kernel(as_tree(tree), os.fsdecode(mountpoint), chosen)


@contextmanager
def _by_thread(
    mounted: AbstractAsyncContextManager[Mount], options: MountOptions
) -> Iterator[ServedMount]:
    thread = _Thread(mounted, options)
    served = thread.start()
    try:
        yield served
    finally:
        thread.end()
