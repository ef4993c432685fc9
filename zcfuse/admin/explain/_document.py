"""The document that explains how a file is served and why not better, and its advice.

All functions are pure. `zcfuse.admin.explain._inquiry` finds the facts; the command prints them.
"""

from __future__ import annotations

import msgspec

from zcfuse.reasons import GOOD, reason_advice


class BackingPart(msgspec.Struct, frozen=True):
    """A run of bytes of a real file. `path` is as the daemon sees it; "" stands for a hole.

    `length` is None for a run to the end of the file. `stacked`: the filesystem lies on others.
    `cached_bytes` of the run are in the backing file's page cache; None if the kernel hides that
    from the daemon.
    """

    path: str
    offset: int
    length: int | None
    filesystem: str
    stacked: bool
    cached_bytes: int | None


class Step(msgspec.Struct, frozen=True):
    """A serving path: the reads that use it, "" for none; `reason` is the code against more."""

    path: str
    used: str
    reason: str


class Names(msgspec.Struct, frozen=True):
    """Says whether the data path or Python answers for names, attributes and opens.

    `reason` is the code of why Python answers, "" for the data path. `timeout_s` is how long the
    kernel may believe the answer, in seconds; None: without limit. `pushed`: the kernel gets each
    change instead. `not_pushed` is the code of why some source of the mount is not pushed, or "".
    `strict`: attributes of a file stay only while it has no writer.
    """

    leased: bool
    reason: str
    timeout_s: float | None
    pushed: bool = False
    not_pushed: str = ""
    strict: bool = False


class Served(msgspec.Struct, frozen=True):
    """How reads of the file travel.

    `mode`: passthrough, cached, upcall or naive. It is "" for a file that is not regular or does
    not open; then `reason` has the error. `open_as`: how programs that have it open now are served;
    "" without any. `forced`: the path that the mount or the entry demands, or "". `locked_bytes` of
    the file are locked in memory.
    """

    mode: str
    reason: str
    open_as: str
    forced: str
    steps: list[Step]
    locked_bytes: int


class Explanation(msgspec.Struct, frozen=True, tag="explained"):
    """The daemon's knowledge of how one file is served. `parts` are the first of `parts_in_all`.

    `fallbacks` counts those of the whole mount since its start, by reason. `directories` are those
    that the tree merges, if the kernel could do so by itself.
    """

    pid: int
    source: str
    mountpoint: str
    options: dict[str, object]
    node: str
    volatile: bool
    names: Names
    parts: list[BackingPart]
    parts_in_all: int
    kernel: dict[str, object]
    transport: str
    transport_reason: str
    served: Served
    fallbacks: dict[str, int]
    directories: list[str] = []


def advice(found: Explanation) -> str:
    """Return one line of advice."""
    served = found.served
    if not served.mode and served.reason:
        return f"it cannot be opened: {served.reason}"
    against = served.steps[0].reason if served.steps else ""
    return reason_advice(against or found.names.reason) or GOOD
