"""The ledger of the data path, with types.

`DataPath.statistics()` gives plain dictionaries; `Statistics.of()` checks and freezes them. Status,
audit and bench read only this. Threads go on counting while a snapshot is taken, so two counters of
one snapshot may be some requests apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from zcfuse.datapath._latency import Latencies

if TYPE_CHECKING:
    from ._native import DataPath


class Transport(msgspec.Struct, frozen=True):
    """The channel: `kind` is "dev", "uring" or "socket".

    - `settled`: `kind` is final.
    - `reason`: why the mount has no ring, or "".
    - `threads`: threads that read /dev/fuse; `cloned` of them have a separate descriptor.
    - `clone_error`: why threads share a descriptor, or "".
    - `queues`: the ring's queues, one per CPU; each can hold `depth` requests.
    - `entries_busy`: entries in use now; `queue_full` counts times that a queue had no free entry.
    - `waits`: requests that waited for a free entry.
    - `handed_over`: replies that another thread than the queue's gave.
    - `ring_requests`: requests that came over the ring.
    - `unbound`: queues whose thread may not run on its CPU.
    - `entries_refused`: entries that the kernel refused.
    - `bytes`: limit of the entries' buffers, which grow with use; `locked` bytes are in memory.
    - `sched_idle`: the ring's threads are SCHED_IDLE now, which keeps a client on its processor
      while the machine is quiet (sched(7)).
    - `sched_idle_chosen`: times that the threads became SCHED_IDLE.
    - `sched_idle_late`: times that they stopped, because one had waited for a processor.
    - `sched_idle_refused`: why they never are SCHED_IDLE, or "".
    """

    kind: str
    threads: int
    cloned: int
    clone_error: str
    pipe_slots: int
    settled: bool = True
    reason: str = ""
    queues: int = 0
    depth: int = 0
    entries_busy: int = 0
    queue_full: int = 0
    waits: int = 0
    handed_over: int = 0
    ring_requests: int = 0
    bytes: int = 0
    locked: int = 0
    unbound: int = 0
    entries_refused: int = 0
    sched_idle: bool = False
    sched_idle_chosen: int = 0
    sched_idle_late: int = 0
    sched_idle_refused: str = ""


class Init(msgspec.Struct, frozen=True):
    """The result of INIT, negotiated with the kernel. max_readahead and max_write are bytes.

    `zero_message_opens`: whether an immutable mount may open files without OPEN and OPENDIR.
    """

    done: bool
    minor: int
    flags: list[str]
    max_pages: int
    max_readahead: int
    max_background: int
    max_write: int
    passthrough: bool
    stack_depth: int
    zero_message_opens: bool = False


class PathCounts(msgspec.Struct, frozen=True):
    """The counters of one serving path, from the return values of its system calls.

    System calls copied `copied_in` bytes into the daemon's memory and `copied_out` bytes out of it,
    without headers. `short` counts calls that moved too few bytes before the end of the file,
    `refused` counts replies that the kernel refused.
    """

    requests: int = 0
    bytes: int = 0
    copied_in: int = 0
    copied_out: int = 0
    calls: int = 0
    short: int = 0
    errors: int = 0
    refused: int = 0

    @property
    def copies_per_byte(self) -> float:
        """User-space copies per byte served; 0.0 if no byte was served."""
        return (self.copied_in + self.copied_out) / self.bytes if self.bytes else 0.0

    def plus(self, other: PathCounts, sign: int = 1) -> PathCounts:
        """Return the sum of each counter, or the difference for `sign` -1."""
        return PathCounts(
            **{
                name: getattr(self, name) + sign * getattr(other, name)
                for name in PathCounts.__struct_fields__
            }
        )


class Pool(msgspec.Struct, frozen=True):
    """The serving threads' buffers; `bytes` and `locked` in bytes."""

    buffers: int
    bytes: int
    locked: int


class Windows(msgspec.Struct, frozen=True):
    """Mapped windows; `bytes` and `locked` in bytes, the rest are counts."""

    count: int
    bytes: int
    locked: int
    hits: int
    misses: int
    ahead: int
    evictions: int
    unlocked: int
    unpopulated: int


class Directories(msgspec.Struct, frozen=True):
    """Directory leases: the data path answers for names, attributes and opens below them.

    The table of `nodes` takes `node_bytes`, without names. The cache of directories holds
    `descriptors` of at most `descriptor_limit`; `hits` and `misses` count its look-ups. `reopened`
    counts opens that found their file's lease. The indexes of `archives` take `archive_bytes`; the
    `entries` of programs' directories take `entry_bytes`.

    Listings of merged directories hold `snapshots` of names, in `snapshot_bytes`.
    `snapshots_made` counts all snapshots, `snapshots_shared` the listings that took another one's,
    `snapshots_refused` the listings (ENOMEM) of users whose snapshots took too many bytes.
    `listings_waited` counts READDIRs that a thread for listings answered.
    """

    leased: int = 0
    nodes: int = 0
    node_bytes: int = 0
    descriptors: int = 0
    descriptor_limit: int = 0
    hits: int = 0
    misses: int = 0
    listings: int = 0
    snapshots: int = 0
    snapshot_bytes: int = 0
    snapshots_made: int = 0
    snapshots_shared: int = 0
    snapshots_refused: int = 0
    listings_waited: int = 0
    open_files: int = 0
    kept_files: int = 0
    reopened: int = 0
    archives: int = 0
    archive_bytes: int = 0
    entries: int = 0
    entry_bytes: int = 0


class Coherence(msgspec.Struct, frozen=True):
    """Changes of the backing tree, and their pushes to the kernel.

    - `events`: changes reported by the `filesystems` watched. `unknown` of them concern files that
      the kernel does not know. `coalesced` of them concern files that the kernel has not asked for
      since the last push.
    - `directories`: those whose names are watched, where a filesystem may not be.
    - `pushes`: invalidations sent to the kernel.
    - `overflows`: full queues, the kernel's or the data path's. Each begins one of the `epochs`, in
      which the kernel asks for everything again.
    - `left_out`: names on or above a foreign mount.
    - `latency_sum_ns`, `latency_worst_ns`: time from an event to its push.
    - `read_leases`: files that the data path has a lease on now. `broken_leases`: those that ended
      because another process opened the file for writing.
    - `schedule_errno`: why the watcher is not SCHED_FIFO, or 0.
    - `refused`: leases without pushes, or with those of names alone, by the code of the reason;
      for `push_no_watch` the directories.
    """

    filesystems: int
    directories: int
    events: int
    unknown: int
    coalesced: int
    overflows: int
    pushes: int
    epochs: int
    left_out: int
    longest_queue: int
    latency_sum_ns: int
    latency_worst_ns: int
    read_leases: int
    broken_leases: int
    schedule_errno: int
    refused: dict[str, int]


class Thread(msgspec.Struct, frozen=True):
    """A data path thread: its id, and its role, such as serve, ring, read, list or relay."""

    role: str
    tid: int


class Statistics(msgspec.Struct, frozen=True):
    """A snapshot of the data path's ledger."""

    transport: Transport
    init: Init
    requests: dict[str, int]
    upcalls: dict[str, int]
    upcalls_out: int
    upcalls_overflow: int
    upcalls_given_up: int
    upcalls_late: int
    upcalls_waiting: int
    notifications: int
    interrupts: int
    reads_waited: int
    malformed: int
    paths: dict[str, PathCounts]
    latency: Latencies
    opens: dict[str, int]
    fallbacks: dict[str, int]
    leases: int
    directories: Directories
    pool: Pool
    windows: Windows
    lock_budget: tuple[int, int]
    threads: list[Thread]
    uptime_ns: int
    coherence: Coherence | None = None

    @classmethod
    def of(cls, path: DataPath) -> Statistics:
        """Take a snapshot of a data path."""
        return msgspec.convert(path.statistics(), cls)
