"""The run behind `zcfuse bench transfer`: every method, to every sink, from every column.

All columns are mounted for the length of the run and measured in turn, so that whatever else the
machine does falls on all of them alike. A transfer that is refused is a cell with its errno; a
client that does not come back is killed, its mount aborted, and the rest of its column is cells
with that reason.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from zcfuse.bench._clients import ClientError, ClientProcess, ClientTimedOutError, client
from zcfuse.bench._daemons import give_up
from zcfuse.bench._rounds import all_started
from zcfuse.bench._sources import SourceFile
from zcfuse.bench._targets import BACKING, RunningTarget, Target, zcfuse_target
from zcfuse.bench.transfer._cells import Sample, TransferCell, errno_name, side_of_client
from zcfuse.bench.transfer._methods import METHODS, Method
from zcfuse.bench.transfer._sinks import Sinks, sinks
from zcfuse.bench.transfer._watched import Watched
from zcfuse.control import StatusError

CLIENT_MODULE: Final = "zcfuse.bench.transfer._client"
_CHECKED_BYTES: Final = 16 << 20
_LEFT_SHARE: Final = 100  # a cold cell says so where more than one part in so many stayed cached
_NO_LONGER_ITS_PATH: Final = 0.5
# The slowest thing that a transfer may be, in bytes a second, before it counts as hanging.
_SLOWEST: Final = 5_000_000
_DEADLINE_S: Final = 30.0
Progress = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True):
    """What is to be measured, by the names in `_methods`; `block` is of a call, in bytes."""

    methods: tuple[str, ...]
    sinks: tuple[str, ...]
    columns: tuple[str, ...]
    caches: tuple[str, ...]
    rounds: int
    block: int

    def rows(self, sink: str) -> list[Method]:
        """The methods that can deliver to `sink`."""
        return [m for m in METHODS if m.name in self.methods and sink in m.sinks]

    def states(self, column: str) -> list[str]:
        """The cache states of a column: what is served from memory is warm on the backing file."""
        return [cache for cache in self.caches if column != BACKING or cache != "served"]

    @property
    def steps(self) -> int:
        """How many transfers that are, the checks among them."""
        rows = sum(len(self.rows(sink)) for sink in self.sinks)
        states = sum(len(self.states(column)) for column in self.columns)
        return rows * (len(self.columns) + self.rounds * states)


class _Key(msgspec.Struct, frozen=True):
    method: str
    column: str
    sink: str


class _Found(msgspec.Struct):
    """What is known of a method, a column and a sink so far, in all cache states."""

    samples: dict[str, list[Sample]]
    notes: dict[str, list[str]]
    reason: str = ""
    errno: int = 0
    identical: bool | None = None


class TransferRun:
    """The state of a run. Use `started_run()`, which mounts and unmounts."""

    def __init__(
        self,
        source: SourceFile,
        plan: Plan,
        running: Sequence[RunningTarget],
        where: Sinks,
        backing: ClientProcess,
    ) -> None:
        self.running: Final = running
        self._source = source
        self._plan = plan
        self._told = msgspec.to_builtins(where)
        self._backing = backing
        self._found: dict[_Key, _Found] = {}
        self._dead: dict[str, str] = {}
        self._digest = ""

    def check(self, progress: Progress) -> None:
        """Send the first bytes by every method and compare what the receivers got."""
        size = min(self._source.size, _CHECKED_BYTES)
        wanted = self._backing.ask("digest", path=self._source.path, size=size)
        for sink in self._plan.sinks:
            for method in self._plan.rows(sink):
                for target in self.running:
                    progress(f"checking {method.name} to {sink} from {column_of(target)}")
                    self._check(target, method, sink, size, wanted)

    def run_round(self, number: int, progress: Progress) -> None:
        """Every cell once; the order of columns turns from round to round."""
        turned = number % len(self.running)
        order = [*self.running[turned:], *self.running[:turned]]
        for sink in self._plan.sinks:
            for method in self._plan.rows(sink):
                for cache in self._plan.caches:
                    for target in order:
                        column = column_of(target)
                        if cache in self._plan.states(column):
                            progress(f"{number + 1}: {method.name} to {sink}, {column}, {cache}")
                            self._measure(target, method, sink, cache)

    def cells(self) -> tuple[TransferCell, ...]:
        """All cells: by sink, cache, method and column."""
        return tuple(
            self._cell(method.name, column, sink, cache)
            for sink in self._plan.sinks
            for cache in self._plan.caches
            for method in self._plan.rows(sink)
            for column in map(column_of, self.running)
            if cache in self._plan.states(column)
        )

    def ask(self, target: RunningTarget, command: str, **arguments: object) -> object:
        """Have a column's client do something; where it hangs the column is given up."""
        column = column_of(target)
        if column in self._dead:
            raise ClientError(self._dead[column])
        deadline = _DEADLINE_S + self._source.size / _SLOWEST
        try:
            return target.client.ask(command, deadline_s=deadline, **arguments)
        except ClientTimedOutError as error:
            self._dead[column] = str(error)
            if target.mount is not None:
                give_up(target.mount.mountpoint, target.mount.device)
            raise

    def prepare(self, target: RunningTarget, cache: str) -> str:
        """Bring the caches into the state; returns what is not as wanted."""
        left = self._drop(target) if cache != "warm" else 0
        if cache == "cold":
            left += _integer(self._backing.ask("drop", path=self._source.path))
        else:
            self._backing.ask("fill", path=self._source.path, size=self._source.size)
        if cache == "warm":
            self.ask(target, "fill", path=self.path(target), size=self._source.size)
        if left * _LEFT_SHARE > self._source.size:
            return f"{left >> 10} KiB stayed in the page cache"
        return ""

    def path(self, target: RunningTarget) -> str:
        """Where a column has the file."""
        return os.path.join(target.root, self._source.name)

    def _drop(self, target: RunningTarget) -> int:
        return _integer(self.ask(target, "drop", path=self.path(target))) if target.mount else 0

    def _entry(self, target: RunningTarget, method: Method, sink: str) -> _Found:
        key = _Key(method.name, column_of(target), sink)
        return self._found.setdefault(key, _Found({}, {}))

    def _transfer(
        self, target: RunningTarget, method: Method, sink: str, size: int, digest: bool
    ) -> dict[str, int | str]:
        counts = self.ask(
            target,
            "transfer",
            method=method.name,
            path=self.path(target),
            sink=sink,
            told=self._told,
            size=size,
            block=self._plan.block,
            digest=digest,
        )
        return msgspec.convert(counts, dict[str, int | str])

    def _check(
        self, target: RunningTarget, method: Method, sink: str, size: int, wanted: object
    ) -> None:
        found = self._entry(target, method, sink)
        try:
            counts = self._transfer(target, method, sink, size, digest=True)
        except ClientError as error:
            found.reason, found.errno = _reason(error), error.errno
            return
        if "sha256" in counts:
            found.identical = counts["sha256"] == wanted

    def _measure(self, target: RunningTarget, method: Method, sink: str, cache: str) -> None:
        found = self._entry(target, method, sink)
        if found.reason:
            return
        try:
            left = self.prepare(target, cache)
            with Watched(target.mount) as watched:
                counts = self._transfer(target, method, sink, self._source.size, digest=False)
        except (ClientError, StatusError, OSError) as error:
            found.reason, found.errno = _reason(error), getattr(error, "errno", 0) or 0
            return
        otherwise, share = watched.served_otherwise(column_of(target))
        if share > _NO_LONGER_ITS_PATH:
            found.reason = otherwise
            return
        notes = found.notes.setdefault(cache, [])
        notes += {left, otherwise, str(counts["note"])} - {"", *notes}
        if counts["delivered"] != self._source.size:
            found.reason = f"{counts['delivered']} bytes arrived, {self._source.size} were to"
            return
        found.samples.setdefault(cache, []).append(_sample(counts, watched))

    def _cell(self, method: str, column: str, sink: str, cache: str) -> TransferCell:
        found = self._found.get(_Key(method, column, sink), _Found({}, {}, "not run"))
        samples = found.samples.get(cache, [])
        return TransferCell(
            method=method,
            column=column,
            sink=sink,
            cache=cache,
            samples=tuple(samples),
            reason="" if samples else found.reason,
            errno=0 if samples else found.errno,
            notes=tuple(found.notes.get(cache, ())),
            identical=found.identical,
        )


def column_of(target: RunningTarget) -> str:
    """The name of a target's column: its serving path, or the backing file."""
    return target.target.name.removeprefix("zcfuse ")


def _sample(counts: Mapping[str, int | str], watched: Watched) -> Sample:
    return Sample(
        ns=int(counts["ns"]),
        delivered=int(counts["delivered"]),
        calls=int(counts["calls"]),
        client=side_of_client(counts),
        daemon=watched.side,
        served=watched.served,
    )


def _integer(answer: object) -> int:
    return max(0, answer) if isinstance(answer, int) else 0


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", 0) or 0
    name = errno_name(number)
    return f"{name}: {error}" if name else str(error)


def columns(plan: Plan, source: SourceFile) -> list[Target]:
    """The targets of a plan: the backing file, and mounts below `source.mountpoint`."""
    # Over io_uring all paths of the daemon's are one, so that there would be nothing to compare.
    return [
        Target(BACKING)
        if column == BACKING
        else zcfuse_target(
            column,
            source.root,
            os.path.join(source.mountpoint, column),
            ("--transport", "dev"),
        )
        for column in plan.columns
    ]


@contextlib.contextmanager
def started_run(
    source: SourceFile, plan: Plan
) -> Iterator[tuple[TransferRun, list[Target], dict[str, str]]]:
    """Mount all columns, with their clients and a receiver, for the length of the block.

    Yields the run, its columns, and by target the reasons of those that are not to be had. Raises
    `ClientError` where the receiver does not start.
    """
    targets = columns(plan, source)
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(sinks(source.path))
        backing = stack.enter_context(client(CLIENT_MODULE))
        running, unavailable = stack.enter_context(all_started(targets, source.root, CLIENT_MODULE))
        yield TransferRun(source, plan, running, where, backing), targets, unavailable
