"""The capabilities of a process, and whether they hold in the first user namespace.

Each call reads ``/proc``, since a process may drop its capabilities. Any thread may call it.
"""

from __future__ import annotations

import resource
from enum import IntEnum
from typing import Final

# The whole range of ids mapped onto itself: user_namespaces(7).
_INITIAL_UID_MAP: Final = ["0", "0", "4294967295"]


class Capability(IntEnum):
    """The numbers of capabilities(7) that matter here."""

    IPC_LOCK = 14
    SYS_ADMIN = 21
    SYS_RESOURCE = 24


def has_capability(capability: Capability) -> bool:
    """Whether the capability is in this thread's effective set, in whatever user namespace."""
    return bool(_effective_capabilities() >> capability & 1)


def process_may_administer(pid: int) -> bool:
    """Whether a process has CAP_SYS_ADMIN for the whole machine; False for one that is gone."""
    try:
        effective = _effective_capabilities(str(pid))
        return bool(effective >> Capability.SYS_ADMIN & 1) and _in_initial_user_namespace(str(pid))
    except OSError:
        return False


def has_initial_capability(capability: Capability) -> bool:
    """Whether the capability is effective and counts for the whole machine.

    FUSE passthrough (``FUSE_DEV_IOC_BACKING_OPEN``) and mlock past the limit need it in the first
    user namespace. Root in a container with a separate user namespace lacks it.
    """
    return has_capability(capability) and _in_initial_user_namespace()


def _effective_capabilities(pid: str = "self") -> int:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _in_initial_user_namespace(pid: str = "self") -> bool:
    try:
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as uid_map:
            return uid_map.read().split() == _INITIAL_UID_MAP
    except FileNotFoundError:
        # A kernel without user namespaces has only the first one.
        return True


def lockable_bytes() -> int | None:
    """Return the bytes that this process may still lock (hard RLIMIT_MEMLOCK); None: no limit."""
    if has_initial_capability(Capability.IPC_LOCK):
        return None
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY:
        return None
    return max(0, hard - _locked_bytes())


def _locked_bytes() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmLck:"):
                return int(line.split()[1]) * 1024
    return 0
