"""Measures which serving path is best at which request size.

A client reads the mount with O_DIRECT. Such a read bypasses FUSE's page cache, so each call is one
READ request of exactly that size (up to the limit from INIT). Passthrough is excluded: it sends no
request, and O_DIRECT would read the disk.
"""

import os
import statistics
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from zcfuse.audit import process_cpu_ns
from zcfuse.bench._clients import ClientError
from zcfuse.bench._rounds import all_started
from zcfuse.bench._sources import SourceTree
from zcfuse.bench._targets import RunningTarget, zcfuse_target

SWEEP_PATHS: Final = ("naive", "pool", "mmap", "splice")
SIZES: Final = tuple(4096 << power for power in range(9))  # 4 KiB to 1 MiB
_BYTES_A_SAMPLE: Final = 64 << 20
_REQUESTS_A_SAMPLE: Final = range(32, 2049)
Progress = Callable[[str], None]


class SweepCell(msgspec.Struct, frozen=True):
    """Medians for one size and path: a request's time and its CPU time in the daemon."""

    us_per_request: float
    daemon_cpu_us: float


class SweepRow(msgspec.Struct, frozen=True):
    """A request size in bytes, and the cost of each path."""

    size: int
    cells: dict[str, SweepCell]

    def best(self, quantity: str) -> str:
        """The path with the least `us_per_request` or `daemon_cpu_us`."""
        return min(self.cells, key=lambda name: float(getattr(self.cells[name], quantity)))


class SweepReport(msgspec.Struct, frozen=True):
    """All sizes; `unavailable` names the missing paths, with the reason."""

    kernel: str
    rounds: int
    unavailable: dict[str, str]
    rows: tuple[SweepRow, ...]


def _requests(size: int) -> int:
    return max(_REQUESTS_A_SAMPLE.start, min(_REQUESTS_A_SAMPLE[-1], _BYTES_A_SAMPLE // size))


def _sample(target: RunningTarget, tree: SourceTree, size: int) -> tuple[float, float]:
    assert target.mount is not None  # every target of a sweep is a mount
    count = _requests(size)
    before = process_cpu_ns(target.mount.pid)
    timing = target.client.time("read_blocks", size=tree.large_size, block=size, count=count)
    cpu_us = (process_cpu_ns(target.mount.pid) - before) / 1000 / count
    return timing.us_per_operation, cpu_us


def run_sweep(
    tree: SourceTree,
    base: str,
    rounds: int,
    progress: Progress,
    paths: Sequence[str] = SWEEP_PATHS,
) -> SweepReport:
    """Measure all sizes by all paths, `rounds` times, interleaved.

    Raises `ClientError` if the tree has no large file.
    """
    if not tree.large:
        raise ClientError(f"{tree.root}: no file of 4 MiB or more to read")
    # Only /dev/fuse supports all of these paths.
    targets = [
        zcfuse_target(path, tree.root, os.path.join(base, path), ("--transport", "dev"))
        for path in paths
    ]
    with all_started(targets, tree.root) as (running, unavailable):
        samples: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for target in running:
            target.client.ask("open", path=os.path.join(target.root, tree.large), direct=True)
            target.client.ask("read", size=tree.large_size, block=SIZES[-1])
        for number in range(rounds):
            for size in SIZES:
                progress(f"round {number + 1}: {size >> 10} KiB")
                for target in running:
                    path = target.target.name.removeprefix("zcfuse ")
                    samples.setdefault((size, path), []).append(_sample(target, tree, size))
        rows = tuple(SweepRow(size, _cells(samples, size)) for size in SIZES)
        return SweepReport(os.uname().release, rounds, unavailable, rows)


def _cells(
    samples: dict[tuple[int, str], list[tuple[float, float]]], size: int
) -> dict[str, SweepCell]:
    return {
        path: SweepCell(
            us_per_request=statistics.median(sample[0] for sample in found),
            daemon_cpu_us=statistics.median(sample[1] for sample in found),
        )
        for (measured, path), found in samples.items()
        if measured == size
    }
