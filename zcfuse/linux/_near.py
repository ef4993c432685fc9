"""Which mounted filesystems answer by themselves, without another process or another machine.

A call to such a near filesystem may wait for a disk, never for a process that can refuse to answer.
FUSE and network filesystems are far, and so is every type that is not listed here. Any thread may
ask.
The mount table is read again only after the kernel has said that it changed.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Final

from zcfuse.linux._mount_table import MOUNTINFO, MountEntry, parse_mountinfo

NEAR_TYPES: Final = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "f2fs", "zfs", "erofs", "squashfs"}
    | {"rootfs", "vfat", "exfat", "iso9660"}
)


class NearMounts:
    """The mount table of this process, as it is now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd = -1
        self._process = -1
        self._poll = select.poll()
        self._near: frozenset[int] = frozenset()
        self._far_names: dict[bytes, int] = {}
        self._far_points: dict[bytes, int] = {}

    def is_near(self, mount: int) -> bool:
        """Say whether the mount with this id (`Status.mount`) is near; an unknown one is not."""
        self._refresh()
        return mount in self._near

    def far_named(self, name: bytes) -> int | None:
        """Return the id of a far mount whose mount point has this last name, None if none has."""
        self._refresh()
        return self._far_names.get(name)

    def far_above(self, path: bytes) -> int | None:
        """Return the id of a far mount on the way of an absolute path's text, None if none is."""
        self._refresh()
        if not self._far_points:
            return None
        above = path
        while above:
            found = self._far_points.get(above)
            if found is not None:
                return found
            above = above.rpartition(b"/")[0]
        return self._far_points.get(b"/")

    def _refresh(self) -> None:
        with self._lock:
            if self._process != os.getpid():
                self._open()
            elif not self._poll.poll(0):
                return
            os.lseek(self._fd, 0, os.SEEK_SET)
            chunks = []
            while chunk := os.read(self._fd, 1 << 16):
                chunks.append(chunk)
            self._take(parse_mountinfo(b"".join(chunks)))

    def _open(self) -> None:
        """Open the table of this process: a child of fork(2) may be in another namespace."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self._fd = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)
        self._process = os.getpid()

    def _take(self, entries: list[MountEntry]) -> None:
        self._near = frozenset(one.mount_id for one in entries if one.fstype in NEAR_TYPES)
        far = [one for one in entries if one.fstype not in NEAR_TYPES]
        self._far_points = {os.fsencode(one.mountpoint): one.mount_id for one in far}
        self._far_names = {
            point.rpartition(b"/")[2]: mount for point, mount in self._far_points.items()
        }


NEAR_MOUNTS: Final = NearMounts()
