"""Handles of files and directories that the kernel opened without a message, made when needed.

On an immutable mount the kernel sends no OPEN and no OPENDIR. A READ or READDIRPLUS that the data
path forwards has a handle that only names the node, and no release follows. So Python opens the
node, keeps the handle under its nodeid, and closes the longest unused one. Belongs to the trio
thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from zcfuse.datapath import IMPLICIT_BIT

# Each is a descriptor or a list of names. Beyond the limit, a handle is opened again when needed.
KEPT: Final = 32


def implied_node(fh: int) -> int | None:
    """Return the nodeid that a handle stands for, None if a client opened the handle."""
    return fh ^ IMPLICIT_BIT if fh & IMPLICIT_BIT else None


class ImplicitHandles:
    """Handles by nodeid, at most `limit`; calls `release` with each that it gives up."""

    def __init__(self, release: Callable[[int], None], limit: int = KEPT) -> None:
        self._release = release
        self._limit = limit
        self._handles: OrderedDict[int, int] = OrderedDict()

    def find(self, nodeid: int) -> int | None:
        """Return the node's handle, which counts as used now; None if it has none."""
        handle = self._handles.get(nodeid)
        if handle is not None:
            self._handles.move_to_end(nodeid)
        return handle

    def keep(self, nodeid: int, handle: int) -> None:
        """Keep a handle for the node's next requests; it replaces the node's former one."""
        self.drop(nodeid)
        self._handles[nodeid] = handle
        if len(self._handles) > self._limit:
            _, oldest = self._handles.popitem(last=False)
            self._release(oldest)

    def drop(self, nodeid: int) -> None:
        """Give up the node's handle, if it has one."""
        handle = self._handles.pop(nodeid, None)
        if handle is not None:
            self._release(handle)
