"""The benchmark: every workload on every target, in rounds interleaved over the targets.

Interleaving spreads the machine's other work over all targets, and medians ignore one bad round.
The run mounts all targets at its start and unmounts them at its end.
"""

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from zcfuse.bench._clients import ClientError, ClientProcess, ClientTimedOutError, Timing
from zcfuse.bench._daemons import MountFailedError, give_up
from zcfuse.bench._sources import SourceTree
from zcfuse.bench._targets import BACKING, RunningTarget, Target, started
from zcfuse.bench._workloads import WORKLOADS, Cold, Round, Workload, drop_dentries

Progress = Callable[[str], None]
_NOT_RUN: Final = "not run"
_LEAST_NS: Final = 50_000_000  # a shorter sample measures the scheduler
_MOST_REPEATS: Final = 8


class Cell(msgspec.Struct, frozen=True):
    """One workload on one target: microseconds per operation in each round, or a reason."""

    samples_us: tuple[float, ...] = ()
    bytes_per_operation: float = 0
    reason: str = ""

    @property
    def median_us(self) -> float | None:
        """The median of the rounds in microseconds per operation."""
        return statistics.median(self.samples_us) if self.samples_us else None

    @property
    def gb_per_s(self) -> float | None:
        """The median as throughput, for workloads that move bytes."""
        median = self.median_us
        return self.bytes_per_operation / median / 1000 if median else None


class BenchRow(msgspec.Struct, frozen=True):
    """A workload's cells, by target name."""

    workload: str
    cache: str
    cells: dict[str, Cell]

    def ratio(self, target: str) -> float | None:
        """The ratio of an operation's time to that on the backing tree."""
        base, median = self.cells[BACKING].median_us, self.cells[target].median_us
        return median / base if base and median else None


class BenchReport(msgspec.Struct, frozen=True):
    """The results and their conditions. Every figure includes `loop_us`, the client's cost of a
    call. `load` is the load average before the first round."""

    source: str
    kernel: str
    filesystem: str
    cpus: int
    load: float
    rounds: int
    loop_us: float
    targets: tuple[str, ...]
    commands: dict[str, str]
    unavailable: dict[str, str]
    rows: tuple[BenchRow, ...]


class _Bench:
    """The state of a run: its targets and samples."""

    def __init__(
        self, tree: SourceTree, running: Sequence[RunningTarget], workloads: Sequence[Workload]
    ) -> None:
        self._tree = tree
        self._workloads = workloads
        self._running = running
        self._samples: dict[tuple[str, str], list[Timing]] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        self._dead: dict[str, str] = {}

    def run_round(self, number: int, progress: Progress) -> None:
        """Run every workload on every target once; the order of targets rotates with each round."""
        turned = number % len(self._running)
        order = [*self._running[turned:], *self._running[:turned]]
        for workload in self._workloads:
            reason = workload.missing(self._tree)
            for target in order:
                name = target.target.name
                progress(f"round {number + 1}: {workload.name} on {name}")
                if reason or name in self._dead:
                    self._reasons[workload.name, name] = reason or self._dead[name]
                    continue
                self._run_one(workload, target, number)

    def _run_one(self, workload: Workload, target: RunningTarget, number: int) -> None:
        name = target.target.name
        try:
            timing = _measure(workload, target, Round(self._tree, target.root, number))
        except ClientTimedOutError as error:
            self._dead[name] = str(error)
            if target.mount is not None:
                give_up(target.mount.mountpoint, target.mount.device)
        except ClientError as error:
            self._reasons[workload.name, name] = str(error)
        else:
            self._samples.setdefault((workload.name, name), []).append(timing)

    def rows(self) -> tuple[BenchRow, ...]:
        """The samples as rows."""
        return tuple(
            BenchRow(
                workload.name,
                workload.cold.value,
                {
                    target.target.name: self._cell(workload.name, target.target.name)
                    for target in self._running
                },
            )
            for workload in self._workloads
        )

    def _cell(self, workload: str, target: str) -> Cell:
        timings = self._samples.get((workload, target), [])
        if not timings:
            reason = self._reasons.get((workload, target)) or self._dead.get(target)
            return Cell(reason=reason or _NOT_RUN)
        return Cell(
            samples_us=tuple(timing.us_per_operation for timing in timings),
            bytes_per_operation=timings[0].bytes / max(1, timings[0].operations),
        )


def _measure(workload: Workload, target: RunningTarget, run: Round) -> Timing:
    """Bring the caches into the workload's state and run it, repeatedly if it is short."""
    if workload.needs_large:
        target.client.ask("open", path=os.path.join(target.root, run.tree.large))
    total = Timing(0, 0, 0)
    for _ in range(_MOST_REPEATS if workload.cold is Cold.DATA else 1):
        _prepare(workload, target, run)
        timing = workload.work(target.client, run)
        total = Timing(
            total.ns + timing.ns,
            total.operations + timing.operations,
            total.bytes + timing.bytes,
        )
        if total.ns >= _LEAST_NS:
            break
    return total


def _prepare(workload: Workload, target: RunningTarget, run: Round) -> None:
    if workload.cold is Cold.DATA and _has_own_pages(target):
        target.client.ask("drop")
    if workload.cold is Cold.DENTRIES:
        target.client.ask("close")  # an open file keeps its dentries
        drop_dentries()
    if workload.cold is Cold.NOTHING:
        workload.work(target.client, run)


def _has_own_pages(target: RunningTarget) -> bool:
    """Whether the mount has separate pages of a file; overlayfs uses the backing file's."""
    return target.mount is not None and target.mount.kind != "overlay"


def loop_cost_us(client: ClientProcess) -> float:
    """Time an empty read in the client's loop: the interpreter and a system call."""
    client.ask("open", path="/dev/null")
    return client.time("read_blocks", size=4096, block=4096, count=20_000).us_per_operation


@contextlib.contextmanager
def all_started(
    targets: Sequence[Target], source: str
) -> Iterator[tuple[list[RunningTarget], dict[str, str]]]:
    """Mount every target, and unmount all at the end; unavailable ones have a reason."""
    with contextlib.ExitStack() as stack:
        running, unavailable = [], {}
        for target in targets:
            try:
                running.append(stack.enter_context(started(target, source)))
            except MountFailedError as error:
                unavailable[target.name] = str(error)
        yield running, unavailable


def filesystem_of(path: str) -> str:
    """Return the filesystem type of `path`, from mountinfo."""
    best, kind = "", "unknown"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            place = before.split(" ")[4]
            inside = path == place or path.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(best):
                best, kind = place, after.split(" ")[0]
    return kind


def run_bench(
    tree: SourceTree,
    targets: Sequence[Target],
    rounds: int,
    progress: Progress,
    workloads: Sequence[Workload] = WORKLOADS,
) -> BenchReport:
    """Run `rounds` rounds of the workloads; the first of `targets` is the backing tree."""
    load = os.getloadavg()[0]
    with all_started(targets, tree.root) as (running, unavailable):
        bench = _Bench(tree, running, workloads)
        loop_us = loop_cost_us(running[0].client)
        _warm_backing(tree, running[0].client)
        for number in range(rounds):
            bench.run_round(number, progress)
        return BenchReport(
            source=tree.root,
            kernel=os.uname().release,
            filesystem=filesystem_of(tree.root),
            cpus=len(os.sched_getaffinity(0)),
            load=load,
            rounds=rounds,
            loop_us=loop_us,
            targets=tuple(target.target.name for target in running),
            commands={target.name: " ".join(target.argv) for target in targets if target.argv},
            unavailable=unavailable,
            rows=bench.rows(),
        )


def _warm_backing(tree: SourceTree, client: ClientProcess) -> None:
    """Read the backing tree into the page cache, so that no target pays for the disk."""
    if tree.large:
        client.ask("open", path=os.path.join(tree.root, tree.large))
        client.ask("digest", size=tree.large_size)
    if tree.small:
        client.time("open_read_close", root=tree.root, names=tree.small, limit=1 << 16, processes=1)
