"""Mounts in the kernel's table, read independently of the code under test.

This module never touches a mountpoint, so it cannot hang on a dead daemon.
"""

import ctypes
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
FILESYSTEM: Final = "fuse.zcfuse"
_CONNECTIONS: Final = "/sys/fs/fuse/connections"
# For a shell in a test's mount namespace: systemd mounts it, other systems may not.
MOUNT_FUSECTL: Final = (
    f"{{ grep -q ' {_CONNECTIONS} fusectl ' /proc/mounts"
    f" || mount -t fusectl none {_CONNECTIONS}; }}"
)


@dataclass(frozen=True, slots=True)
class FuseMount:
    """A zcfuse mount in ``/proc/PID/mountinfo`` (proc(5))."""

    mountpoint: str
    source: str
    major: int
    minor: int
    options: frozenset[str]

    @property
    def connection(self) -> int:
        """The directory in ``/sys/fs/fuse/connections``: the kernel's internal device number."""
        return self.major << 20 | self.minor


def fuse_mounts(pid: int | str = "self") -> Iterator[FuseMount]:
    """The mounts of type fuse.zcfuse in the mount namespace of process `pid`."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:  # the process ended, and its namespace with it
        return
    for line in lines:
        before, _, after = line.partition(b" - ")
        kind, source, *super_options = after.split(b" ")
        if kind != FILESYSTEM.encode():
            continue
        fields = before.split(b" ")
        major, _, minor = fields[2].partition(b":")
        options = fields[5].split(b",") + super_options[0].split(b",")
        yield FuseMount(
            mountpoint=_unescaped(fields[4]),
            source=_unescaped(source),
            major=int(major),
            minor=int(minor),
            options=frozenset(os.fsdecode(option) for option in options),
        )


def find_mount(mountpoint: str, pid: int | str = "self") -> FuseMount | None:
    """The topmost zcfuse mount on `mountpoint`, an absolute path without symlinks."""
    found = [mount for mount in fuse_mounts(pid) if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def abort(mount: FuseMount) -> bool:
    """End the connection, so that its clients get ENOTCONN; return whether that was permitted.

    ``/sys/fs/fuse`` belongs to the fusectl filesystem, which may not be mounted.
    """
    try:
        with open(f"{_CONNECTIONS}/{mount.connection}/abort", "w") as file:
            file.write("1")
    except OSError:
        return False
    return True


def detach(
    mountpoint: str,
    wrap: Callable[[list[str]], list[str]] | None = None,
    *,
    force: bool = True,
) -> None:
    """Detach the mount, busy or not; a missing mount is no error.

    As root it also ends the connection, which `abort` cannot do without fusectl. Without
    `force` it does not: the daemon then sees an unmount and not a failure.
    """
    if wrap is None and os.geteuid() == 0:
        flags = MNT_DETACH | (MNT_FORCE if force else 0)
        ctypes.CDLL(None).umount2(os.fsencode(mountpoint), flags)
        return
    command = ["fusermount3", "-u", "-z", "-q", "--", mountpoint]
    command = command if wrap is None else wrap(command)
    subprocess.run(command, timeout=10, check=False, capture_output=True)


def stacks(pid: int) -> str:
    """The kernel function in which each thread of process `pid` waits, if this user may see it."""
    lines = []
    for tid in _numbers(f"/proc/{pid}/task"):
        task = f"/proc/{pid}/task/{tid}"
        state = re.search(r"^State:\s*(\S)", _read(f"{task}/status"), re.MULTILINE)
        lines.append(
            f"thread {tid} {_read(f'{task}/comm')!r} state {state[1] if state else '?'}"
            f" wchan {_read(f'{task}/wchan') or '?'} syscall {_read(f'{task}/syscall') or '?'}"
        )
        lines += [f"    {line}" for line in _read(f"{task}/stack").splitlines()]
    return "\n".join(lines) or "(the process is gone)"


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _numbers(directory: str) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(directory))
    except OSError:
        return []


def _unescaped(field: bytes) -> str:
    """Undo the octal escapes of mountinfo: space, tab, newline and backslash."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))
