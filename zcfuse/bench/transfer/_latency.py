"""The latency run: single reads of a page, into prefaulted and into untouched memory.

It reads each page of the first part of the file once, in random order, with warm page caches.
`read` is pread(2) into unused memory; `mapped` copies out of a mapping of the file. Prefaulted
memory was populated (MADV_POPULATE) and locked (mlock) before the first read, so no read takes a
page fault.
"""

import os
import resource
from typing import Final

import msgspec

from zcfuse.bench._clients import ClientError
from zcfuse.bench.transfer._cells import Figure, figure_of
from zcfuse.bench.transfer._column import Column
from zcfuse.bench.transfer._methods import COLUMNS

ACCESSES: Final = ("read", "mapped")
PERCENTILES: Final = ("p50_ns", "p99_ns", "p999_ns", "max_ns")
_Key = tuple[str, str, bool]  # column, access, prefaulted
_PAGE: Final = 4096
_MOST_PAGES: Final = 16384
_LOCKABLE_SHARE: Final = 2  # 1/N of the limit; the client locks other memory too


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
    """One column and access, with or without prefaulted memory; or why it is unavailable."""

    column: str
    access: str
    prefaulted: bool
    samples: tuple[LatencySample, ...] = ()
    reason: str = ""

    @property
    def figures(self) -> dict[str, Figure]:
        """Every field of a sample over the rounds; empty without a sample."""
        if not self.samples:
            return {}
        return {
            name: figure_of([getattr(sample, name) for sample in self.samples])
            for name in LatencySample.__struct_fields__
        }


def latency_pages(size: int) -> int:
    """The number of pages to read from a file of `size` bytes: at most what this user may lock."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    pages = min(_MOST_PAGES, size // _PAGE)
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:
        return pages
    return min(pages, limit // _LOCKABLE_SHARE // _PAGE)


class LatencyCells:
    """The samples of all columns so far."""

    def __init__(self) -> None:
        self._samples: dict[_Key, list[LatencySample]] = {}
        self._reasons: dict[_Key, str] = {}

    def add(self, key: _Key, sample: LatencySample) -> None:
        """Add the sample of one pass."""
        self._samples.setdefault(key, []).append(sample)

    def fail(self, key: _Key, reason: str) -> None:
        """Record why there is no sample."""
        self._reasons[key] = reason

    def cells(self) -> tuple[LatencyCell, ...]:
        """One cell per column, access and kind of memory."""
        keys = sorted({*self._samples, *self._reasons}, key=_order)
        return tuple(
            LatencyCell(
                *key,
                samples=tuple(self._samples.get(key, ())),
                reason="" if key in self._samples else self._reasons[key],
            )
            for key in keys
        )


def _order(key: _Key) -> tuple[int, int, bool]:
    column, access, prefaulted = key
    return COLUMNS.index(column), ACCESSES.index(access), prefaulted


def time_reads(column: Column, size: int, seed: int, into: LatencyCells) -> None:
    """Time the reads of one column once, with filled page caches."""
    for access in ACCESSES:
        for prefaulted in (False, True):
            key = (column.name, access, prefaulted)
            try:
                column.prepare("warm")
                counts = column.ask(
                    "latency",
                    pages=latency_pages(size),
                    mapped=access == "mapped",
                    prefaulted=prefaulted,
                    seed=seed,
                )
                into.add(key, msgspec.convert(counts, LatencySample))
            except ClientError as error:
                into.fail(key, str(error))
