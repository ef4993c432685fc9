"""Which processes use a mount, as /proc shows it without a request to the mount.

Nothing here follows a link into the mount, whose daemon may hang. An ordinary user sees only their
own processes.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from zcfuse.linux._mount_table import MountEntry

_LINKS: Final = {"cwd": "working directory", "root": "root directory", "exe": "running program"}
_MOUNT_ID: Final = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)


class User(NamedTuple):
    """A process, and the first way in which it uses the mount."""

    pid: int
    command: str
    use: str


def users_of(entry: MountEntry) -> list[User]:
    """Return the processes that keep a mount busy, by their ids."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and (use := _use(name, entry)):
            found.append(User(int(name), _command(name), use))
    return sorted(found)


def _use(pid: str, entry: MountEntry) -> str:
    """Return how a process uses the mount; empty if it does not, is gone, or is hidden from us."""
    for link, use in _LINKS.items():
        with contextlib.suppress(OSError):
            if _below(os.readlink(f"/proc/{pid}/{link}"), entry.mountpoint):
                return use
    if entry.mount_id in _mounts_of_files(pid):
        return "open file"
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as maps:
        # proc(5): address, permissions, offset, device, inode.
        device = b"%02x:%02x" % entry.device
        if any(line.split(maxsplit=4)[3] == device for line in maps):
            return "mapped file"
    return ""


def _mounts_of_files(pid: str) -> Iterator[int]:
    """Yield the mount of each open file; fdinfo has it, so that no link has to be followed."""
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fdinfo"):
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{pid}/fdinfo/{descriptor}", "rb") as file,
            ):
                if found := _MOUNT_ID.search(file.read()):
                    yield int(found[1])


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"
