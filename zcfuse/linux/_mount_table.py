"""The table of mounts, read from ``/proc/self/mountinfo`` (proc(5)).

Owns no state. Nothing here touches a mount point itself: a ``stat`` of a FUSE mount whose daemon
hangs would hang too, and a daemon must never ask itself. Any thread may call it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MOUNTINFO: Final = "/proc/self/mountinfo"
FSTYPE: Final = "fuse.zcfuse"
# The kernel's own bound on the symlinks of one path walk (path_resolution(7)).
MAX_SYMLINKS: Final = 40

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of mountinfo; paths and names are decoded like file names (``os.fsdecode``)."""

    mount_id: int
    parent_id: int
    major: int
    minor: int
    root: str
    mountpoint: str
    options: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]

    @property
    def device(self) -> tuple[int, int]:
        """The (major, minor) number that ``st_dev`` of the mount's files shows."""
        return self.major, self.minor

    @property
    def is_ours(self) -> bool:
        """Whether this is a zcfuse mount, by its type."""
        return self.fstype == FSTYPE

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group who mounted it (``user_id=``, ``group_id=``); root if not FUSE."""
        return self._number("user_id"), self._number("group_id")

    def _number(self, name: str) -> int:
        for option in self.super_options:
            key, _, value = option.partition("=")
            if key == name:
                return int(value)
        return 0


def read_mounts(path: str = MOUNTINFO) -> list[MountEntry]:
    """Read the mounts that this process sees.

    Returns:
        The entries in the kernel's order.

    Raises:
        OSError: ``/proc`` is not mounted.
    """
    with open(path, "rb") as file:
        return parse_mountinfo(file.read())


def parse_mountinfo(text: bytes) -> list[MountEntry]:
    """Parse the contents of a mountinfo file; a line that does not parse is left out."""
    entries = (_parse_line(line) for line in text.split(b"\n") if line)
    return [entry for entry in entries if entry is not None]


def _parse_line(line: bytes) -> MountEntry | None:
    fields = line.split(b" ")
    try:
        # Optional fields (shared:N, master:N, ...) stand between the sixth field and a lone dash.
        dash = fields.index(b"-", 6)
        major, minor = fields[2].split(b":")
        return MountEntry(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            major=int(major),
            minor=int(minor),
            root=_decode(fields[3]),
            mountpoint=_decode(fields[4]),
            options=tuple(_decode(fields[5]).split(",")),
            fstype=_decode(fields[dash + 1]),
            source=_decode(fields[dash + 2]),
            super_options=tuple(_decode(fields[dash + 3]).split(",")),
        )
    except (ValueError, IndexError):
        return None


def _decode(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def mount_at(mountpoint: str, entries: Iterable[MountEntry] | None = None) -> MountEntry | None:
    """Return the topmost mount at exactly this path, or None.

    Parameters:
        mountpoint: a path as mountinfo has it: absolute, no symlinks (`resolve_mountpoint`).
        entries: what `read_mounts` returned; read afresh if None.
    """
    known = read_mounts() if entries is None else entries
    here = [entry for entry in known if entry.mountpoint == mountpoint]
    covered = {entry.parent_id for entry in here}
    # A covering mount names the covered one as its parent; the kernel promises no order of lines.
    top = [entry for entry in here if entry.mount_id not in covered]
    return top[-1] if top else None


def resolve_mountpoint(path: str | bytes | os.PathLike[str]) -> str:
    """Return the path that mountinfo would show for a mount on *path*.

    Resolves symlinks as ``os.path.realpath`` does, but never looks at a path that is itself a
    mount point, because that one may belong to a daemon that does not answer.
    """
    mountpoints = {entry.mountpoint for entry in read_mounts()}
    current = os.path.abspath(os.fsdecode(path))
    for _ in range(MAX_SYMLINKS):
        if current in mountpoints:
            return current
        parent, name = os.path.split(current)
        current = os.path.join(os.path.realpath(parent), name) if name else parent
        if current in mountpoints:
            return current
        try:
            target = os.readlink(current)
        except OSError:
            return current
        current = os.path.normpath(os.path.join(os.path.dirname(current), target))
    return current
