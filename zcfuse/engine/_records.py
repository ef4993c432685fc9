"""The records of mounts that the kernel serves: which are ours, of what, and why.

The table of mounts says what is mounted. It cannot say that a bind mount or an overlayfs is ours,
so each has a record in ``/run/zcfuse-kernel``, named after its mount id. A record counts only while
the table has a mount of that id with the same device, type, root and source. Every user may read
the records, as the table itself, so that `zcfuse list` and `status` know these mounts.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from zcfuse.linux import MountEntry, mount_at, read_mounts, resolve_mountpoint

DIRECTORY: Final = "/run/zcfuse-kernel"
_DIRECTORY_MODE: Final = 0o755
_MODE: Final = 0o644


class Record(msgspec.Struct, frozen=True):
    """The description of a mount; `key` is its line in the table of mounts.

    `kind` is "image", "archive", "layers" or "directory". `mounted_s` is the time in seconds since
    the epoch.
    """

    key: tuple[int, int, int, str, str, str]
    kind: str
    source: str
    reason: str
    mounted_s: float


class KernelServed(msgspec.Struct, frozen=True):
    """A mount that the kernel serves by itself: how the table has it, and its record."""

    entry: MountEntry
    record: Record

    @property
    def mountpoint(self) -> str:
        """The mount point: an absolute path without symlinks."""
        return self.entry.mountpoint


def remember(mountpoint: str, kind: str, source: str, reason: str) -> None:
    """Record the mount that was just put on a directory.

    Raises:
        OSError: the record cannot be written.
    """
    entry = mount_at(mountpoint)
    if entry is None:
        return
    os.makedirs(DIRECTORY, exist_ok=True)
    os.chmod(DIRECTORY, _DIRECTORY_MODE)  # whatever the umask
    record = Record(_key(entry), kind, source, reason, time.time())
    fd, unfinished = tempfile.mkstemp(dir=DIRECTORY)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(record))
    os.chmod(unfinished, _MODE)
    os.rename(unfinished, _path(entry))


def forget(entry: MountEntry) -> None:
    """Remove the record of a mount that is gone."""
    with contextlib.suppress(OSError):
        os.unlink(_path(entry))


def kernel_mounts() -> list[KernelServed]:
    """Return the zcfuse mounts that the kernel serves, in the order of the table."""
    if not os.path.isdir(DIRECTORY):
        return []
    return list(_known(read_mounts()))


def kernel_mount_at(mountpoint: str | bytes | os.PathLike[str]) -> KernelServed | None:
    """Return the zcfuse mount at a path, None where the kernel serves no such mount there."""
    entry = mount_at(resolve_mountpoint(mountpoint))
    return None if entry is None else next(_known([entry]), None)


def _known(entries: list[MountEntry]) -> Iterator[KernelServed]:
    for entry in entries:
        if entry.is_ours:
            continue
        try:
            with open(_path(entry), "rb") as file:
                record = msgspec.json.decode(file.read(), type=Record)
        except (OSError, msgspec.MsgspecError):
            continue
        if record.key == _key(entry):
            yield KernelServed(entry, record)


def _key(entry: MountEntry) -> tuple[int, int, int, str, str, str]:
    names = (entry.fstype, entry.root, entry.source)
    printable = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
    return entry.mount_id, entry.major, entry.minor, printable[0], printable[1], printable[2]


def _path(entry: MountEntry) -> str:
    return f"{DIRECTORY}/{entry.mount_id}.json"
