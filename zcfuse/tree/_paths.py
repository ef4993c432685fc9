"""Opens files by path like open(2), with symbolic links, but never on our own mount.

The opening thread also answers the mount's requests, so it must refuse a path into the mount before
the kernel sends any request. One call checks a path that stays on one mount (openat2,
RESOLVE_NO_XDEV, Linux 5.6). It starts at the mount point that the path's text names. A path that
crosses mounts, for example by a symbolic link, is walked name by name, with a check before each
step. Within `near_only` such a path, and one into a filesystem that may not answer, is not walked.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Final

from zcfuse import linux
from zcfuse.linux import AT_EMPTY_PATH, AT_STATX_DONT_SYNC, device_number, statx
from zcfuse.tree._near import FarError, must_stay_near, require_near_path

_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS: Final = 40  # as many symbolic links as the kernel follows (path_resolution(7))
# openat2 is missing, or a container's filter does not know it; EXDEV: the path leaves the mount.
_TO_BE_WALKED: Final = frozenset({errno.EXDEV, errno.ENOSYS, errno.EPERM})
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
# Columns of /proc/self/mountinfo (proc_pid_mountinfo(5)).
_DEVICE: Final = 2
_MOUNTPOINT: Final = 4


class PathOpener:
    """Opens absolute paths. Holds no descriptor between calls."""

    __slots__ = ("_mountpoints", "_refused")

    def __init__(self) -> None:
        self._refused = -1
        self._mountpoints = frozenset({b"/"})

    def refuse_device(self, major: int, minor: int) -> None:
        """Raise ELOOP from now on for files on this device."""
        self._refused = device_number(major, minor)
        self._mountpoints = _mountpoints(b"%d:%d" % (major, minor))

    def open(self, path: bytes, flags: int) -> int:
        """Open an absolute path. Raises OSError: ELOOP if it leads into the refused device."""
        require_near_path(path)
        if self._refused < 0 and not must_stay_near():
            return os.open(path, flags | os.O_CLOEXEC)
        try:
            return self._open_on_its_mount(path, flags)
        except OSError as error:
            if error.errno not in _TO_BE_WALKED:
                raise
        if must_stay_near():
            raise FarError(0)
        return self._walk(path, flags)

    def _open_on_its_mount(self, path: bytes, flags: int) -> int:
        top = self._top(path)
        rest = path[len(top) :].lstrip(b"/") or b"."
        mount = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._check(mount)
            return linux.openat2(mount, rest, flags, linux.RESOLVE_NO_XDEV)
        finally:
            os.close(mount)

    def _top(self, path: bytes) -> bytes:
        """Return the mount point of a path's directory, judged by its text."""
        directory = path.rpartition(b"/")[0]
        while directory and directory not in self._mountpoints:
            directory = directory.rpartition(b"/")[0]
        return directory or b"/"

    def _check(self, fd: int) -> int:
        """Return the mode of an open file; ELOOP on the refused device, which is not asked."""
        status = statx(fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC)
        if status.device == self._refused:
            raise OSError(errno.ELOOP, "the path leads into the mount that shows it")
        return status.attributes.mode

    def _walk(self, path: bytes, flags: int) -> int:
        names = _names(path)
        links = 0
        fd = os.open(b"/", _STEP)
        try:
            while names:
                following = os.open(names.pop(), _STEP, dir_fd=fd)
                try:
                    mode = self._check(following)
                    target = os.readlink(b"", dir_fd=following) if stat.S_ISLNK(mode) else None
                except BaseException:
                    os.close(following)
                    raise
                if target is None:
                    os.close(fd)
                    fd = following
                    continue
                os.close(following)
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                names += _names(target)
                if target.startswith(b"/"):
                    os.close(fd)
                    fd = -1
                    fd = os.open(b"/", _STEP)
            # Only the link in /proc opens the very file that was looked at.
            return os.open(b"/proc/self/fd/%d" % fd, flags | os.O_CLOEXEC)
        finally:
            if fd >= 0:
                os.close(fd)


def absolute(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> bytes:
    """Return an absolute path as bytes; raise ValueError for an invalid path."""
    name = os.fsencode(path)
    if not name or b"\0" in name:
        raise ValueError(f"not a path: {path!r}")
    return name if name.startswith(b"/") else os.path.join(os.getcwdb(), name)


def _names(path: bytes) -> list[bytes]:
    """Return the names of a path, the last one first, without empty names and "."."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


def _is_below(path: bytes, directory: bytes) -> bool:
    return directory == b"/" or path == directory or path.startswith(directory + b"/")


def _mountpoints(refused: bytes) -> frozenset[bytes]:
    """Return all mount points except the refused device's.

    It also leaves out mounts below those, because their paths lead through them.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = [line.split(b" ") for line in file]
    points = {_unescaped(mount[_MOUNTPOINT]): mount[_DEVICE] == refused for mount in mounts}
    ours = [point for point, is_ours in points.items() if is_ours]
    return frozenset(point for point in points if not any(_is_below(point, own) for own in ours))


def _unescaped(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)
