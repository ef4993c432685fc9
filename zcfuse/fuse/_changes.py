"""Reports a program's changes of its tree to the kernel.

The program notes changes in the trio thread, even inside a request handler. A task of the mount
reports them through a worker thread, because the call may block: the kernel needs the parent
directory's lock, and a client may hold it until this process answers its request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from zcfuse.tree import Node

log = logging.getLogger(__name__)


class Changes:
    """The changes that the kernel does not know yet.

    `nodeid_of` returns the kernel's nodeid of a directory. `tell` makes the kernel forget a name;
    it runs in a worker thread, one change at a time.
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
        """Note that `name` in `directory` means something else now."""
        nodeid = self._nodeid_of(directory)
        if nodeid is None or self._ended:
            return  # the kernel knows nothing of it
        self._waiting[nodeid, name] = None
        self._noted.set()
        if self._idle.is_set():
            self._idle = trio.Event()

    async def notified(self) -> None:
        """Wait until the kernel knows every change noted so far; it may know later ones too."""
        await self._idle.wait()

    async def run(self) -> None:
        """Report changes until cancelled, then release every waiter."""
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
            changes, self._waiting = self._waiting, {}
            # Abandoned at the end of the mount: the abort of the connection ends the calls.
            await trio.to_thread.run_sync(self._tell_each, changes, abandon_on_cancel=True)

    def _tell_each(self, changes: Iterable[tuple[int, bytes]]) -> None:
        for nodeid, name in changes:
            try:
                self._tell(nodeid, name)
            except OSError as error:
                log.info("a change could not be reported to the kernel: %s", error)
