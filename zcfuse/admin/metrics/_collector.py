"""Turns a status document into Prometheus metrics, for the official client library.

It is pure: a document goes in, metric families come out. Every series has the label `mountpoint`,
so that one file can hold the text of several mounts. Other labels have a bounded set of values:
operations, paths, roles and errnos by their nature, reasons of fallbacks by number. Names of files
are never labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from zcfuse.admin.status import StatusDocument, Survival
from zcfuse.datapath import Latency

_NS_PER_S: Final = 1e9
# Powers of two nanoseconds, where buckets of the data path's histograms begin. They go from 2 us in
# factors of two to 17 ms, which covers most requests, then in factors of four to 69 s.
_POWERS: Final = (*range(11, 25), *range(26, 37, 2))
_BOUNDS_NS: Final = tuple(1 << power for power in _POWERS)
_MOST_REASONS: Final = 50
_OTHER: Final = "other"
# Threads of the data path and the trio loop's thread, without its helpers of unlimited number.
_ROLES: Final = frozenset({"control", "serve", "ring", "read", "relay", "notify", "prefault"})

_PATHS: Final = (
    ("requests", "read_requests", "READs that were answered, by serving path."),
    ("bytes", "read_bytes", "Bytes served by READs, by serving path; passthrough is not seen."),
    ("copied_in", "read_copied_in_bytes", "Bytes that system calls copied into the daemon."),
    ("copied_out", "read_copied_out_bytes", "Bytes that system calls copied out of the daemon."),
    ("errors", "read_errors", "READs that were answered with an errno, by serving path."),
)

_REMOTE: Final = (
    ("hits", "hits", "Reads that found their bytes in the cache."),
    ("misses", "misses", "Reads that waited for bytes of the server."),
    ("fetched_bytes", "fetched_bytes", "Bytes that were fetched."),
    ("evicted_bytes", "evicted_bytes", "Bytes that were removed to make room."),
    ("requests", "requests", "Requests for bytes to the server."),
    ("request_seconds", "request_seconds", "Time that these requests took, added up."),
    ("retries", "retries", "Requests that were repeated."),
    ("failures", "failures", "Requests that failed in the end."),
    ("cancelled", "cancelled", "Fetches given up because no reader was left."),
    ("damaged", "damaged", "Kept ranges that did not match their checksum."),
    ("complete_opens", "complete_opens", "Opens of files that were complete in the cache."),
    ("partial_opens", "partial_opens", "Opens of files that lacked bytes."),
    ("listings", "listings", "Listings that were fetched."),
    ("old_answers", "old_answers", "Answers from an old listing while the server was away."),
)


def exposition(document: StatusDocument) -> bytes:
    """Return a document in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(lambda: document))
    return generate_latest(registry)


class StatusCollector(Collector):
    """Asks for a status document at each scrape and turns it into metrics."""

    def __init__(self, read: Callable[[], StatusDocument]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that a registry does not ask the daemon before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of one document."""
        document = self._read()
        family = _Families(document.mountpoint)
        yield from _of_mount(family, document)
        yield from _of_survival(family, document.survival)
        yield from _of_control(family, document)
        yield from _of_remotes(family, document.tree.get("remotes", {}))
        if document.datapath is not None:
            yield from _of_requests(family, document.datapath)
            yield from _of_latency(family, document.datapath)
            yield from _of_reads(family, document.datapath)
            yield from _of_memory(family, document.datapath)
            yield from _of_coherence(family, document.datapath)


class _Families:
    """Makes families whose series have the mount point and at most one other label."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint

    def counter(self, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
        family = CounterMetricFamily(f"zcfuse_{name}", text, labels=("mountpoint", label))
        for key, value in values.items():
            family.add_metric((self._mountpoint, key), value)
        return family

    def count(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"zcfuse_{name}", text, labels=("mountpoint",))
        family.add_metric((self._mountpoint,), value)
        return family

    def gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"zcfuse_{name}", text, labels=("mountpoint",))
        family.add_metric((self._mountpoint,), value)
        return family

    def info(self, name: str, text: str, values: Mapping[str, str]) -> Metric:
        family = InfoMetricFamily(f"zcfuse_{name}", text, labels=("mountpoint",))
        family.add_metric((self._mountpoint,), dict(values))
        return family

    def histogram(
        self, name: str, text: str, label: str, latencies: Mapping[str, Latency]
    ) -> Metric:
        family = HistogramMetricFamily(f"zcfuse_{name}", text, labels=("mountpoint", label))
        for key, latency in latencies.items():
            family.add_metric(
                (self._mountpoint, key),
                buckets=cumulative(latency),
                sum_value=latency.sum_ns / _NS_PER_S,
            )
        return family


def cumulative(latency: Latency) -> list[tuple[str, float]]:
    """Return (upper bound in s, number of requests up to it), up to ``+Inf``.

    Buckets begin at the bounds, so these numbers are exact.
    """
    result = []
    buckets = iter(latency.buckets)
    following = next(buckets, None)
    passed = 0
    for bound in _BOUNDS_NS:
        while following is not None and following[1] <= bound:
            passed += following[2]
            following = next(buckets, None)
        result.append((repr(bound / _NS_PER_S), float(passed)))
    return [*result, ("+Inf", float(latency.count))]


def _of_mount(family: _Families, document: StatusDocument) -> Iterator[Metric]:
    transport: Mapping[str, Any] = _section(document.datapath, "transport")
    yield family.info(
        "mount",
        "The mount.",
        {
            "source": document.source,
            "device": document.device,
            "path": str(document.options.get("path")),
            "transport": str(transport.get("kind", "dev")),
        },
    )
    yield family.gauge("uptime_seconds", "Seconds since the mount.", document.uptime_s)
    usage: Counter[str] = Counter()
    for thread in document.threads:
        role = thread.role if thread.role in _ROLES else _OTHER
        usage[role] += thread.minor_faults + thread.major_faults
    yield family.counter(
        "page_faults", "Page faults of the daemon's threads, by role.", "role", usage
    )


def _of_survival(family: _Families, survival: Survival | None) -> Iterator[Metric]:
    if survival is None:
        return
    yield family.gauge(
        "generation", "Which daemon of the mount serves, from 1.", survival.generation
    )
    yield family.count("restarts", "Daemons that ended unexpectedly.", survival.restarts)
    yield family.count("resent_requests", "Requests that the kernel sent again.", survival.resent)
    yield family.gauge(
        "longest_pause_seconds",
        "The longest time that a change of the daemon took.",
        survival.longest_pause_s,
    )


def _of_control(family: _Families, document: StatusDocument) -> Iterator[Metric]:
    control: Mapping[str, Any] = document.control
    directories = _section(document.datapath, "directories")
    for name, text in (
        ("nodes", "Files and directories that the kernel knows."),
        ("open_files", "Files that are open."),
    ):
        yield family.gauge(name, text, control.get(name, 0) + directories.get(name, 0))
    yield family.counter(
        "python_requests",
        "Requests to Python, by operation.",
        "operation",
        control.get("upcalls", {}),
    )
    yield family.counter(
        "python_errors", "Errors that Python replied, by errno.", "errno", control.get("errors", {})
    )


def _of_remotes(family: _Families, remotes: Mapping[str, Any]) -> Iterator[Metric]:
    if not remotes:
        return
    for key, name, text in _REMOTE:
        counts = {url: float(told[key]) for url, told in remotes.items()}
        yield family.counter(f"remote_{name}", text, "remote", counts)
    yield family.counter(
        "remote_driver_reads",
        "Ranges that the driver read where a plain connection usually does.",
        "remote",
        {url: float(sum(told["by_driver"].values())) for url, told in remotes.items()},
    )
    yield family.histogram(
        "remote_request_duration_seconds",
        "How long requests for bytes to the server took.",
        "remote",
        {url: msgspec.convert(told["request_latency"], Latency) for url, told in remotes.items()},
    )


def _of_requests(family: _Families, datapath: Mapping[str, Any]) -> Iterator[Metric]:
    yield family.counter(
        "requests",
        "Requests read from the kernel, by operation.",
        "operation",
        datapath["requests"],
    )
    yield family.counter(
        "upcalls", "Requests forwarded to Python, by operation.", "operation", datapath["upcalls"]
    )
    yield family.gauge(
        "upcalls_pending", "Upcalls that have no answer yet.", datapath["upcalls_out"]
    )
    yield family.count(
        "upcalls_given_up", "Upcalls answered EIO in Python's place.", datapath["upcalls_given_up"]
    )
    yield family.counter("opens", "Files opened, by how they are read.", "mode", datapath["opens"])
    yield family.counter(
        "fallbacks",
        "Opens and READs that did not get the best path, by reason.",
        "reason",
        _bounded(datapath["fallbacks"]),
    )


def _of_latency(family: _Families, datapath: Mapping[str, Any]) -> Iterator[Metric]:
    for name, key, label, what in (
        ("request_duration", "operations", "operation", "a request"),
        ("upcall_duration", "upcalls", "operation", "a request that was forwarded to Python"),
        ("read_duration", "paths", "path", "a READ, by serving path"),
    ):
        latencies = msgspec.convert(datapath["latency"][key], dict[str, Latency])
        yield family.histogram(
            f"{name}_seconds",
            f"The daemon's part of {what}: from its receipt until the reply was written.",
            label,
            latencies,
        )


def _of_reads(family: _Families, datapath: Mapping[str, Any]) -> Iterator[Metric]:
    paths: Mapping[str, Mapping[str, int]] = datapath["paths"]
    for key, name, text in _PATHS:
        counts = {path: counts[key] for path, counts in paths.items()}
        yield family.counter(name, text, "path", counts)


def _of_memory(family: _Families, datapath: Mapping[str, Any]) -> Iterator[Metric]:
    locked, limit = datapath["lock_budget"]
    yield family.gauge("locked_bytes", "Memory that buffers and windows have locked.", locked)
    yield family.gauge("lock_budget_bytes", "The limit of that memory.", limit)


def _of_coherence(family: _Families, datapath: Mapping[str, Any]) -> Iterator[Metric]:
    coherence = datapath.get("coherence")
    if coherence is None:
        return
    for name, text in (
        ("events", "Changes that the backing filesystems reported."),
        ("pushes", "Changes that were pushed to the kernel."),
        ("coalesced", "Changes of what the kernel had not asked for since the last push."),
        ("epochs", "Times that the kernel was made to ask again for everything."),
        ("overflows", "Times that the kernel's queue of events was full."),
        ("left_out", "Names that were not pushed, because another mount is on or below them."),
        ("broken_leases", "Read leases that ended because a program opened the file for writing."),
    ):
        yield family.count(f"coherence_{name}", text, coherence[name])
    yield family.gauge(
        "coherence_read_leases", "Files that have a read lease.", coherence["read_leases"]
    )
    yield family.gauge(
        "coherence_longest_queue", "The most pushes that waited.", coherence["longest_queue"]
    )
    yield family.count(
        "coherence_push_seconds",
        "Seconds from the reading of an event to the end of its push, in all.",
        coherence["latency_sum_ns"] / _NS_PER_S,
    )
    yield family.gauge(
        "coherence_longest_push_seconds",
        "The longest time from the reading of an event to the end of its push.",
        coherence["latency_worst_ns"] / _NS_PER_S,
    )
    yield family.counter(
        "coherence_refused",
        "Sources whose changes are not pushed, by reason.",
        "reason",
        coherence["refused"],
    )


def _bounded(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the largest counts by name, and the others together."""
    by_count = sorted(counts.items(), key=lambda item: item[1], reverse=True)
    rest = sum(count for _, count in by_count[_MOST_REASONS:])
    return {**dict(by_count[:_MOST_REASONS]), **({_OTHER: rest} if rest else {})}


def _section(datapath: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    section: Mapping[str, Any] = (datapath or {}).get(name, {})
    return section
