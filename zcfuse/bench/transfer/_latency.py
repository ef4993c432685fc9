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
from zcfuse.bench.transfer._cells import Figure, figure_of
from zcfuse.bench.transfer._column import Column
from zcfuse.bench.transfer._methods import COLUMNS

ACCESSES: Final = ("read", "mapped")
PERCENTILES: Final = ("p50_ns", "p99_ns", "p999_ns", "max_ns")
_Key = tuple[str, str, bool]  # column, access, prefaulted
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


class LatencyCells:
    """The samples of all columns so far."""

    def __init__(self) -> None:
        self._samples: dict[_Key, list[LatencySample]] = {}
        self._reasons: dict[_Key, str] = {}

    def add(self, key: _Key, sample: LatencySample) -> None:
        """Add the sample of one pass."""
        self._samples.setdefault(key, []).append(sample)

    def fail(self, key: _Key, reason: str) -> None:
        """Say why there is none."""
        self._reasons[key] = reason

    def cells(self) -> tuple[LatencyCell, ...]:
        """A cell for each column, access and kind of memory that was tried."""
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
    """Time the reads of one column once, each page cache filled before."""
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
