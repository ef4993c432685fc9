"""Reads archives and manifests again when their files change, and notifies the kernel.

A task of the mount waits for changes in the directories of these files. It looks at every file
then, and at each fence, in a worker thread. Open files keep their bytes.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Final

import trio

from zcfuse.fuse import Changes, Operations
from zcfuse.linux import Inotify
from zcfuse.tree import PUSHING, RenewablePart, RenewalError, Tree

_PAUSE_S: Final = 0.02  # many changes at once are one look

log = logging.getLogger(__name__)


class Renewal:
    """The task that renews a tree. `push`: whether its parts are renewed that do not say."""

    def __init__(self, tree: Tree, operations: Operations, changes: Changes, *, push: bool) -> None:
        self._tree = tree
        self._operations = operations
        self._changes = changes
        self._push = push
        self._asked = 0
        self._done = 0
        self._ended = False
        self._wanted = trio.Event()
        self._looked = trio.Event()

    async def look(self, until: float) -> bool:
        """Wait until the kernel knows of each change that returned before.

        Returns False if `until`, in trio's time, is over first. A cancellation ends only the
        waiting.
        """
        if next(self._parts(), None) is None:
            return True
        self._asked += 1
        mine = self._asked
        self._wanted.set()
        with trio.move_on_at(until):
            while self._done < mine and not self._ended:
                await self._looked.wait()
        return self._done >= mine

    async def run(self) -> None:
        """Renew until cancelled, then release every waiter."""
        try:
            async with trio.open_nursery() as nursery:
                if next(self._parts(), None) is not None:
                    nursery.start_soon(self._watch)
                while True:
                    await self._wanted.wait()
                    self._wanted = trio.Event()
                    asked = self._asked
                    await self._renew()
                    self._done = asked
                    self._looked.set()
                    self._looked = trio.Event()
        finally:
            self._ended = True
            self._looked.set()

    async def _watch(self) -> None:
        try:
            inotify = Inotify()
        except OSError as error:
            log.warning("archives and manifests are looked at by a fence only: %s", error)
            return
        refused: set[bytes] = set()
        with contextlib.closing(inotify):
            while True:
                self._watch_all(inotify, refused)
                self._wanted.set()  # for what changed before
                await trio.lowlevel.wait_readable(inotify.fd)
                inotify.drain()
                await trio.sleep(_PAUSE_S)

    def _watch_all(self, inotify: Inotify, refused: set[bytes]) -> None:
        """Watch the directories of all parts. `refused`: those that are in the log already."""
        wanted = {one for part in self._parts() for one in part.renewable.watched()}
        refused &= wanted
        for directory in wanted:
            try:
                inotify.watch(directory)
            except OSError as error:
                if directory not in refused:
                    text = os.fsdecode(directory)
                    log.warning("%s is looked at by a fence only: %s", text, error)
                refused.add(directory)
            else:
                refused.discard(directory)

    def _parts(self) -> Iterator[RenewablePart]:
        for part in self._tree.renewables():
            if part.coherence in PUSHING or (self._push and part.coherence is None):
                yield part

    async def _renew(self) -> None:
        for part in self._parts():  # a directory comes before its archives
            try:
                # Abandoned at the end of the mount, whose tree is then closed.
                show = await trio.to_thread.run_sync(part.renewable.look, abandon_on_cancel=True)
            except RenewalError as error:
                log.warning("%s: the mount goes on with what it showed", error)
                continue
            if show is None:
                continue
            if part.tell is None:
                self._renew_root(show)
            else:
                show()
                part.tell()
            log.info("read again: %r", part.renewable)
        await self._changes.notified()

    def _renew_root(self, show: Callable[[], None]) -> None:
        names = set(self._names())
        show()
        self._tree.take_over()
        self._operations.renew_root()
        for name in names.union(self._names()):
            self._changes.note(self._tree.root, name)

    def _names(self) -> Iterator[bytes]:
        with contextlib.closing(self._tree.listing(self._tree.root)) as listing:
            for _, name, _, _ in listing.entries(2):  # after the dots
                yield name
