"""The status document: what a daemon tells about itself, and the messages of its status socket.

The protocol: the client sends one line of JSON (`Request`), the daemon answers with one line
(`Reply`) and closes. Nothing here does input or output
except `thread_usage`, which reads ``/proc``.
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

# A request names a few files of up to PATH_MAX bytes; whoever sends more is not our client.
MAX_REQUEST_BYTES: Final = 1 << 19
# A status document has some kilobytes; the bound keeps a client from reading for ever.
MAX_REPLY_BYTES: Final = 16 << 20
# For how long a daemon may take to send or read a message, in seconds.
EXCHANGE_TIMEOUT_S: Final = 5.0

_TASKS: Final = "/proc/self/task"
# Fields 10 and 12 of /proc/PID/stat (proc_pid_stat(5)), counted from the one behind the command's
# name.
_MINOR_FAULTS: Final = 7
_MAJOR_FAULTS: Final = 9


class ThreadUsage(msgspec.Struct, frozen=True):
    """What the kernel counted for one thread of the daemon since it began."""

    role: str
    tid: int
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int


class HotFile(msgspec.Struct, frozen=True):
    """A file that is asked for often; `path` is from the mount point.

    Counted since the file came among those that are watched, so it may be less than there was. The
    READs of a file in passthrough are the kernel's, and are not seen.
    """

    path: str
    opens: int = 0
    reads: int = 0
    bytes: int = 0

    @property
    def requests(self) -> int:
        """OPENs and READs."""
        return self.opens + self.reads


class StatusDocument(msgspec.Struct, frozen=True, tag="status"):
    """Everything ``zcfuse status`` shows; ``datapath`` is None for a naive mount.

    ``tree`` is what the tree has to tell: by section, then by name. ``locks`` are the files that
    are kept in memory, None where there are none. ``hot_files`` are those that are asked for most,
    and ``metrics`` is where a scraper is listened for, "" where it is not. ``version`` is that of
    the daemon, which is not that of the command where zcfuse was upgraded since the mount.
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


class Request(msgspec.Struct, frozen=True):
    """What a client asks; ``wait_s``: how long a busy mount or a fence is waited for, in seconds.

    None: as the mount has it.

    ``files`` are those to explain (one), to lock, to unlock with all that is below them (none: all
    that is locked), to tell the cache state of, or to drop from the cache behind the mount.
    ``force``: whether an unmount detaches a mount that is still busy after the wait.
    """

    request: Literal["status", "unmount", "explain", "lock", "unlock", "caches", "spare", "sync"]
    wait_s: float | None = None
    files: list[FileRange] = []
    force: bool = True


class UnmountReply(msgspec.Struct, frozen=True, tag="unmounted"):
    """How the unmount went; ``message`` is empty or one line for the user.

    ``busy``: somebody uses the mount, which therefore stays.
    """

    failed: bool
    message: str
    busy: bool = False


class SyncReply(msgspec.Struct, frozen=True, tag="synced"):
    """Whether each change that returned before the request is known to the kernel."""

    done: bool


class Refusal(msgspec.Struct, frozen=True, tag="refused"):
    """Why there is no answer."""

    message: str


Reply = (
    StatusDocument
    | UnmountReply
    | SyncReply
    | Explanation
    | LockReply
    | UnlockReply
    | CacheReply
    | Refusal
)


def printable(path: str) -> str:
    """Return a file name as text that can be encoded: bytes that are no UTF-8 become ``\\xNN``."""
    return printable_bytes(os.fsencode(path))


def printable_bytes(path: bytes) -> str:
    """Return a file name in bytes as text, like `printable`."""
    return path.decode("utf-8", "backslashreplace")


def thread_usage(roles: Mapping[int, str]) -> list[ThreadUsage]:
    """Read what the kernel counted for each thread of this process.

    Parameters:
        roles: names by thread id; others are called by what they call themselves.
    """
    usage = []
    for name in sorted(os.listdir(_TASKS), key=int):
        try:
            usage.append(_usage_of(int(name), roles))
        except (OSError, ValueError, IndexError):
            # The thread ended between the listing and the reading.
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
