"""The latency run: single reads of a page, into memory that is there and into memory that is not.

Each page of the first part of the file is read once, in random order, with the page caches warm.
`read` is pread(2) into memory never used before; `mapped` copies out of a mapping of the file.
Prefaulted memory was populated (MADV_POPULATE) and locked (mlock) before the first read, so that no
read meets a page fault.
"""

import os
import resource
from typing import Final

import msgspec

from zcfuse.bench._clients import ClientError
from zcfuse.bench._targets import RunningTarget
from zcfuse.bench.transfer._cells import Figure, figure_of
from zcfuse.bench.transfer._run import Progress, TransferRun, column_of

ACCESSES: Final = ("read", "mapped")
PERCENTILES: Final = ("p50_ns", "p99_ns", "p999_ns", "max_ns")
_PAGE: Final = 4096
_MOST_PAGES: Final = 16384
_LOCKABLE_SHARE: Final = 2  # of the limit, the rest is for what the client has locked besides


class LatencySample(msgspec.Struct, frozen=True):
    """Percentiles of one pass in nanoseconds, and the page faults of all its reads."""

    reads: int
    p50_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    minor_faults: int
    major_faults: int


class LatencyCell(msgspec.Struct, frozen=True):
    """One column and access, with or without prefaulted memory; or why there is no such thing."""

    column: str
    access: str
    prefaulted: bool
    samples: tuple[LatencySample, ...] = ()
    reason: str = ""

    @property
    def figures(self) -> dict[str, Figure]:
        """Every field of a sample over the rounds; empty where there is no sample."""
        if not self.samples:
            return {}
        return {
            name: figure_of([getattr(sample, name) for sample in self.samples])
            for name in LatencySample.__struct_fields__
        }


def latency_pages(size: int) -> int:
    """How many pages of a file of `size` bytes to read: no more than this user may lock."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    pages = min(_MOST_PAGES, size // _PAGE)
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:
        return pages
    return min(pages, limit // _LOCKABLE_SHARE // _PAGE)


def run_latency(
    run: TransferRun, size: int, rounds: int, progress: Progress
) -> tuple[LatencyCell, ...]:
    """Time the reads in every column of the run, `rounds` times, with the columns in turn."""
    pages = latency_pages(size)
    samples: dict[tuple[str, str, bool], list[LatencySample]] = {}
    reasons: dict[tuple[str, str, bool], str] = {}
    keys = [(access, prefaulted) for access in ACCESSES for prefaulted in (False, True)]
    for number in range(rounds):
        for access, prefaulted in keys:
            for target in run.running:
                key = (column_of(target), access, prefaulted)
                progress(f"{number + 1}: latency of {access}, {key[0]}")
                try:
                    sample = _pass(run, target, pages, access, prefaulted, number)
                    samples.setdefault(key, []).append(sample)
                except ClientError as error:
                    reasons[key] = str(error)
    return tuple(
        LatencyCell(*key, tuple(samples.get(key, ())), "" if key in samples else reasons[key])
        for target in run.running
        for key in ((column_of(target), access, prefaulted) for access, prefaulted in keys)
    )


def _pass(
    run: TransferRun,
    target: RunningTarget,
    pages: int,
    access: str,
    prefaulted: bool,
    seed: int,
) -> LatencySample:
    run.prepare(target, "warm")
    counts = run.ask(
        target,
        "latency",
        path=run.path(target),
        pages=pages,
        mapped=access == "mapped",
        prefaulted=prefaulted,
        seed=seed,
    )
    return msgspec.convert(counts, LatencySample)
