"""The upper layer of a union that clients may change, and its work directory.

The data path writes both. The upper layer has overlayfs's format, and the work directory lies where
overlayfs has it, so that the kernel can mount the same directories. Two mounts at a time would
spoil them, so each holds a lock on the upper layer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import Final

# What overlayfs calls the directory within `workdir`.
_WORK: Final = "work"
_OWNER_ONLY: Final = 0o700


class Upper:
    """Owns the lock on an upper layer, and the descriptor of the work directory, once emptied."""

    def __init__(
        self,
        path: str | bytes | os.PathLike[str],
        work: str | bytes | os.PathLike[str] | None,
    ) -> None:
        """Open both.

        Raises OSError: EBUSY if another mount has them, EXDEV if they lie on two filesystems.
        """
        self.path: Final = os.path.abspath(os.fsdecode(path))
        self.work_path: Final = os.fsdecode(work) if work is not None else default_work(self.path)
        with contextlib.ExitStack() as opened:
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, self._lock)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(errno.EBUSY, "another mount has this upper layer", path) from None
            self.fd = _open_work(self.work_path, work is None)
            opened.callback(os.close, self.fd)
            if os.fstat(self.fd).st_dev != os.fstat(self._lock).st_dev:
                raise OSError(
                    errno.EXDEV, "not on the filesystem of the upper layer", self.work_path
                )
            _empty(self.fd)
            opened.pop_all()

    def close(self) -> None:
        """Give both back; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            os.close(self._lock)
            self.fd = -1


def default_work(upper: str) -> str:
    """Return the work directory of an upper layer for which none is named: beside it."""
    return f"{os.path.abspath(upper)}.work"


def _open_work(path: str, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, _OWNER_ONLY)
    within = os.path.join(path, _WORK)
    with contextlib.suppress(FileExistsError):
        os.mkdir(within, _OWNER_ONLY)
    fd = os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    # Overlayfs leaves it without any permission.
    if os.fstat(fd).st_uid == os.geteuid():
        os.fchmod(fd, _OWNER_ONLY)
    return fd


def _empty(directory: int) -> None:
    for name in os.listdir(directory):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            _remove_tree(name, directory)
        else:
            os.unlink(name, dir_fd=directory)


def _remove_tree(name: str, parent: int) -> None:
    found = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        by_descriptor = f"/proc/self/fd/{found}"
        # Its mode may forbid the owner to look into it.
        os.chmod(by_descriptor, _OWNER_ONLY)
        opened = os.open(by_descriptor, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(found)
    try:
        _empty(opened)
    finally:
        os.close(opened)
    os.rmdir(name, dir_fd=parent)
