"""Metrics of a status document: families, cumulative buckets, and bounded labels."""

import math

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from zcfuse.admin.metrics._collector import cumulative, exposition
from zcfuse.admin.status._document import StatusDocument, Survival, ThreadUsage
from zcfuse.datapath import Latency
from zcfuse.options import parse_listen

LATENCY = {
    "count": 6,
    "sum_ns": 9_000_000_000,
    "max_ns": 8_000_000_000,
    "buckets": [[1024, 1280, 1], [4096, 5120, 3], [1 << 20, 1310720, 1], [1 << 32, 1 << 33, 1]],
}
PUSHED = (
    "events",
    "pushes",
    "coalesced",
    "epochs",
    "overflows",
    "left_out",
    "broken_leases",
)
DATAPATH = {
    "transport": {"kind": "uring"},
    "directories": {"nodes": 40, "open_files": 2},
    "requests": {"READ": 6, "OPEN": 1},
    "upcalls": {"OPEN": 1},
    "upcalls_out": 3,
    "upcalls_given_up": 1,
    "opens": {"passthrough": 7},
    "fallbacks": {'a "reason"\\': 2},
    "latency": {"operations": {"READ": LATENCY}, "upcalls": {}, "paths": {"pool": LATENCY}},
    "paths": {"pool": {"requests": 6, "bytes": 99, "copied_in": 9, "copied_out": 8, "errors": 1}},
    "lock_budget": [4096, 8192],
    "coherence": {
        **{name: number for number, name in enumerate(PUSHED)},
        "read_leases": 9,
        "longest_queue": 8,
        "latency_sum_ns": 3 * 10**9,
        "latency_worst_ns": 10**9,
        "refused": {"push_filesystem": 2},
    },
}
REMOTE = {
    **dict.fromkeys(
        ["retries", "failures", "cancelled", "damaged", "evicted_bytes", "listings"], 0
    ),
    **dict.fromkeys(["old_answers", "complete_opens", "partial_opens", "requests"], 1),
    **{
        "hits": 5,
        "misses": 2,
        "request_seconds": 0.25,
        "request_latency": Latency(1, 3 << 26, 3 << 26, ((1 << 27, 1 << 28, 1),)).described(),
        "fetched_bytes": 4096,
        "cache_directory": "/cache",
        "by_driver": {"a proxy": 2, "status 302": 1},
    },
}
CONTROL = {"nodes": 2, "open_files": 1, "upcalls": {"open": 1}, "errors": {"ENOENT": 5}}


def document(**changes):
    threads = [ThreadUsage("serve", 1, 5, 1, 0, 0), ThreadUsage("Trio thread 81", 2, 1, 0, 0, 0)]
    whole = StatusDocument(
        pid=1,
        source="/data",
        mountpoint='/mnt/"odd"\n',
        device="0:40",
        uptime_s=12.5,
        options={"path": "auto"},
        control=CONTROL,
        datapath=DATAPATH,
        threads=threads,
        survival=Survival(3, 2, 17, 0.25),
        tree={"remotes": {"s3://bucket": REMOTE}},
    )
    return msgspec.structs.replace(whole, **changes)


def samples(**changes):
    """Values by name and by the labels except the mount point."""
    text = exposition(document(**changes)).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = {**sample.labels}
            assert labels.pop("mountpoint") == '/mnt/"odd"\n'
            found[sample.name, *sorted(labels.items())] = sample.value
    return found


def test_counts_of_the_document_are_metrics():
    found = samples()
    assert found["zcfuse_requests_total", ("operation", "READ")] == 6
    assert found["zcfuse_read_bytes_total", ("path", "pool")] == 99
    assert found["zcfuse_fallbacks_total", ("reason", 'a "reason"\\')] == 2
    assert found["zcfuse_opens_total", ("mode", "passthrough")] == 7
    assert found["zcfuse_python_errors_total", ("errno", "ENOENT")] == 5
    assert found["zcfuse_nodes",] == 42
    assert (found["zcfuse_locked_bytes",], found["zcfuse_lock_budget_bytes",]) == (4096, 8192)
    assert found["zcfuse_upcalls_pending",] == 3
    assert found["zcfuse_uptime_seconds",] == 12.5
    assert (found["zcfuse_generation",], found["zcfuse_restarts_total",]) == (3, 2)
    assert found["zcfuse_resent_requests_total",] == 17
    assert found["zcfuse_longest_pause_seconds",] == 0.25


def test_counts_of_a_bucket_are_metrics():
    found = samples()
    bucket = ("remote", "s3://bucket")
    assert found["zcfuse_remote_fetched_bytes_total", bucket] == 4096
    assert found["zcfuse_remote_hits_total", bucket] == 5
    assert found["zcfuse_remote_request_seconds_total", bucket] == 0.25
    assert found["zcfuse_remote_driver_reads_total", bucket] == 3
    name = "zcfuse_remote_request_duration_seconds"
    assert found[f"{name}_sum", bucket] == (3 << 26) / 1e9
    assert found[f"{name}_count", bucket] == 1
    assert "zcfuse_remote_hits_total" not in {name for name, *_ in samples(tree={})}


def test_pushed_changes_are_metrics():
    found = samples()
    assert [found[f"zcfuse_coherence_{name}_total",] for name in PUSHED] == [*range(7)]
    assert found["zcfuse_coherence_read_leases",] == 9
    assert found["zcfuse_coherence_longest_queue",] == 8
    assert found["zcfuse_coherence_push_seconds_total",] == 3
    assert found["zcfuse_coherence_longest_push_seconds",] == 1
    assert found["zcfuse_coherence_refused_total", ("reason", "push_filesystem")] == 2


def test_a_histogram_is_cumulative_and_in_seconds():
    bounds = cumulative(msgspec.convert(LATENCY, Latency))
    limits = [float(bound) for bound, _ in bounds]
    assert limits == sorted(limits)
    assert limits[-1] == math.inf
    passed = dict(bounds)
    assert passed[repr(2048e-9)] == 1
    assert passed[repr(8192e-9)] == 4
    assert passed[repr((1 << 21) / 1e9)] == 5
    assert passed[repr((1 << 34) / 1e9)] == passed["+Inf"] == 6
    found = samples()
    assert found["zcfuse_read_duration_seconds_sum", ("path", "pool")] == 9
    assert found["zcfuse_request_duration_seconds_count", ("operation", "READ")] == 6


def test_no_label_grows_without_bound():
    many = {f"reason {number}": number + 1 for number in range(1000)}
    found = samples(datapath={**DATAPATH, "fallbacks": many})
    reasons = {key: value for key, value in found.items() if key[0] == "zcfuse_fallbacks_total"}
    assert len(reasons) == 51
    assert sum(reasons.values()) == sum(many.values())
    roles = {key[1][1] for key in found if key[0] == "zcfuse_page_faults_total"}
    assert roles == {"serve", "other"}


def test_a_naive_mount_has_what_python_counts():
    found = samples(datapath=None)
    assert found["zcfuse_python_requests_total", ("operation", "open")] == 1
    assert not any(name.startswith("zcfuse_requests") for name, *_ in found)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0", ("127.0.0.1", 0)),
        ("9464", ("127.0.0.1", 9464)),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("localhost:1", ("127.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_a_port_on_loopback_is_listened_on(text, address):
    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["0.0.0.0:1", ":1", "host:1", "::1:1", "192.168.0.1:9464"])
def test_no_other_address_is_listened_on(text):
    with pytest.raises(ValueError, match="not a loopback address"):
        parse_listen(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "127.0.0.1:", "1.5", "²"])
def test_no_other_port_is_listened_on(text):
    with pytest.raises(ValueError, match="give a port"):
        parse_listen(text)
