"""Telling the kernel what a program has changed in its tree.

Changes are noted in the trio thread, from wherever the program makes them, a request handler
included, and told by a task of the mount's through a worker thread: the kernel takes the parent
directory's lock for it, which a client may hold whose request this process has yet to answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from zcfuse.tree import Node

log = logging.getLogger(__name__)


class Changes:
    """The changes that the kernel has not been told of yet.

    `nodeid_of` says by which nodeid the kernel knows a directory; `tell` has it forget a name, and
    is called in a worker thread, one change at a time.
    """

    def __init__(
        self, nodeid_of: Callable[[Node], int | None], tell: Callable[[int, bytes], None]
    ) -> None:
        self._nodeid_of = nodeid_of
        self._tell = tell
        self._waiting: dict[tuple[int, bytes], None] = {}
        self._noted = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._ended = False

    def note(self, directory: Node, name: bytes) -> None:
        """Take note that `name` in `directory` means something else now."""
        nodeid = self._nodeid_of(directory)
        if nodeid is None or self._ended:
            return  # the kernel knows nothing of it
        self._waiting[nodeid, name] = None
        self._noted.set()
        if self._idle.is_set():
            self._idle = trio.Event()

    async def told(self) -> None:
        """Wait until the kernel has been told of everything noted so far, and perhaps since."""
        await self._idle.wait()

    async def run(self) -> None:
        """Tell, until cancelled; then nobody waits any more."""
        try:
            while True:
                await self._noted.wait()
                await self._tell_all()
                self._noted = trio.Event()
                self._idle.set()
        finally:
            self._ended = True
            self._idle.set()

    async def _tell_all(self) -> None:
        while self._waiting:
            nodeid, name = next(iter(self._waiting))
            del self._waiting[nodeid, name]
            try:
                # Abandoned at the end of the mount: the abort of the connection ends the call.
                await trio.to_thread.run_sync(self._tell, nodeid, name, abandon_on_cancel=True)
            except OSError as error:
                log.info("the kernel could not be told of a change: %s", error)
