"""Limits locked memory: by the mount's budget, the process's limit and the machine's memory.

Any thread may call it. Each taker gives the same number of bytes back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from zcfuse.linux import lockable_bytes

_MEMINFO: Final = "/proc/meminfo"
_CGROUPS: Final = "/sys/fs/cgroup"
# Memory that stays free for other purposes. The kernel cannot reclaim locked pages, and without
# other pages it kills processes.
_RESERVE_SHARE: Final = 16
_MIB: Final = 1 << 20


class Budget(Protocol):
    """The data path's lock budget."""

    def take_lock_budget(self, bytes: int, /) -> bool:
        """Take so many, whole or not at all."""

    def give_lock_budget(self, bytes: int, /) -> None:
        """Give them back."""


class OwnBudget:
    """A lock budget for a mount without a data path."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._lock = threading.Lock()

    def take_lock_budget(self, bytes: int, /) -> bool:
        """Take so many, whole or not at all."""
        with self._lock:
            if bytes > self._left:
                return False
            self._left -= bytes
            return True

    def give_lock_budget(self, bytes: int, /) -> None:
        """Give them back."""
        with self._lock:
            self._left += bytes


class LockRoom:
    """Grants a number of bytes to lock, and counts them.

    Parameters:
        limit: the lock budget of the mount's options, in bytes; None: only the process's limit and
            the machine's memory limit the locks.
        budget: counts all locked bytes of the mount against the limit.
        lockable: returns the rest of RLIMIT_MEMLOCK in bytes; None: no limit.
        spare: returns the bytes that can be locked without harm to the machine.
    """

    def __init__(
        self,
        limit: int | None,
        budget: Budget,
        *,
        lockable: Callable[[], int | None] = lockable_bytes,
        spare: Callable[[], int] | None = None,
    ) -> None:
        self.limit: Final = limit
        self._budget = budget
        self._lockable = lockable
        self._spare = spare or spare_memory

    def take(self, size: int) -> str:
        """Take so many bytes; return "" or why that fails."""
        left = self._lockable()
        if left is not None and size > left:
            return (
                f"{_text(left)} left of the daemon's limit (RLIMIT_MEMLOCK):"
                " raise 'ulimit -l' before mounting, or mount as root"
            )
        spare = self._spare()
        if size > spare:
            return f"memory is short: {_text(spare)} can be locked without harm to the machine"
        if self.limit is not None and not self._budget.take_lock_budget(size):
            return (
                f"over the mount's lock budget of {_text(self.limit)}:"
                " mount with a larger --lock-budget"
            )
        return ""

    def give(self, size: int) -> None:
        """Give bytes back."""
        if self.limit is not None:
            self._budget.give_lock_budget(size)


def spare_memory() -> int:
    """Return the bytes that can still be locked, by /proc/meminfo and the cgroup's limit."""
    facts = _meminfo()
    spare = facts["MemAvailable"] - facts["MemTotal"] // _RESERVE_SHARE
    return max(0, min([spare, *_cgroup_spares()]))


def _meminfo() -> dict[str, int]:
    with open(_MEMINFO, encoding="ascii") as file:
        fields = (line.split() for line in file)
        return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}


def _cgroup_spares() -> list[int]:
    """Return the rest of the memory limits of the process's cgroup and its parents (v2)."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = next((line[3:].strip() for line in file if line.startswith("0::")), "/")
    except OSError:
        return []
    names = [name for name in own.split("/") if name]
    places = ["/".join([_CGROUPS, *names[:depth]]) for depth in range(len(names), 0, -1)]
    return [spare for place in places if (spare := _cgroup_spare(place)) is not None]


def _cgroup_spare(place: str) -> int | None:
    try:
        with open(f"{place}/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
        with open(f"{place}/memory.stat", encoding="ascii") as file:
            counted = {name: int(value) for name, value in (line.split() for line in file)}
        with open(f"{place}/memory.current", encoding="ascii") as file:
            used = int(file.read())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    clean = counted.get("inactive_file", 0) + counted.get("active_file", 0)
    return int(limit) - used + clean - int(limit) // _RESERVE_SHARE


def _text(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"
