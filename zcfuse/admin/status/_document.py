"""The status document of a daemon, and the messages of its status socket.

The protocol: the client sends one line of JSON (`Request`), the daemon answers with one line
(`Reply`) and closes. Only `thread_usage` does input: it reads ``/proc``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from zcfuse.admin._messages import (
    CacheReply,
    FileRange,
    LockReply,
    LockReport,
    UnlockReply,
)
from zcfuse.admin.explain import Explanation
from zcfuse.admin.trace import TraceReply

# A request names a few files of up to PATH_MAX bytes; a larger one is not from this program.
MAX_REQUEST_BYTES: Final = 1 << 19
# A status document has some kilobytes; this keeps a client from reading without end.
MAX_REPLY_BYTES: Final = 16 << 20
# How long a daemon may take to send or read a message, in seconds.
EXCHANGE_TIMEOUT_S: Final = 5.0

_TASKS: Final = "/proc/self/task"
# Fields 10 and 12 of /proc/PID/stat (proc_pid_stat(5)), counted from the one behind the command's
# name.
_MINOR_FAULTS: Final = 7
_MAJOR_FAULTS: Final = 9


class ThreadUsage(msgspec.Struct, frozen=True):
    """The kernel's counts for one thread of the daemon since the thread's start."""

    role: str
    tid: int
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int


class HotFile(msgspec.Struct, frozen=True):
    """A file with many requests; `path` starts at the mount point.

    Counting starts when the data path begins to watch the file, so the counts may be too low. The
    kernel answers READs under passthrough itself, so the counts leave them out.
    """

    path: str
    opens: int = 0
    reads: int = 0
    bytes: int = 0

    @property
    def requests(self) -> int:
        """The sum of OPENs and READs."""
        return self.opens + self.reads


class Restart(msgspec.Struct, frozen=True):
    """One change of the daemon: when the old one ended (seconds since 1970), why, for how long.

    ``cause`` is ``upgrade``, the name of a signal, or ``exit`` with a status; of a program ``left``
    or ``ended``. ``pause_s`` lasts from that end until the successor answers.
    """

    at: float
    cause: str
    pause_s: float


class Survival(msgspec.Struct, frozen=True):
    """The state of a mount that survives its daemon.

    ``generation`` counts the daemons, ``restarts`` those that ended unexpectedly. ``last`` has the
    latest changes, upgrades included. ``resent`` is how many requests the kernel sent again.
    ``program``: a program serves, which nobody but its user starts again.
    """

    generation: int
    restarts: int
    resent: int
    longest_pause_s: float
    last: list[Restart] = []
    program: bool = False


class StatusDocument(msgspec.Struct, frozen=True, tag="status"):
    """Everything ``zcfuse status`` shows; ``datapath`` is None for a naive mount.

    ``tree`` holds the tree's own figures, by section, then by name. ``locks`` are the files kept in
    memory; None without any. ``hot_files`` are the files with the most requests. ``metrics`` is the
    address for a scraper, or "". ``version`` is that of the daemon; the command's version differs
    after an upgrade of zcfuse. ``processes`` has the process ids by part: ``control``,
    ``datapath``, ``holder``. ``survival`` is None if the mount ends with its daemon.
    """

    pid: int
    source: str
    mountpoint: str
    device: str
    uptime_s: float
    options: dict[str, object]
    control: dict[str, object]
    datapath: dict[str, object] | None
    threads: list[ThreadUsage]
    tree: Mapping[str, Mapping[str, object]] = {}
    locks: LockReport | None = None
    hot_files: list[HotFile] = []
    metrics: str = ""
    version: str = ""
    processes: dict[str, int] = {}
    survival: Survival | None = None


class Request(msgspec.Struct, frozen=True):
    """A client's request; ``wait_s``: how long to wait for a busy mount or a fence, in seconds.

    None: as the mount's options say.

    ``files`` are the files of the request. "explain" takes one. "unlock" includes all files below
    directories, and without files it unlocks everything. ``reader`` names the reader of a trace.
    ``force``: whether an unmount detaches a mount that is still busy after the wait.
    """

    request: Literal[
        "status",
        "unmount",
        "explain",
        "lock",
        "unlock",
        "caches",
        "spare",
        "sync",
        "trace",
        "untrace",
        "renew",
        "hand_over",
    ]
    wait_s: float | None = None
    files: list[FileRange] = []
    force: bool = True
    reader: str = ""


class UnmountReply(msgspec.Struct, frozen=True, tag="unmounted"):
    """The outcome of the unmount; ``message`` is empty or one line for the user.

    ``busy``: a program uses the mount, which therefore stays.
    """

    failed: bool
    message: str
    busy: bool = False


class SyncReply(msgspec.Struct, frozen=True, tag="synced"):
    """Says whether the kernel knows of each change that returned before the request."""

    done: bool


class RenewReply(msgspec.Struct, frozen=True, tag="renewed"):
    """Says that a standby of the installed version waits; ``generation`` serves until it does."""

    generation: int


class Refusal(msgspec.Struct, frozen=True, tag="refused"):
    """The reason for no answer."""

    message: str


Reply = (
    StatusDocument
    | UnmountReply
    | SyncReply
    | RenewReply
    | Explanation
    | LockReply
    | UnlockReply
    | CacheReply
    | TraceReply
    | Refusal
)


def printable(path: str) -> str:
    """Return a file name as text that can be encoded; bytes outside of UTF-8 become ``\\xNN``."""
    return printable_bytes(os.fsencode(path))


def printable_bytes(path: bytes) -> str:
    """Return a file name in bytes as text, like `printable`."""
    return path.decode("utf-8", "backslashreplace")


def thread_usage(roles: Mapping[int, str]) -> list[ThreadUsage]:
    """Read the kernel's counts for each thread of this process.

    Parameters:
        roles: names by thread id; other threads keep their own names.
    """
    usage = []
    for name in sorted(os.listdir(_TASKS), key=int):
        try:
            usage.append(_usage_of(int(name), roles))
        except (OSError, ValueError, IndexError):
            # The thread ended after the listing.
            continue
    return usage


def _usage_of(tid: int, roles: Mapping[int, str]) -> ThreadUsage:
    with open(f"{_TASKS}/{tid}/stat", encoding="utf-8", errors="replace") as file:
        command, _, rest = file.read().partition("(")[2].rpartition(")")
    with open(f"{_TASKS}/{tid}/status", encoding="utf-8", errors="replace") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    fields = rest.split()
    return ThreadUsage(
        role=roles.get(tid, command),
        tid=tid,
        minor_faults=int(fields[_MINOR_FAULTS]),
        major_faults=int(fields[_MAJOR_FAULTS]),
        voluntary_switches=int(lines["voluntary_ctxt_switches"]),
        involuntary_switches=int(lines["nonvoluntary_ctxt_switches"]),
    )
