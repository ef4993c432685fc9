"""A mount for programs without trio: its loop runs in a separate thread.

The caller's thread waits only for the beginning, for the end, and for what it asks the loop to run.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar

import trio

from zcfuse.control._mount import mount
from zcfuse.control._served import Mount
from zcfuse.linux import MountError
from zcfuse.options import MountOptions
from zcfuse.tree import Dir, Tree

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

    def told(self) -> None:
        """Wait until the kernel knows the changes of the tree, as `Mount.told` does."""
        self.run_async(self._mounted.told)

    def move(self, path: str, to: str | bytes | os.PathLike[str]) -> None:
        """Serve a file from another place from now on, as `Mount.move` does."""
        self.run_async(functools.partial(self._mounted.move, path, to))

    def statistics(self) -> dict[str, dict[str, Any] | None]:
        """Return the counts of both planes, as `Mount.statistics` does."""
        return self.run(self._mounted.statistics)

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

    def __init__(
        self, tree: Tree | Dir, mountpoint: str | bytes | os.PathLike[str], options: MountOptions
    ) -> None:
        self._tree = tree
        self._mountpoint = mountpoint
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
            self._abandoned = True
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
        with contextlib.suppress(trio.RunFinishedError):  # the loop failed: its error follows
            self._served.run(self._leave.set)
        self._thread.join(self._bound())
        if self._thread.is_alive():
            raise MountError(f"{self._served.mountpoint}: the thread of the mount did not end")
        if self._error is not None:
            raise self._error

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
        async with mount(self._tree, self._mountpoint, self._options) as mounted:
            self._served = ServedMount(mounted, trio.lowlevel.current_trio_token())
            self._begun.set()
            if not self._abandoned:
                await self._leave.wait()


@contextmanager
def serve(
    tree: Tree | Dir,
    mountpoint: str | bytes | os.PathLike[str],
    **options: Any,  # noqa: ANN401 - those of MountOptions
) -> Iterator[ServedMount]:
    """Mount a tree and serve it for the length of a ``with`` block, from a thread.

    A program may serve several mounts at a time, each at a separate mount point.

    Parameters:
        tree: what to show; a Tree is closed by the caller, after the block. Change a Dir by
            `ServedMount.run`.
        mountpoint: an existing directory that nothing is mounted on.
        options: those of `MountOptions`, by name.

    Raises:
        MountError: the mount or an option was refused, and nothing is left mounted; or the thread
            did not end, a minute after `unmount_wait`.
        TypeError: `tree` is not a tree, or an option is unknown.

    The end of the block unmounts: it waits `unmount_wait` seconds for a busy mount, then detaches
    it. If another program has unmounted already, nothing happens.
    """
    thread = _Thread(tree, mountpoint, MountOptions(**options))
    served = thread.start()
    try:
        yield served
    finally:
        thread.end()
