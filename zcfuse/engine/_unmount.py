"""Unmounting what the kernel serves: within a bounded time, then lazily."""

from __future__ import annotations

from zcfuse.admin import UnmountOutcome, unmount_within
from zcfuse.engine._records import KernelServed, forget
from zcfuse.linux import unmount


class _Served:
    """A mount as `unmount_within` takes it."""

    def __init__(self, served: KernelServed) -> None:
        self.mountpoint = served.entry.mountpoint

    def unmount(self) -> None:
        """Unmount, or raise OSError(EBUSY)."""
        unmount(self.mountpoint)

    def abandon(self) -> None:
        """Detach the mount although it is busy; who has files open keeps them."""
        unmount(self.mountpoint, lazy=True)


def unmount_kernel(served: KernelServed, wait: float, *, force: bool) -> UnmountOutcome:
    """Unmount; with `force` a mount that is busy after `wait` seconds is detached lazily.

    Returns:
        How it went. Nothing is raised.
    """
    outcome = unmount_within(_Served(served), wait, force=force)
    if outcome.failed:
        return outcome
    forget(served.entry)
    if not outcome.lazy:
        return outcome
    message = (
        f"{served.entry.mountpoint}: was busy (waited {wait:g} s), so it was detached lazily:"
        " programs that still use it keep it until they end"
    )
    return UnmountOutcome(lazy=True, failed=False, message=message)
