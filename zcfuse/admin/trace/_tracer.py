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

# Between two drains. A busy daemon drains later; a thread may have noted 35,000 events until then.
POLL_S: Final = 0.2
_ROOM: Final = 2 << 20  # bytes of events
_IDLE_S: Final = 10.0


class Traced(Protocol):
    """The part of the data path that a tracer uses."""

    def operations(self) -> list[str]:
        """Return the names of the kernel's operations, by their numbers."""

    def trace(self, most: int, /) -> None:
        """Note events, up to `most` bytes for each thread between two drains; 0: stop."""

    def drain_trace(self) -> tuple[bytes, int, bytes, list[int]]:
        """Return packed events, how many were lost, packed places, and where these begin."""


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
            self._datapath.trace(_ROOM)
            self._reader = reader
        self._drained = time.monotonic()
        packed, lost, places, numbers = self._datapath.drain_trace()
        found = ((number, self._path_of(number)) for number in numbers)
        roots = {number: path for number, path in found if path is not None}
        return TraceReply(packed, lost, places, roots, self._datapath.operations())

    def end(self, reader: str) -> None:
        """End a reader's trace; nothing happens to that of another one."""
        if self._reader == reader:
            self._reader = ""
            self._datapath.trace(0)

    def expire(self) -> None:
        """End a trace that had no drain for 10 s."""
        if self._reader and time.monotonic() - self._drained > _IDLE_S:
            self.end(self._reader)
