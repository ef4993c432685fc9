"""The daemon's own count of bytes and copies by serving path, as views of a status document.

The data path and control add up the return values of their system calls. This module assumes
nothing about the cost of a path. A `Ledger` is a snapshot; `later.since(earlier)` is the difference
of two.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from zcfuse.datapath import PathCounts as PathCounts

NAIVE: Final = "naive"
UPCALL: Final = "upcall"


class Ledger(msgspec.Struct, frozen=True):
    """A snapshot of all paths, or the difference of two.

    `paths` holds each path's cost in the whole daemon. `received` is the part of `copied_in` that
    recv read from the upcall socket and that `/proc/PID/io` omits. `requests` and
    `upcalls` are counts by operation, in upper case.
    """

    paths: dict[str, PathCounts]
    received: int = 0
    requests: dict[str, int] = {}
    upcalls: dict[str, int] = {}
    fallbacks: dict[str, int] = {}
    opens: dict[str, int] = {}

    @property
    def bytes(self) -> int:
        """Bytes served by all paths, without those that the kernel serves by passthrough."""
        return sum(counts.bytes for counts in self.paths.values())

    @property
    def copied_in(self) -> int:
        """Bytes copied into the daemon's memory."""
        return sum(counts.copied_in for counts in self.paths.values())

    @property
    def copied_out(self) -> int:
        """Bytes copied out of the daemon's memory."""
        return sum(counts.copied_out for counts in self.paths.values())

    @property
    def calls(self) -> int:
        """System calls that the serving paths made for their replies."""
        return sum(counts.calls for counts in self.paths.values())

    @property
    def reads(self) -> int:
        """READ requests seen."""
        return self.requests.get("READ", 0)

    @property
    def total_requests(self) -> int:
        """Requests of every kind seen."""
        return sum(self.requests.values())

    def since(self, earlier: "Ledger") -> "Ledger":
        """The counts since `earlier`."""
        none = PathCounts()
        return Ledger(
            paths={
                name: counts.plus(earlier.paths.get(name, none), -1)
                for name, counts in self.paths.items()
            },
            received=self.received - earlier.received,
            requests=_difference(self.requests, earlier.requests),
            upcalls=_difference(self.upcalls, earlier.upcalls),
            fallbacks=_difference(self.fallbacks, earlier.fallbacks),
            opens=_difference(self.opens, earlier.opens),
        )


def _difference(later: Mapping[str, int], earlier: Mapping[str, int]) -> dict[str, int]:
    return {name: count - earlier.get(name, 0) for name, count in later.items()}


def _mapping(document: object, *keys: str) -> Mapping[str, object]:
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document if isinstance(document, Mapping) else {}


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _counts(document: object, *keys: str) -> dict[str, int]:
    """The integers of a nested mapping, zero for other values."""
    found = _mapping(document, *keys)
    return {name: _integer(value) for name, value in found.items()}


def _operations(document: object, *keys: str) -> dict[str, int]:
    """Counts by operation, under the kernel's names: READ, not read or FUSE_READ."""
    return {
        name.upper().removeprefix("FUSE_"): count
        for name, count in _counts(document, *keys).items()
    }


def ledger_of(status: object) -> Ledger:
    """The ledger in a status document (its `control` and `datapath` parts as plain mappings).

    Without a data path every byte went through control (`naive`). With one, control's reads and
    replies belong to `upcall`, in addition to the data path's two copies of the same bytes.
    """
    document = msgspec.to_builtins(status)
    control = _mapping(document, "control")
    by_control = PathCounts(
        requests=_integer(control.get("read_requests")),
        bytes=_integer(control.get("replied_bytes")),
        copied_in=_integer(control.get("read_bytes")),
        copied_out=_integer(control.get("replied_bytes")),
    )
    upcalls = _operations(document, "control", "upcalls")
    datapath = _mapping(document, "datapath")
    if not datapath:
        return Ledger(paths={NAIVE: by_control}, requests=dict(upcalls), upcalls=upcalls)
    paths = {
        name: msgspec.convert(counts, PathCounts)
        for name, counts in _mapping(datapath, "paths").items()
    }
    received = paths.get(UPCALL, PathCounts()).copied_in
    through_control = msgspec.structs.replace(by_control, requests=0, bytes=0)
    paths[UPCALL] = paths.get(UPCALL, PathCounts()).plus(through_control)
    return Ledger(
        paths=paths,
        received=received,
        requests=_operations(datapath, "requests"),
        upcalls=_operations(datapath, "upcalls"),
        fallbacks=_counts(datapath, "fallbacks"),
        opens=_counts(datapath, "opens"),
    )
