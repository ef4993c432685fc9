"""How long requests took, as the data path's histograms have it: arithmetic, and nothing else.

The time is the daemon's part of a request: from its being read off the kernel's channel until its
reply was written. What the client waits for besides, the kernel's way there and back and the
wake-ups, is in none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

# What is shown of a distribution, by the name it has in the status document.
QUANTILES: Final[Mapping[str, float]] = {"p50_ns": 0.5, "p99_ns": 0.99, "p999_ns": 0.999}


class Latency(msgspec.Struct, frozen=True):
    """A distribution of times in nanoseconds.

    Each of `buckets` is (first, end, count): so many took at least `first` and less than `end`.
    They are in order, and those without a count are left out. `max_ns` is exact.
    """

    count: int = 0
    sum_ns: int = 0
    max_ns: int = 0
    buckets: tuple[tuple[int, int, int], ...] = ()

    def quantile(self, share: float) -> int:
        """Return a time, in ns, that `share` (0 to 1) of the requests took no longer than.

        Taken in proportion within its bucket, so it is out by a quarter at the most; 0 where there
        was no request.
        """
        wanted = share * self.count
        passed = 0
        for first, end, count in self.buckets:
            if passed + count >= wanted:
                last = max(min(end, self.max_ns), first)
                return min(first + round((last - first) * (wanted - passed) / count), self.max_ns)
            passed += count
        return self.max_ns

    def since(self, earlier: Latency) -> Latency:
        """Return what was added after `earlier`; `max_ns` is then known to a bucket only."""
        before = {first: count for first, _, count in earlier.buckets}
        changes = ((a, end, count - before.get(a, 0)) for a, end, count in self.buckets)
        buckets = tuple(bucket for bucket in changes if bucket[2] > 0)
        longest = min(buckets[-1][1], self.max_ns) if buckets else 0
        count = sum(count for *_, count in buckets)
        return Latency(count, max(self.sum_ns - earlier.sum_ns, 0), longest, buckets)

    def plus(self, other: Latency) -> Latency:
        """Return both together."""
        ends = {first: end for first, end, _ in self.buckets + other.buckets}
        counts = dict.fromkeys(sorted(ends), 0)
        for first, _, count in self.buckets + other.buckets:
            counts[first] += count
        return Latency(
            self.count + other.count,
            self.sum_ns + other.sum_ns,
            max(self.max_ns, other.max_ns),
            tuple((first, ends[first], count) for first, count in counts.items()),
        )

    def described(self) -> dict[str, object]:
        """Return the distribution and its quantiles, as the status document has them."""
        quantiles = {name: self.quantile(share) for name, share in QUANTILES.items()}
        return {**quantiles, **msgspec.structs.asdict(self)}


class Latencies(msgspec.Struct, frozen=True):
    """By operation, of upcalls by operation (a part of those), and of READs by serving path."""

    operations: dict[str, Latency] = {}
    upcalls: dict[str, Latency] = {}
    paths: dict[str, Latency] = {}

    def described(self) -> dict[str, dict[str, object]]:
        """Return all of them as the status document has them."""
        return {
            name: {key: latency.described() for key, latency in getattr(self, name).items()}
            for name in self.__struct_fields__
        }
