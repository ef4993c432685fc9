"""The experiment behind `zcfuse copies`: the same bytes by every serving path and natively.

For each path: mount, read once cold, empty the mount's cache, count while reading again, compare
the bytes, unmount. A path that this machine lacks becomes a row with its reason.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from zcfuse.admin.status import StatusDocument, StatusError, read_status
from zcfuse.audit import (
    CLASSIC,
    CopyModel,
    CountUnavailableError,
    Ledger,
    PathCounts,
    ProcessUsage,
    RequestCounter,
    TracepointCounter,
    cached_twice,
    cachestat,
    compare,
    count_system_calls,
    ledger_of,
    model_of,
    native_model,
    read_usage,
    roles_of,
)
from zcfuse.bench._clients import ClientError, ClientProcess, Timing, client
from zcfuse.bench._daemons import MountFailedError, RunningMount, running, zcfuse_command
from zcfuse.bench._sources import SourceFile
from zcfuse.reasons import reason_text

READ_BLOCK: Final = 1 << 20
_GB: Final = 1e9
_NS: Final = 1e9
_ANSWER_DEADLINE_S: Final = 10.0
_POLL_S: Final = 0.02
# If another path served this share of the bytes, the row notes it, or has only a reason.
_OTHER_PATH_SHARE: Final = 0.001
_NO_LONGER_ITS_PATH: Final = 0.5
Progress = Callable[[str], None]


class Case(msgspec.Struct, frozen=True):
    """One row: its name, and the options and environment of its `zcfuse mount`."""

    name: str
    path: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = {}


CASES: Final = (
    Case("naive", "naive"),
    Case("upcall", "upcall"),
    Case("pool", "pool"),
    Case("pool, no prefault", "pool", ("--no-prefault", "--lock-budget", "0")),
    Case("mmap", "mmap"),
    Case("splice", "splice"),
    Case("passthrough", "passthrough"),
)


class Counted(msgspec.Struct, frozen=True):
    """Counts of one row. Numbers of events are for one pass over the file, so for `size` bytes.

    None means that a count was unavailable; the row's `notes` say why. Copies are per byte that the
    client received. Faults are those of the serving threads, in the first pass and in a later one.
    """

    ledger_copied_in: float
    ledger_copied_out: float
    audit_copied_in: float
    audit_copied_out: float
    served: float
    ledger_reads: float
    kernel_reads: float | None
    kernel_requests: float | None
    system_calls: float | None
    ledger_calls: float
    first_faults: int
    faults: float
    switches: float
    cpu_s_per_gb: float
    cached_twice: int | None

    @property
    def ledger_copies(self) -> float:
        """User-space copies per byte by the daemon's count."""
        return self.ledger_copied_in + self.ledger_copied_out

    @property
    def audit_copies(self) -> float:
        """User-space copies per byte by the kernel's count."""
        return self.audit_copied_in + self.audit_copied_out


class Speed(msgspec.Struct, frozen=True):
    """GB (10^9 bytes) per second over the rounds."""

    median: float
    least: float
    most: float


class Row(msgspec.Struct, frozen=True):
    """The result of one path: throughput (median of the rounds) and counts, or the reason for
    neither.

    `paths` is the ledger of the counted passes, by the path that served. If another path served
    some bytes, `notes` say why.
    """

    name: str
    reason: str = ""
    speed: Speed | None = None
    counted: Counted | None = None
    model: CopyModel | None = None
    identical: bool | None = None
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    paths: dict[str, PathCounts] = {}

    @property
    def failed(self) -> bool:
        """Whether the bytes were wrong or the two counts disagree."""
        return self.identical is False or bool(self.differences)


class Report(msgspec.Struct, frozen=True):
    """All rows, starting with the native one."""

    source: str
    size: int
    rounds: int
    kernel: str
    note: str
    rows: tuple[Row, ...]
    classic: CopyModel = CLASSIC

    @property
    def failed(self) -> bool:
        """Whether any row failed; a missing path did not."""
        return any(row.failed for row in self.rows)


class _Window(msgspec.Struct, frozen=True):
    """The difference between two points in time, on each side; fallbacks count since the mount."""

    ledger: Ledger
    fallbacks: Mapping[str, int]
    usage: ProcessUsage
    requests: Mapping[str, int] | None
    system_calls: int | None
    timings: list[Timing]


def run_copies(
    source: SourceFile, rounds: int, progress: Progress, cases: Sequence[Case] = CASES
) -> Report:
    """Measure natively and by every case; an unavailable path raises nothing.

    Raises `ClientError` if the file itself cannot be read.
    """
    progress("native")
    native, digest = _measure_native(source, rounds)
    rows = [native]
    for case in cases:
        progress(case.name)
        rows.append(_measure_case(case, source, digest, rounds))
    progress("")
    return Report(
        source=source.path,
        size=source.size,
        rounds=rounds,
        kernel=os.uname().release,
        note=source.note,
        rows=tuple(rows),
    )


def _measure_native(source: SourceFile, rounds: int) -> tuple[Row, str]:
    with client() as reader:
        reader.ask("open", path=source.path)
        digest = str(reader.ask("digest", size=source.size))  # also fills the page cache
        timings = [_read(reader, source) for _ in range(rounds)]
    return Row("native", model=native_model(), identical=True, speed=_speed(timings)), digest


def _read(reader: ClientProcess, source: SourceFile) -> Timing:
    timing = reader.time("read", size=source.size, block=READ_BLOCK)
    if timing.bytes != source.size:
        raise ClientError(f"{timing.bytes} bytes read, {source.size} expected")
    return timing


def _speed(timings: Sequence[Timing]) -> Speed:
    speeds = [timing.gb_per_s for timing in timings]
    return Speed(statistics.median(speeds), min(speeds), max(speeds))


def _measure_case(case: Case, source: SourceFile, digest: str, rounds: int) -> Row:
    # Over io_uring all paths of the daemon become one, so there is nothing to compare.
    options = ["--path", case.path, "--transport", "dev", *case.options]
    command = zcfuse_command(source.root, source.mountpoint, options)
    try:
        with (
            running(command, source.mountpoint, case.environment) as mount,
            client() as reader,
        ):
            return _measure_mount(case, source, mount, reader, digest, rounds)
    except (MountFailedError, ClientError, StatusError, OSError) as error:
        return Row(case.name, reason=str(error))


def _measure_mount(
    case: Case,
    source: SourceFile,
    mount: RunningMount,
    reader: ClientProcess,
    digest: str,
    rounds: int,
) -> Row:
    """Measure one row on a new mount, which is idle before each snapshot."""
    notes: list[str] = []
    serving = _serving_threads(mount, _first_status(mount))
    begin = read_usage(mount.pid)
    reader.ask("open", path=mount.path(source.name))
    _read(reader, source)
    first = read_usage(mount.pid).since(begin)
    window = _count(mount, reader, source, rounds, notes)
    identical = reader.ask("digest", size=source.size) == digest
    twice = _cached_twice(source, reader, notes)
    counted = _counted(window, first, serving, twice, source.size)
    requests = dict(window.requests) if window.requests is not None else None
    comparison = compare(window.ledger, window.usage.io, requests)
    otherwise, share = _served_otherwise(case.path, window)
    if share > _NO_LONGER_ITS_PATH:
        return Row(case.name, reason=otherwise, identical=identical, paths=window.ledger.paths)
    if share > _OTHER_PATH_SHARE:
        notes.append(otherwise)
    return Row(
        case.name,
        speed=_speed(window.timings),
        counted=counted,
        model=model_of(
            case.name, counted.ledger_copied_in, counted.ledger_copied_out, counted.served
        ),
        identical=identical,
        differences=tuple(comparison.differences()),
        notes=tuple(notes),
        paths=window.ledger.paths,
    )


def _first_status(mount: RunningMount) -> StatusDocument:
    """Wait until the daemon answers: the kernel shows the mount before the socket exists."""
    deadline = time.monotonic() + _ANSWER_DEADLINE_S
    while True:
        try:
            return read_status(mount.mountpoint)
        except StatusError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _serving_threads(mount: RunningMount, status: StatusDocument) -> set[int]:
    """The threads whose faults delay a reader; all threads without a data path."""
    roles = roles_of((status.datapath or {}).get("threads"))
    serving = {tid for tid, role in roles.items() if role == "serve"}
    return serving or {thread.tid for thread in read_usage(mount.pid).threads}


def _count(
    mount: RunningMount,
    reader: ClientProcess,
    source: SourceFile,
    rounds: int,
    notes: list[str],
) -> _Window:
    """Read the file `rounds` times, each time with an empty mount cache, and count meanwhile.

    The ledger's interval encloses the kernel's, because reading the ledger costs the daemon a few
    calls.
    """
    with contextlib.ExitStack() as stack:
        ledger = ledger_of(read_status(mount.mountpoint))
        requests = _request_counter(mount, stack, notes)
        calls = _call_counter(mount, stack, notes)
        usage = read_usage(mount.pid)
        timings = []
        for _ in range(rounds):
            reader.ask("drop")
            timings.append(_read(reader, source))
        after = read_usage(mount.pid)
        last = ledger_of(read_status(mount.mountpoint))
        return _Window(
            fallbacks=last.fallbacks,
            requests=requests.count() if requests is not None else None,
            system_calls=calls.count() if calls is not None else None,
            usage=after.since(usage),
            ledger=last.since(ledger),
            timings=timings,
        )


def _request_counter(
    mount: RunningMount, stack: contextlib.ExitStack, notes: list[str]
) -> RequestCounter | None:
    try:
        return stack.enter_context(RequestCounter(mount.device))
    except CountUnavailableError as error:
        notes.append(f"requests by the kernel: {error}")
        return None


def _call_counter(
    mount: RunningMount, stack: contextlib.ExitStack, notes: list[str]
) -> TracepointCounter | None:
    try:
        return stack.enter_context(count_system_calls(mount.pid))
    except CountUnavailableError as error:
        notes.append(f"system calls by the kernel: {error}; the table shows the ledger's count")
        return None


def _cached_twice(source: SourceFile, reader: ClientProcess, notes: list[str]) -> int | None:
    try:
        mounted = reader.ask("cached")
        fd = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            backing = cachestat(fd, length=source.size)
        finally:
            os.close(fd)
    except (ClientError, OSError) as error:
        notes.append(f"cachestat: {error}")
        return None
    assert isinstance(mounted, int)  # the client's answer to `cached`
    return min(cached_twice(backing.cached_bytes, mounted), source.size)


def _counted(
    window: _Window, first: ProcessUsage, serving: set[int], twice: int | None, size: int
) -> Counted:
    rounds = len(window.timings)
    total = rounds * size
    ledger, usage, requests = window.ledger, window.usage, window.requests
    return Counted(
        ledger_copied_in=ledger.copied_in / total,
        ledger_copied_out=ledger.copied_out / total,
        audit_copied_in=usage.io.rchar / total,
        audit_copied_out=usage.io.wchar / total,
        served=ledger.bytes / total,
        ledger_reads=ledger.reads / rounds,
        kernel_reads=requests["READ"] / rounds if requests is not None else None,
        kernel_requests=requests[""] / rounds if requests is not None else None,
        system_calls=window.system_calls / rounds if window.system_calls is not None else None,
        ledger_calls=ledger.calls / rounds,
        first_faults=first.faults_of(serving),
        faults=usage.faults_of(serving) / rounds,
        switches=usage.switches / rounds,
        cpu_s_per_gb=usage.cpu_ns / _NS / (total / _GB),
        cached_twice=twice,
    )


def _served_otherwise(path: str, window: _Window) -> tuple[str, float]:
    """Return which other paths served bytes, with the recorded reasons, and their share."""
    others = {
        name: counts.bytes
        for name, counts in window.ledger.paths.items()
        if name != path and counts.bytes
    }
    share = sum(others.values()) / sum(timing.bytes for timing in window.timings)
    reasons = [
        f"{reason_text(reason)} ({count})" for reason, count in window.fallbacks.items() if count
    ]
    by = ", ".join(f"{name} {size} bytes" for name, size in others.items())
    because = f"; because: {', '.join(reasons)}" if reasons else ""
    return f"served by another path: {by}{because}", share
