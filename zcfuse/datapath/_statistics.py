"""The ledger of the data path, with types.

`DataPath.statistics()` gives plain dictionaries; `Statistics.of()` checks and freezes them. Status,
audit and bench read this and nothing private. A snapshot is taken without stopping the threads that
count, so that two counters of one snapshot may be some requests apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from zcfuse.datapath._latency import Latencies

if TYPE_CHECKING:
    from ._native import DataPath


class Transport(msgspec.Struct, frozen=True):
    """The channel: `kind` is "dev", "uring" or "socket".

    `settled`: `kind` will not change any more. `reason`: why there is no ring, or "". `threads`
    read /dev/fuse, `cloned` of them from a descriptor of their own; clone_error is "" or why
    descriptors are shared. Of a ring: its `queues`, one a CPU, the `depth` of each in requests,
    `entries_busy` now, `queue_full` times that a queue had none left, `waits`: requests that waited
    for one, `handed_over`: replies given by another thread than the queue's, `ring_requests` taken
    in all, `unbound`: queues whose thread may not run on its CPU, `entries_refused`: entries that
    the kernel did not take, `reads_to_workers`: READs whose bytes were not in memory. The buffers
    of its entries take up to `bytes`, as they are used, of which `locked` are there and locked.
    `sched_idle`: its threads are SCHED_IDLE now, which keeps a client on its processor while the
    machine is quiet (sched(7)); `sched_idle_chosen`: times that they became so, `sched_idle_late`:
    times that it was given up because one had waited for a processor, `sched_idle_refused`: why it
    never is, or "".
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
    reads_to_workers: int = 0
    sched_idle: bool = False
    sched_idle_chosen: int = 0
    sched_idle_late: int = 0
    sched_idle_refused: str = ""


class Init(msgspec.Struct, frozen=True):
    """What INIT settled with the kernel. max_readahead and max_write are bytes.

    `zero_message_opens`: of an immutable mount, whether the kernel can do without OPEN and OPENDIR.
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
    """What one serving path did: all from the return values of its system calls.

    copied_in and copied_out are the bytes that system calls copied into and out of the daemon's
    memory, headers left out; `short` counts calls that moved less than asked before the end of the
    file, `refused` replies that the kernel did not want any more.
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
        """User-space copies per byte served; 0.0 where nothing was."""
        return (self.copied_in + self.copied_out) / self.bytes if self.bytes else 0.0


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
    """Directory leases: what the data path answers for names, attributes and opens by itself.

    `node_bytes` is what the table of `nodes` takes, names left out. `descriptors` of directories
    are cached, up to `descriptor_limit`; `hits` and `misses` count their look-ups, `reopened` the
    opens that found their file's lease. `archives` are those whose members are answered for, from
    `archive_bytes` of memory; `entries` of a program's own directories take `entry_bytes`.
    """

    leased: int = 0
    nodes: int = 0
    node_bytes: int = 0
    descriptors: int = 0
    descriptor_limit: int = 0
    hits: int = 0
    misses: int = 0
    listings: int = 0
    open_files: int = 0
    kept_files: int = 0
    reopened: int = 0
    archives: int = 0
    archive_bytes: int = 0
    entries: int = 0
    entry_bytes: int = 0


class Coherence(msgspec.Struct, frozen=True):
    """What is known of changes of the backing tree, where they are pushed to the kernel.

    `events` came from the `filesystems` that are watched; `unknown` of them concern files that the
    kernel does not know, `coalesced` ones that it has not asked for since the last push. `pushes`
    were sent; `overflows` of the kernel's queue, and queues of ours that grew too long, made
    `epochs`, in which the kernel asks again for all. `left_out` are names on or above somebody
    else's mount. `latency_sum_ns` and `latency_worst_ns` are from an event to its push.
    `schedule_errno`: why the watcher is not SCHED_FIFO, 0 where it is. `refused` counts leases
    whose changes are not pushed, by reason: ``not_permitted`` (watching a filesystem needs
    CAP_SYS_ADMIN), ``filesystem`` (its type does not report each change), ``queue`` (fanotify
    failed).
    """

    filesystems: int
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
    schedule_errno: int
    refused: dict[str, int]


class Thread(msgspec.Struct, frozen=True):
    """A thread of the data path: its role (serve, ring, read, relay, notify, prefault) and id."""

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
