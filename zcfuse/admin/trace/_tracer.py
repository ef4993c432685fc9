"""The tracing of one mount: turned on for one reader at a time, and off when that is gone.

Belongs to the trio thread. The data path's threads note events in rings of a fixed size; a reader
drains them some times a second. A reader that was killed does not turn it off, so a trace that
nobody drains ends by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from zcfuse.admin.trace._events import TraceReply

# Between two drains. A busy daemon drains later, and a thread with 8,192 events then loses some.
POLL_S: Final = 0.1
_EVENTS: Final = 8192
_IDLE_S: Final = 10.0


class Traced(Protocol):
    """The part of the data path that a tracer uses."""

    def operations(self) -> list[str]:
        """Return the names of the kernel's operations, by their numbers."""

    def trace(self, most: int, /) -> None:
        """Note events, so many a thread between two drains; 0: no more."""

    def drain_trace(self) -> tuple[bytes, int, list[tuple[int, int, bytes]]]:
        """Return packed events, how many were lost, and (nodeid, root, path below it) of nodes."""


class Tracer:
    """The tracing of one mount. `path_of` names a node of control's, None if it cannot."""

    def __init__(self, datapath: Traced, path_of: Callable[[int], bytes | None]) -> None:
        self._datapath = datapath
        self._path_of = path_of
        self._reader = ""
        self._drained = 0.0

    @property
    def is_on(self) -> bool:
        """Whether somebody traces."""
        self.expire()
        return bool(self._reader)

    def drain(self, reader: str) -> TraceReply:
        """Return the events since the last call of a reader; the first call begins the trace.

        Raises:
            PermissionError: another reader traces.
        """
        self.expire()
        if self._reader not in ("", reader):
            raise PermissionError("somebody traces this mount already")
        if not self._reader:
            self._datapath.trace(_EVENTS)
            self._reader = reader
        self._drained = time.monotonic()
        packed, lost, places = self._datapath.drain_trace()
        paths: dict[int, bytes] = {}
        roots: dict[int, bytes | None] = {0: None}
        for nodeid, root, below in places:
            if root not in roots:
                roots[root] = self._path_of(root)
            above = roots[root]
            if above is not None:
                paths[nodeid] = b"/".join(filter(None, (above, below)))
        return TraceReply(packed, lost, paths, self._datapath.operations())

    def end(self, reader: str) -> None:
        """End a reader's trace; nothing happens to that of another one."""
        if self._reader == reader:
            self._reader = ""
            self._datapath.trace(0)

    def expire(self) -> None:
        """End a trace that had no drain for 10 s."""
        if self._reader and time.monotonic() - self._drained > _IDLE_S:
            self.end(self._reader)
