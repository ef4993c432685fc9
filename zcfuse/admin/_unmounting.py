"""Unmounts within a bounded time: first regularly, then lazily.

The functions block and need no event loop, so that the daemon (in a worker thread) and ``zcfuse
umount`` share them.
"""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import dataclass
from typing import Final, Protocol

from zcfuse.linux import MountError

_RETRY_S: Final = 0.1


class Unmountable(Protocol):
    """The part of `zcfuse.linux._mounting.KernelMount` that this module needs."""

    @property
    def mountpoint(self) -> str:
        """The mount point, for messages."""

    def unmount(self) -> None:
        """Unmount, or raise OSError(EBUSY)."""

    def abandon(self) -> None:
        """Detach the mount even if it is busy, and end the connection."""


@dataclass(frozen=True, slots=True)
class UnmountOutcome:
    """The outcome of an unmount: ``message`` is empty, or one line for the user.

    ``busy``: it failed only because a program uses the mount.
    """

    lazy: bool
    failed: bool
    message: str
    busy: bool = False


def unmount_within(
    mount: Unmountable,
    wait: float,
    hurry: threading.Event | None = None,
    *,
    force: bool = True,
) -> UnmountOutcome:
    """Unmount. If the mount is busy after *wait* seconds, detach it and end its connection.

    Parameters:
        mount: the mount.
        wait: how long to retry after EBUSY, in seconds.
        hurry: ends the waiting at once when set.
        force: whether to detach a busy mount; otherwise it stays mounted.

    Returns:
        The outcome. This raises no error, so that a caller that is ending can go on.
    """
    pause = hurry or threading.Event()
    deadline = time.monotonic() + wait
    while True:
        try:
            mount.unmount()
            return UnmountOutcome(lazy=False, failed=False, message="")
        except OSError as error:
            if error.errno != errno.EBUSY:
                return _failed(mount, error.strerror or str(error))
        except MountError as error:
            return _failed(mount, str(error))
        left = deadline - time.monotonic()
        if left <= 0 or pause.wait(min(_RETRY_S, left)):
            return _abandon(mount, wait) if force else _busy(mount, wait)


def _abandon(mount: Unmountable, wait: float) -> UnmountOutcome:
    try:
        mount.abandon()
    except OSError as error:
        return _failed(mount, error.strerror or str(error))
    except MountError as error:
        return _failed(mount, str(error))
    message = (
        f"{mount.mountpoint}: was busy (waited {wait:g} s), so it was detached lazily:"
        " programs that still use it get ENOTCONN"
    )
    return UnmountOutcome(lazy=True, failed=False, message=message)


def _busy(mount: Unmountable, wait: float) -> UnmountOutcome:
    message = f"{mount.mountpoint}: busy (waited {wait:g} s), still mounted"
    return UnmountOutcome(lazy=False, failed=True, message=message, busy=True)


def _failed(mount: Unmountable, reason: str) -> UnmountOutcome:
    text = reason if reason.startswith(mount.mountpoint) else f"{mount.mountpoint}: {reason}"
    return UnmountOutcome(
        lazy=False, failed=True, message=f"{text}: still mounted, try 'umount -l' as root"
    )
