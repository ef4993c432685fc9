"""The kernel's counts for one process: io, faults, context switches and CPU time.

`/proc/PID/io` counts the return values of read and write calls of every thread, past and present.
It omits splice, vmsplice, sendmsg and recvmsg, and counts sendfile once on each side (proc(5)).
Reading it needs ptrace(2) permission on the process: the same user without extra capabilities, or
CAP_SYS_PTRACE.
"""

import os
import time
from collections.abc import Mapping

import msgspec

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_NS = 1_000_000_000


class IoCounts(msgspec.Struct, frozen=True):
    """Bytes and calls (`syscr`, `syscw`) from `/proc/PID/io`."""

    rchar: int
    wchar: int
    syscr: int
    syscw: int
    read_bytes: int
    write_bytes: int


class ThreadUsage(msgspec.Struct, frozen=True):
    """One thread's page faults, context switches and CPU time (resolution: a clock tick)."""

    tid: int
    name: str
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int
    cpu_ns: int

    @property
    def faults(self) -> int:
        """Minor and major faults together."""
        return self.minor_faults + self.major_faults

    @property
    def switches(self) -> int:
        """Context switches of either kind."""
        return self.voluntary_switches + self.involuntary_switches


class ProcessUsage(msgspec.Struct, frozen=True):
    """The kernel's counts for a process: since it started, or between two snapshots.

    `minor_faults` and `major_faults` include ended threads; `threads` are those alive at the later
    snapshot. `cpu_ns` comes from the process's CPU clock, in nanoseconds.
    """

    pid: int
    time_ns: int
    cpu_ns: int
    minor_faults: int
    major_faults: int
    io: IoCounts
    threads: tuple[ThreadUsage, ...]

    @property
    def faults(self) -> int:
        """Minor and major faults of the whole process."""
        return self.minor_faults + self.major_faults

    @property
    def switches(self) -> int:
        """Context switches of the live threads."""
        return sum(thread.switches for thread in self.threads)

    def since(self, earlier: "ProcessUsage") -> "ProcessUsage":
        """The counts since `earlier`; raises ValueError for another process's snapshot."""
        if earlier.pid != self.pid:
            raise ValueError(f"snapshots of two processes: {earlier.pid} and {self.pid}")
        before = {thread.tid: thread for thread in earlier.threads}
        return ProcessUsage(
            pid=self.pid,
            time_ns=self.time_ns - earlier.time_ns,
            cpu_ns=self.cpu_ns - earlier.cpu_ns,
            minor_faults=self.minor_faults - earlier.minor_faults,
            major_faults=self.major_faults - earlier.major_faults,
            io=_io_difference(self.io, earlier.io),
            threads=tuple(
                _thread_difference(thread, before.get(thread.tid)) for thread in self.threads
            ),
        )

    def faults_of(self, tids: frozenset[int] | set[int]) -> int:
        """Faults of the threads in `tids`, for instance those that serve requests."""
        return sum(thread.faults for thread in self.threads if thread.tid in tids)


def _io_difference(later: IoCounts, earlier: IoCounts) -> IoCounts:
    return IoCounts(
        **{
            name: getattr(later, name) - getattr(earlier, name)
            for name in IoCounts.__struct_fields__
        }
    )


def _thread_difference(later: ThreadUsage, earlier: ThreadUsage | None) -> ThreadUsage:
    if earlier is None:
        return later
    return ThreadUsage(
        tid=later.tid,
        name=later.name,
        minor_faults=later.minor_faults - earlier.minor_faults,
        major_faults=later.major_faults - earlier.major_faults,
        voluntary_switches=later.voluntary_switches - earlier.voluntary_switches,
        involuntary_switches=later.involuntary_switches - earlier.involuntary_switches,
        cpu_ns=later.cpu_ns - earlier.cpu_ns,
    )


def parse_io(text: str) -> IoCounts:
    """Parse the text of `/proc/PID/io`."""
    fields = dict(_pairs(text))
    return IoCounts(**{name: int(fields[name]) for name in IoCounts.__struct_fields__})


def parse_thread(tid: int, stat: str, status: str) -> ThreadUsage:
    """Make a `ThreadUsage` of a thread's `stat` and `status`.

    The name in `stat` is in parentheses and may contain spaces and parentheses, so fields count
    from the last one (proc(5): minflt 10, majflt 12, utime 14, stime 15).
    """
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    switches = dict(_pairs(status))
    return ThreadUsage(
        tid=tid,
        name=name,
        minor_faults=int(fields[7]),
        major_faults=int(fields[9]),
        voluntary_switches=int(switches.get("voluntary_ctxt_switches", 0)),
        involuntary_switches=int(switches.get("nonvoluntary_ctxt_switches", 0)),
        cpu_ns=(int(fields[11]) + int(fields[12])) * (_NS // _CLOCK_TICKS),
    )


def _pairs(text: str) -> list[tuple[str, str]]:
    lines = (line.partition(":") for line in text.splitlines())
    return [(key.strip(), value.strip()) for key, colon, value in lines if colon]


def read_usage(pid: int) -> ProcessUsage:
    """Take a snapshot of process `pid`.

    Raises ProcessLookupError or FileNotFoundError if the process does not exist, PermissionError if
    this user may not read its `io`.
    """
    base = f"/proc/{pid}"
    whole = parse_thread(pid, _read(f"{base}/stat"), "")
    return ProcessUsage(
        pid=pid,
        time_ns=time.monotonic_ns(),
        cpu_ns=process_cpu_ns(pid),
        minor_faults=whole.minor_faults,
        major_faults=whole.major_faults,
        io=parse_io(_read(f"{base}/io")),
        threads=tuple(_threads(pid)),
    )


def _threads(pid: int) -> list[ThreadUsage]:
    found = []
    for tid in thread_ids(pid):
        base = f"/proc/{pid}/task/{tid}"
        try:
            found.append(parse_thread(tid, _read(f"{base}/stat"), _read(f"{base}/status")))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended after the listing
    return found


def thread_ids(pid: int) -> list[int]:
    """The thread ids of `pid`, in order."""
    return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))


def process_cpu_ns(pid: int) -> int:
    """CPU time of all threads of `pid`, past and present, in nanoseconds.

    The clock id is that of clock_getcpuclockid(3): the complement of the pid above three flag
    bits, of which 2 selects the scheduler's clock.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def roles_of(threads: object) -> Mapping[int, str]:
    """The roles by thread id in the `threads` list of a status document."""
    if not isinstance(threads, list | tuple):
        return {}
    return {
        int(item["tid"]): str(item.get("role", ""))
        for item in threads
        if isinstance(item, Mapping) and "tid" in item
    }


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
