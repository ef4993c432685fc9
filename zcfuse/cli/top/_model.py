"""Turns two status documents into the rows of ``zcfuse top``, for the time between them.

All functions are pure. `between` makes a `View` from the latest document and the one before.
Without an earlier document, rates and times cover the time since the mount.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from zcfuse.admin.status import HotFile, StatusDocument
from zcfuse.datapath import Latencies, Latency

By = Literal["requests", "bytes"]

# Reading such a file sends the daemon nothing.
_PASSTHROUGH: Final = "passthrough"


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of one kind: `rate` in 1/s, `total` since the mount, and the time they took."""

    name: str
    rate: float
    total: int
    latency: Latency


@dataclass(frozen=True, slots=True)
class PathRow:
    """A serving path: files opened for it, READs and bytes, and the time of a READ.

    `opens` is None for a path that the data path chooses for each READ. The others are None if
    READs do not reach the daemon. Rates are per second.
    """

    name: str
    opens: int | None
    reads: int | None
    read_rate: float
    bytes: int | None
    byte_rate: float
    latency: Latency


@dataclass(frozen=True, slots=True)
class Fallback:
    """The reason why requests missed the best path, and how often."""

    reason: str
    rate: float
    total: int


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file with many requests; `rate` is in requests or in bytes per second.

    `rate` is None if the earlier document lacks the file, whose earlier requests are unknown.
    """

    path: str
    rate: float | None
    file: HotFile


@dataclass(frozen=True, slots=True)
class View:
    """One refresh. Rates and latencies cover the last `seconds`."""

    document: StatusDocument
    seconds: float
    since_mount: bool
    by: By
    operations: list[Requests]
    upcalls: list[Requests]
    paths: list[PathRow]
    fallbacks: list[Fallback]
    files: list[FileRow]


class _Counts:
    """The counts of a document; for None all counts are zero."""

    def __init__(self, document: StatusDocument | None) -> None:
        self.datapath = _datapath_of(document)
        control: Mapping[str, Any] = document.control if document is not None else {}
        self.requests = self._counts("requests")
        self.upcalls = self._counts("upcalls")
        if not self.datapath:
            # Without a data path, Python answers every request.
            self.requests = self.upcalls = {
                name.upper(): count for name, count in control.get("upcalls", {}).items()
            }
        self.latency = msgspec.convert(self.datapath.get("latency", {}), Latencies)
        self.paths: Mapping[str, Mapping[str, int]] = self.datapath.get("paths", {})
        self.opens = self._counts("opens")
        self.fallbacks = self._counts("fallbacks")
        files = document.hot_files if document is not None else []
        self.files = {file.path: file for file in files}

    def _counts(self, name: str) -> dict[str, int]:
        return dict(self.datapath.get(name, {}))


def between(
    earlier: StatusDocument | None, later: StatusDocument, seconds: float, by: By = "requests"
) -> View:
    """Make a view.

    Parameters:
        earlier: the document before; None covers all time since the mount.
        later: the latest document.
        seconds: the time between the two; without `earlier`, the uptime.
        by: the order of the hottest files.
    """
    if earlier is None or earlier.pid != later.pid:
        earlier, seconds = None, later.uptime_s
    change = _Change(_Counts(earlier), _Counts(later), max(seconds, 1e-3))
    return View(
        document=later,
        seconds=seconds,
        since_mount=earlier is None,
        by=by,
        operations=change.operations(),
        upcalls=change.upcalls(),
        paths=change.paths(),
        fallbacks=change.fallbacks(),
        files=change.files(by),
    )


def _datapath_of(document: StatusDocument | None) -> Mapping[str, Any]:
    return {} if document is None else document.datapath or {}


class _Change:
    """The changes from one document's counts to another's."""

    def __init__(self, before: _Counts, now: _Counts, seconds: float) -> None:
        self.before = before
        self.now = now
        self.seconds = seconds

    def operations(self) -> list[Requests]:
        latencies = self._latencies("operations")
        rows = self._requests(self.before.requests, self.now.requests, latencies)
        if len(rows) > 1:
            together = Latency()
            for latency in latencies.values():
                together = together.plus(latency)
            rate = sum(row.rate for row in rows)
            rows.insert(0, Requests("all", rate, sum(row.total for row in rows), together))
        return rows

    def upcalls(self) -> list[Requests]:
        latencies = self._latencies("upcalls")
        return self._requests(self.before.upcalls, self.now.upcalls, latencies)

    def paths(self) -> list[PathRow]:
        latencies = self._latencies("paths")
        opens = dict(self.now.opens)
        passed = opens.pop(_PASSTHROUGH, None)
        first = [] if passed is None else [self._unseen(_PASSTHROUGH, passed)]
        rows = []
        for name, counts in self.now.paths.items():
            if counts["requests"] or name in opens:
                row = self._path(name, counts, latencies.get(name, Latency()))
                rows.append(row if name not in opens else _with_opens(row, opens.pop(name)))
        rows.sort(key=lambda row: (row.byte_rate, row.bytes), reverse=True)
        # For the other files, the data path chooses a path for each READ.
        return [*first, *rows, *(self._unseen(f"({name})", n) for name, n in opens.items())]

    def fallbacks(self) -> list[Fallback]:
        rows = [
            Fallback(reason, self._rate(self.before.fallbacks.get(reason, 0), total), total)
            for reason, total in self.now.fallbacks.items()
        ]
        return sorted(rows, key=lambda row: (row.rate, row.total), reverse=True)

    def files(self, by: By) -> list[FileRow]:
        rows = []
        for path, file in self.now.files.items():
            was = self.before.files.get(path)
            seen = 0 if was is None else getattr(was, by)
            known = was is not None or not self.before.datapath
            rate = self._rate(seen, getattr(file, by)) if known else None
            rows.append(FileRow(path, rate, file))
        return sorted(rows, key=lambda row: (row.rate or 0, getattr(row.file, by)), reverse=True)

    def _path(self, name: str, counts: Mapping[str, int], latency: Latency) -> PathRow:
        was = self.before.paths.get(name, {})
        reads, size = counts["requests"], counts["bytes"]
        read_rate = self._rate(was.get("requests", 0), reads)
        byte_rate = self._rate(was.get("bytes", 0), size)
        return PathRow(name, None, reads, read_rate, size, byte_rate, latency)

    def _unseen(self, name: str, opens: int) -> PathRow:
        return PathRow(name, opens, None, 0, None, 0, Latency())

    def _requests(
        self, before: Mapping[str, int], now: Mapping[str, int], latencies: Mapping[str, Latency]
    ) -> list[Requests]:
        rows = [
            Requests(
                name,
                self._rate(before.get(name, 0), total),
                total,
                latencies.get(name, Latency()),
            )
            for name, total in now.items()
            if total
        ]
        return sorted(rows, key=lambda row: (row.rate, row.total), reverse=True)

    def _latencies(self, section: str) -> dict[str, Latency]:
        before: Mapping[str, Latency] = getattr(self.before.latency, section)
        now: Mapping[str, Latency] = getattr(self.now.latency, section)
        if not before:
            return dict(now)
        return {name: latency.since(before.get(name, Latency())) for name, latency in now.items()}

    def _rate(self, before: int, now: int) -> float:
        return max(now - before, 0) / self.seconds


def _with_opens(row: PathRow, opens: int) -> PathRow:
    return PathRow(row.name, opens, row.reads, row.read_rate, row.bytes, row.byte_rate, row.latency)
