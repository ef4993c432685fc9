"""Whether a mount answers, asked by a child process that may hang in our place.

The caller must have no other threads (it forks without an exec), so commands use this and daemons
do not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from enum import Enum
from typing import Final

PROBE_TIMEOUT_S: Final = 5.0
_KILL_WAIT_S: Final = 1.0
# The connection was aborted, or its daemon is gone.
_DEAD: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED})


class Answer(Enum):
    """The outcome of a probe."""

    ALIVE = "alive"
    DEAD = "dead"
    SILENT = "silent"


def probe(
    mountpoint: str, timeout: float = PROBE_TIMEOUT_S, *, owner: tuple[int, int] | None = None
) -> Answer:
    """Ask a mount for its attributes and its free space.

    Parameters:
        mountpoint: where it is mounted.
        timeout: how long it may take, in seconds.
        owner: user and group to ask as, if this process is root: FUSE answers nobody but them
            without asking the daemon (mount.fuse3(8), allow_other).

    Returns:
        ALIVE if it answered; DEAD if nobody serves it any more; SILENT if there was no answer in
        time.
    """
    child = os.fork()
    if child == 0:
        _ask(mountpoint, owner)
    descriptor = os.pidfd_open(child)
    try:
        if not _ended(descriptor, timeout):
            os.kill(child, signal.SIGKILL)
            # A request that the daemon has read already is waited for even by who was killed:
            # leave that child alone.
            if _ended(descriptor, _KILL_WAIT_S):
                os.waitpid(child, 0)
            return Answer.SILENT
    finally:
        os.close(descriptor)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Answer.DEAD if status in _DEAD else Answer.ALIVE


def _ended(descriptor: int, seconds: float) -> bool:
    readable, _, _ = select.select([descriptor], [], [], seconds)
    return bool(readable)


def _ask(mountpoint: str, owner: tuple[int, int] | None) -> None:
    # Nothing of the parent's may run here: no exception leaves, no buffer is flushed twice.
    status = errno.EIO
    with contextlib.suppress(BaseException):
        try:
            if owner is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(owner[1], owner[1], owner[1])
                os.setresuid(owner[0], owner[0], owner[0])
            os.stat(mountpoint)
            # Attributes may come from the kernel's cache; this always asks the daemon.
            os.statvfs(mountpoint)
            status = 0
        except OSError as error:
            status = error.errno or errno.EIO
    os._exit(status)
