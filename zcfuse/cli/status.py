"""``zcfuse status``: prints the daemon's status document as tables or JSON."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from zcfuse.admin import LockReport
from zcfuse.admin.status import HotFile, StatusDocument, StatusError, ThreadUsage, read_status
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError
from zcfuse.cli._kernel_mounts import kernel_served, print_images, print_kernel_mount
from zcfuse.cli._output import (
    duration,
    json_option,
    print_json,
    print_pairs,
    print_table,
    size,
)
from zcfuse.cli._survival import print_survival, shown_processes
from zcfuse.reasons import reason_text
from zcfuse.text import escaped

_PATH_COLUMNS: Final = ("requests", "bytes", "copied_in", "copied_out", "calls", "short", "errors")

_ARCHIVE_COLUMNS: Final = (
    "archive",
    "members",
    "index",
    "from before",
    "unpacked",
    "given up",
    "in memory",
)
_MOST_ARCHIVES: Final = 20
_MOST_LOCKED: Final = 20
_MOST_FILES: Final = 5
# On the first screen.
_FIRST_FILES: Final = 3
_FIRST_ARCHIVES: Final = 3
_FIRST_RESTARTS: Final = 1
_NAIVE: Final = "naive: no data plane; Python answers every request"
_QUANTILES: Final = {"p50_ns": "p50", "p99_ns": "p99", "p999_ns": "p99.9", "max_ns": "max"}


# Counts of the control plane, and their codes.
_REFUSALS: Final = {
    "refused_opens": "python_opens_refused",
    "refused_files": "python_files_refused",
}


@click.command()
@click.argument("mountpoint", shell_complete=_completion.mountpoints)
@json_option
@click.option(
    "--prometheus", "as_metrics", is_flag=True, help="Print the text format of Prometheus."
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Print all counters too: latencies, negotiated features, leases, windows, threads.",
)
def status(mountpoint: str, as_json: bool, as_metrics: bool, verbose: bool) -> None:
    """Show how the mount at MOUNTPOINT serves requests, and why some took a slower path."""
    if as_json and as_metrics:
        raise click.UsageError("--json and --prometheus exclude each other: give one of them")
    served = kernel_served(mountpoint)
    if served is not None and not as_metrics:
        print_kernel_mount(served, as_json=as_json)
        return
    try:
        document = read_status(mountpoint)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error
    if as_metrics:
        from zcfuse.admin.metrics import exposition

        click.echo(exposition(document), nl=False)
    elif as_json:
        print_json(document)
    elif verbose:
        _print(document)
    else:
        _print_first_screen(document)
        click.echo(f"More: zcfuse status -v {escaped(document.mountpoint)}")


def _print_first_screen(document: StatusDocument) -> None:
    """Print the main counts. A mount without fallbacks fits a screen of 24 lines."""
    datapath: Mapping[str, Any] = document.datapath or {}
    transport: Mapping[str, Any] = datapath.get("transport", {})
    print_pairs(
        "mount",
        {
            "source": document.source,
            "mount point": document.mountpoint,
            "version": document.version or None,
            "process": str(document.pid),
            "uptime": f"{document.uptime_s:.0f} s",
            "transport": transport.get("kind", _NAIVE),
        },
    )
    print_survival(document.survival, _FIRST_RESTARTS)
    _print_counts("opens", datapath.get("opens"))
    paths: Mapping[str, Any] = datapath.get("paths", {})
    used = {name: counts for name, counts in paths.items() if counts["requests"]} or paths
    if used:
        _print_paths(used, _PATH_COLUMNS[:4])
    _print_fallbacks(_fallbacks(document))
    if document.locks is not None:
        _print_lock_totals(document.locks)
    _print_hot_files(document.hot_files[:_FIRST_FILES])
    _print_archives(document.tree.get("archives", {}), _FIRST_ARCHIVES)
    _print_remotes(document.tree.get("remotes", {}))
    print_images(document.tree.get("images", {}))
    _print_far(document.control)
    _print_counts("errors replied", document.control.get("errors"))


def _print_far(control: Mapping[str, Any]) -> None:
    """Print the calls to filesystems that do not answer, where there were any."""
    far = control.get("far", {})
    if far.get("timed_out") or far.get("refused"):
        _print_counts("calls to filesystems that may not answer", far)


def _print(document: StatusDocument) -> None:
    print_pairs(
        "mount",
        {
            "source": document.source,
            "mount point": document.mountpoint,
            "device": document.device,
            "process": shown_processes(document),
            "version": document.version or None,
            "uptime": f"{document.uptime_s:.0f} s",
            "options": _options_line(document.options),
            "open files": _of_both_planes(document, "open_files"),
            "nodes": _of_both_planes(document, "nodes"),
            "metrics": f"http://{document.metrics}/metrics" if document.metrics else None,
        },
    )
    print_survival(document.survival)
    if document.datapath is None:
        click.echo(f"{_NAIVE}\n")
    else:
        _print_datapath(document.datapath, _fallbacks(document))
    if document.locks is not None:
        _print_locks(document.locks)
    _print_hot_files(document.hot_files)
    _print_archives(document.tree.get("archives", {}), _MOST_ARCHIVES)
    _print_remotes(document.tree.get("remotes", {}))
    print_images(document.tree.get("images", {}))
    _print_counts("upcalls answered in Python", document.control.get("upcalls"))
    _print_far(document.control)
    _print_counts("errors replied", document.control.get("errors"))
    _print_threads(document.threads)


def _of_both_planes(document: StatusDocument, name: str) -> int:
    """Add up the counts of Python and of the data path."""
    directories: Mapping[str, Any] = (document.datapath or {}).get("directories", {})  # type: ignore[assignment]
    return int(str(document.control.get(name, 0))) + int(directories.get(name, 0))


def _options_line(options: Mapping[str, object]) -> str:
    texts = {**options, "lock_budget": size(options.get("lock_budget"))}
    return " ".join(f"{name}={value}" for name, value in texts.items() if value is not None)


def _print_coherence(coherence: Mapping[str, Any] | None) -> None:
    if coherence is None:
        return
    refused = {reason_text(reason): n for reason, n in coherence["refused"].items()}
    names = (
        "filesystems",
        "directories",
        "events",
        "coalesced",
        "pushes",
        "epochs",
        "overflows",
        "left_out",
        "read_leases",
        "broken_leases",
    )
    pushes = coherence["pushes"] or 1
    print_pairs(
        "changes pushed",
        {
            **refused,
            **{name: coherence[name] for name in names},
            "longest queue": coherence["longest_queue"],
            "latency, mean": duration(coherence["latency_sum_ns"] // pushes),
            "latency, worst": duration(coherence["latency_worst_ns"]),
            "not SCHED_FIFO": _errno_name(coherence["schedule_errno"]),
        },
    )


def _errno_name(number: int) -> str | None:
    return errno.errorcode.get(number, str(number)) if number else None


def _fallbacks(document: StatusDocument) -> dict[str, int]:
    """Return what the mount fell back from and what it refused, by reason."""
    found: dict[str, int] = dict((document.datapath or {}).get("fallbacks", {}))  # type: ignore[call-overload]
    for name, reason in _REFUSALS.items():
        if count := document.control.get(name):
            found[reason] = int(str(count))
    return found


def _print_datapath(datapath: Mapping[str, Any], fallbacks: Mapping[str, int]) -> None:
    # First the requests and the fallbacks, then the means.
    _print_counts("opens", datapath.get("opens"))
    _print_fallbacks(fallbacks)
    _print_coherence(datapath.get("coherence"))
    latency: Mapping[str, Any] = datapath.get("latency", {})
    paths = datapath.get("paths", {})
    _print_paths(paths, _PATH_COLUMNS)
    served = {name: counts["requests"] for name, counts in paths.items() if counts["requests"]}
    _print_requests("time of a READ by path", "path", served, latency, "paths")
    _print_requests(
        "requests read from the kernel", "operation", datapath["requests"], latency, "operations"
    )
    _print_requests("forwarded to Python", "operation", datapath["upcalls"], latency, "upcalls")
    _print_section("transport", datapath, "transport")
    _print_section("negotiated with the kernel", datapath, "init")
    _print_section("directory leases", datapath, "directories")
    _print_section("pool", datapath, "pool")
    _print_section("windows", datapath, "windows")
    counters = ("upcalls_out", "upcalls_overflow", "notifications", "interrupts", "leases")
    _print_counts("counters", {name: datapath[name] for name in counters if name in datapath})


def _print_paths(paths: Mapping[str, Any], columns: Sequence[str]) -> None:
    rows = [(name, *(counts.get(column) for column in columns)) for name, counts in paths.items()]
    print_table("served by path", ("path", *columns), rows)


def _print_requests(
    title: str, what: str, counts: Mapping[str, int], latency: Mapping[str, Any], section: str
) -> None:
    """Print a row for each count, the largest first, with the quantiles of its latency."""
    times: Mapping[str, Any] = latency.get(section, {})
    rows = [
        (name, count, *(duration(times.get(name, {}).get(key)) for key in _QUANTILES))
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    if rows:
        print_table(title, (what, "requests", *_QUANTILES.values()), rows)


def _print_hot_files(files: Sequence[HotFile]) -> None:
    rows = [(file.opens, file.reads, size(file.bytes), file.path) for file in files[:_MOST_FILES]]
    if rows:
        print_table("hottest files", ("opens", "READs", "bytes", "file"), rows)


def _print_section(title: str, datapath: Mapping[str, Any], name: str) -> None:
    section = datapath.get(name)
    if section:
        pairs = {
            key: size(value) if key in ("bytes", "locked", "node_bytes", "archive_bytes") else value
            for key, value in section.items()
        }
        print_pairs(f"{title}", pairs)


def _print_locks(locks: LockReport) -> None:
    """Print the total of locked bytes, then the first files; those with a note come first."""
    _print_lock_totals(locks)
    more = locks.files - _MOST_LOCKED
    title = f"kept in memory (and {more} more: --json)" if more > 0 else "kept in memory"
    rows = [
        (file.path, size(file.bytes), size(file.present), file.note or "-")
        for file in locks.listed[:_MOST_LOCKED]
    ]
    print_table(title, ("file", "locked", "in memory", "note"), rows)


def _print_lock_totals(locks: LockReport) -> None:
    print_pairs(
        "files kept in memory",
        {
            "files": locks.files,
            "locked": size(locks.bytes),
            "of that in memory": size(locks.present),
            "lock budget": "-" if locks.limit is None else size(locks.limit),
            "with a note": locks.noted,
        },
    )


def _print_archives(archives: Mapping[str, Any], most: int) -> None:
    """Print rows for at most `most` archives, then the reasons of all archives."""
    notes: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    rows = []
    for path, told in archives.items():
        unpacked = told["unpacked"]
        index = told["index"] or told["index_reason"]
        in_memory = size(unpacked["bytes"])
        made = (unpacked["unpacked"], unpacked["given_up"], in_memory)
        rows.append((path, told["members"], index, told["index_reused"], *made))
        notes.update({reason: count for reason, count, _ in told["notes"]})
        failures.update(unpacked["reasons"])
    if not rows:
        return
    more = len(rows) - most
    title = f"archives (and {more} more: --json)" if more > 0 else "archives"
    print_table(title, _ARCHIVE_COLUMNS, rows[:most])
    _print_reasons("members of archives left out or changed", notes)
    _print_reasons("members that could not be decompressed", failures)


def _print_remotes(remotes: Mapping[str, Any]) -> None:
    """Print the counts of each remote source that are not zero."""
    for url, told in remotes.items():
        counts = {
            name.replace("_", " "): _remote_count(name, value)
            for name, value in told.items()
            if value and name not in ("workers", "request_latency", "by_driver")
        }
        for reason, reads in told.get("by_driver", {}).items():
            counts[f"read by the driver: {reason}"] = reads
        latency = told.get("request_latency", {})
        if latency.get("count"):
            for key, name in _QUANTILES.items():
                counts[f"time of a request, {name}"] = duration(latency[key])
        print_table(url, ("", ""), list(counts.items()))


def _remote_count(name: str, value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}"
    return size(value) if name.endswith("_bytes") and isinstance(value, int) else value


def _print_counts(title: str, counts: object) -> None:
    if isinstance(counts, Mapping) and counts:
        rows = sorted(counts.items(), key=lambda item: -item[1] if isinstance(item[1], int) else 0)
        print_table(f"{title}", ("", ""), rows)


def _print_reasons(title: str, counts: object) -> None:
    """Print counts by reason. The reason is a sentence, so it comes last."""
    if isinstance(counts, Mapping) and counts:
        rows = sorted(((count, reason) for reason, count in counts.items()), reverse=True)
        print_table(title, ("", ""), rows)


def _print_fallbacks(counts: object) -> None:
    if isinstance(counts, Mapping):
        _print_reasons("fallbacks", {reason_text(code): count for code, count in counts.items()})


def _print_threads(threads: Sequence[ThreadUsage]) -> None:
    columns = (
        "role",
        "tid",
        "minor faults",
        "major faults",
        "voluntary switches",
        "involuntary switches",
    )
    rows = [
        (
            t.role,
            str(t.tid),
            t.minor_faults,
            t.major_faults,
            t.voluntary_switches,
            t.involuntary_switches,
        )
        for t in threads
    ]
    print_table("threads", columns, rows)
