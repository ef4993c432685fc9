"""Events of a mount, and the message in which a daemon sends them.

The data path packs an event into 48 bytes and the name that it is about. The reader of a trace
unpacks it, not the daemon.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

# As native/serve/trace.hpp and native/bindings/trace.cpp pack them, the name or path behind each.
_EVENT: Final = struct.Struct("<QQQQIIHBB4x")
_PLACE: Final = struct.Struct("<QQQ")
# As `enum class Way` (native/serve/trace.hpp) counts them.
_WAYS: Final = ("", "upcall", "pool", "mmap", "splice", "passthrough", "cached")


class Event(msgspec.Struct, frozen=True, gc=False):
    """One request that the mount answered.

    Parameters:
        time_ns: when it came, in nanoseconds since the epoch.
        pid: the thread that asked; 0 where the kernel names none, as for RELEASE.
        uid: its user.
        operation: what the kernel asked, such as ``LOOKUP``, ``OPEN`` or ``READ``.
        path: of the file, from the root of the mount, with bytes that are no UTF-8 as surrogates;
            None where the kernel forgot the file before the event was drained.
        bytes: of a READ, what the kernel took; of an OPEN that the data path answered, the size of
            the file; otherwise 0.
        served: how the bytes travelled: ``pool``, ``mmap``, ``splice``, or ``upcall`` for whatever
            Python answered. Of an OPEN, how those of the file will: ``passthrough`` or ``cached``.
        latency_ns: from when the request was taken until it was answered.
        lost: how many events were lost between the one before and this one.
    """

    time_ns: int
    pid: int
    uid: int
    operation: str
    path: str | None
    bytes: int
    served: str
    latency_ns: int
    lost: int = 0


class TraceReply(msgspec.Struct, frozen=True, tag="traced"):
    """The events since the last reply, and where the nodes lie that they name.

    `roots` are the paths of the directories that `places` refer to.
    """

    packed: bytes
    lost: int
    places: bytes
    roots: dict[int, bytes]
    operations: list[str]

    def lines(self, *, json: bool) -> tuple[bytes, int]:
        """Return a line of text or JSON for each event, and their number."""
        from zcfuse.datapath import trace_lines  # compiled

        return trace_lines(
            self.packed, self.places, self.roots, self.operations, self.lost, json=json
        )

    def files(self, operations: list[str]) -> tuple[list[bytes], int, int]:
        """Return the files of events of some operations, each once.

        Then how many of these events have no path, and the number of all events.
        """
        from zcfuse.datapath import traced_files  # compiled

        return traced_files(self.packed, self.places, self.roots, self.operations, operations)


def events_of(reply: TraceReply) -> Iterator[Event]:
    """Unpack events, in the order of their times. The first one has the count of lost events."""
    at, lost, packed = 0, reply.lost, reply.packed
    paths = _paths_of(reply)
    while at < len(packed):
        began, took, nodeid, size, pid, uid, opcode, way, length = _EVENT.unpack_from(packed, at)
        at += _EVENT.size + length
        yield Event(
            time_ns=began,
            pid=pid,
            uid=uid,
            operation=reply.operations[opcode if opcode < len(reply.operations) else 0],
            path=_path(paths.get(nodeid), packed[at - length : at]),
            bytes=size,
            served=_WAYS[way],
            latency_ns=took,
            lost=lost,
        )
        lost = 0


def _paths_of(reply: TraceReply) -> dict[int, bytes]:
    at, packed = 0, reply.places
    paths: dict[int, bytes] = {}
    while at < len(packed):
        nodeid, root, length = _PLACE.unpack_from(packed, at)
        at += _PLACE.size + length
        above = reply.roots.get(root)
        if above is not None:
            paths[nodeid] = b"/".join(filter(None, (above, packed[at - length : at])))
    return paths


def _path(node: bytes | None, name: bytes) -> str | None:
    if node is None:
        return None
    path = b"/".join(filter(None, (node, name)))
    return path.decode("utf-8", "surrogateescape")
