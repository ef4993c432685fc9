"""The run behind `zcfuse bench transfer`: every method, to every sink, from every column.

A refused transfer is a cell with its errno, and a column that cannot be mounted has a reason. The
run continues after both.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from zcfuse.admin.status import StatusError
from zcfuse.bench._clients import ClientError, ClientProcess, client
from zcfuse.bench._daemons import MountFailedError
from zcfuse.bench._sources import SourceFile
from zcfuse.bench._targets import BACKING
from zcfuse.bench.transfer._cells import Sample, TransferCell, errno_name, side_of_client
from zcfuse.bench.transfer._column import CLIENT_MODULE, Column, opened_column
from zcfuse.bench.transfer._latency import LatencyCells, time_reads
from zcfuse.bench.transfer._methods import METHODS, Method
from zcfuse.bench.transfer._sinks import Sinks, sinks
from zcfuse.bench.transfer._watched import Watched

_CHECKED_BYTES: Final = 16 << 20
_NO_LONGER_ITS_PATH: Final = 0.5  # share of the bytes that another serving path served
Progress = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True):
    """The plan, with names from `_methods`; `block` is bytes per call."""

    methods: tuple[str, ...]
    sinks: tuple[str, ...]
    columns: tuple[str, ...]
    caches: tuple[str, ...]
    rounds: int
    block: int
    latency: bool = True

    def rows(self, sink: str) -> list[Method]:
        """The methods that can deliver to `sink`."""
        return [m for m in METHODS if m.name in self.methods and sink in m.sinks]

    def states(self, column: str) -> list[str]:
        """The cache states of a column; the backing file has no `served`."""
        return [cache for cache in self.caches if column != BACKING or cache != "served"]

    @property
    def steps(self) -> int:
        """The number of transfers, including the checks."""
        rows = sum(len(self.rows(sink)) for sink in self.sinks)
        states = sum(len(self.states(column)) for column in self.columns)
        return rows * (len(self.columns) + self.rounds * states)


class _Key(msgspec.Struct, frozen=True):
    method: str
    column: str
    sink: str


class _Found(msgspec.Struct):
    """The results so far for a method, a column and a sink, in all cache states."""

    samples: dict[str, list[Sample]]
    notes: dict[str, list[str]]
    reason: str = ""
    errno: int = 0
    identical: bool | None = None


class TransferRun:
    """The state of a run. Use `started_run()`.

    `unavailable` has the reasons of columns that could not be mounted.
    """

    def __init__(
        self, source: SourceFile, plan: Plan, where: Sinks, backing: ClientProcess
    ) -> None:
        self.unavailable: Final[dict[str, str]] = {}
        self.latency: Final = LatencyCells()
        self._source = source
        self._plan = plan
        self._told = msgspec.to_builtins(where)
        self._backing = backing
        self._found: dict[_Key, _Found] = {}
        self._digest: object = None

    def run_round(self, number: int, progress: Progress) -> None:
        """Measure every cell once, column by column; the first column rotates with each round."""
        names = self._plan.columns
        turned = number % len(names)
        for name in (*names[turned:], *names[:turned]):
            if name in self.unavailable:
                continue
            progress(f"round {number + 1}: {name}")
            try:
                with opened_column(name, self._source, self._backing) as column:
                    self._visit(column, number, progress)
            except MountFailedError as error:
                self.unavailable[name] = str(error)

    def cells(self) -> tuple[TransferCell, ...]:
        """All cells: by sink, cache, method and column."""
        return tuple(
            self._cell(_Key(method.name, column, sink), cache)
            for sink in self._plan.sinks
            for cache in self._plan.caches
            for method in self._plan.rows(sink)
            for column in self._plan.columns
            if column not in self.unavailable and cache in self._plan.states(column)
        )

    def _visit(self, column: Column, number: int, progress: Progress) -> None:
        for sink in self._plan.sinks:
            for method in self._plan.rows(sink):
                found = self._entry(column, method, sink)
                where = f"round {number + 1}: {column.name}, {method.name} to {sink}"
                if number == 0:
                    progress(f"{where}, compared")
                    self._check(column, method, sink, found)
                for cache in self._plan.states(column.name):
                    progress(f"{where}, {cache}")
                    self._measure(column, method, sink, cache, found)
        if self._plan.latency:
            progress(f"round {number + 1}: {column.name}, latency")
            time_reads(column, self._source.size, number, self.latency)

    def _entry(self, column: Column, method: Method, sink: str) -> _Found:
        return self._found.setdefault(_Key(method.name, column.name, sink), _Found({}, {}))

    def _transfer(
        self, column: Column, method: Method, sink: str, size: int, digest: bool
    ) -> dict[str, int | str]:
        counts = column.ask(
            "transfer",
            method=method.name,
            sink=sink,
            told=self._told,
            size=size,
            block=self._plan.block,
            digest=digest,
        )
        return msgspec.convert(counts, dict[str, int | str])

    def _check(self, column: Column, method: Method, sink: str, found: _Found) -> None:
        """Send the file's start and compare the received bytes."""
        size = min(self._source.size, _CHECKED_BYTES)
        self._digest = self._digest or self._backing.ask(
            "digest", path=self._source.path, size=size
        )
        try:
            counts = self._transfer(column, method, sink, size, digest=True)
        except ClientError as error:
            found.reason, found.errno = _reason(error), error.errno
            return
        if "sha256" in counts:
            found.identical = counts["sha256"] == self._digest

    def _measure(
        self, column: Column, method: Method, sink: str, cache: str, found: _Found
    ) -> None:
        if found.reason:
            return
        try:
            left = column.prepare(cache)
            with Watched(column.mount) as watched:
                counts = self._transfer(column, method, sink, self._source.size, digest=False)
        except (ClientError, StatusError, OSError) as error:
            found.reason, found.errno = _reason(error), getattr(error, "errno", 0) or 0
            return
        otherwise, share = watched.served_otherwise(column.name)
        if share > _NO_LONGER_ITS_PATH:
            found.reason = otherwise
        elif counts["delivered"] != self._source.size:
            found.reason = f"{counts['delivered']} bytes arrived, {self._source.size} were to"
        else:
            notes = found.notes.setdefault(cache, [])
            said = (left, otherwise, str(counts["note"]))
            notes += [note for note in said if note and note not in notes]
            found.samples.setdefault(cache, []).append(_sample(counts, watched))

    def _cell(self, key: _Key, cache: str) -> TransferCell:
        found = self._found.get(key, _Found({}, {}, "not run"))
        samples = found.samples.get(cache, [])
        return TransferCell(
            method=key.method,
            column=key.column,
            sink=key.sink,
            cache=cache,
            samples=tuple(samples),
            reason="" if samples else found.reason,
            errno=0 if samples else found.errno,
            notes=tuple(found.notes.get(cache, ())),
            identical=found.identical,
        )


def _sample(counts: Mapping[str, int | str], watched: Watched) -> Sample:
    return Sample(
        ns=int(counts["ns"]),
        delivered=int(counts["delivered"]),
        calls=int(counts["calls"]),
        client=side_of_client(counts),
        daemon=watched.side,
        served=watched.served,
    )


def _reason(error: Exception) -> str:
    name = errno_name(getattr(error, "errno", 0) or 0)
    return f"{name}: {error}" if name else str(error)


@contextlib.contextmanager
def started_run(source: SourceFile, plan: Plan) -> Iterator[TransferRun]:
    """A run, with the receiver and the client that manages the backing file's cache.

    Raises `ClientError` if either does not start.
    """
    with sinks(source.path) as where, client(CLIENT_MODULE) as backing:
        yield TransferRun(source, plan, where, backing)
