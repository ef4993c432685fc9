"""Request latencies, computed from the data path's histograms.

A latency is the daemon's part of a request: from reading it off the kernel's channel until its
reply was written. It excludes the kernel's part and the wake-ups on the way to the client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

# The quantiles in the status document, by name.
QUANTILES: Final[Mapping[str, float]] = {"p50_ns": 0.5, "p99_ns": 0.99, "p999_ns": 0.999}


class Latency(msgspec.Struct, frozen=True):
    """A distribution of times in nanoseconds.

    `buckets` has (first, end, count): `count` requests took at least `first` and less than `end`.
    The buckets are in order; empty ones are left out. `max_ns` is exact.
    """

    count: int = 0
    sum_ns: int = 0
    max_ns: int = 0
    buckets: tuple[tuple[int, int, int], ...] = ()

    def quantile(self, share: float) -> int:
        """Return the time, in ns, within which `share` (0 to 1) of the requests finished.

        The result is interpolated within its bucket, so its error is at most a quarter. Without
        requests it is 0.
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
        """Return the requests added after `earlier`; `max_ns` is precise to one bucket."""
        before = {first: count for first, _, count in earlier.buckets}
        changes = ((a, end, count - before.get(a, 0)) for a, end, count in self.buckets)
        buckets = tuple(bucket for bucket in changes if bucket[2] > 0)
        longest = min(buckets[-1][1], self.max_ns) if buckets else 0
        count = sum(count for *_, count in buckets)
        return Latency(count, max(self.sum_ns - earlier.sum_ns, 0), longest, buckets)

    def plus(self, other: Latency) -> Latency:
        """Return the sum of both."""
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
