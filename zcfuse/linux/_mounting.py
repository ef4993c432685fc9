"""Mounts and unmounts by ``mount(2)`` if it is permitted, otherwise by the helper ``fusermount3``.

`KernelMount` owns the descriptor of ``/dev/fuse`` until `KernelMount.take_descriptor` hands it on.
Calls may block up to their stated bound, so an event loop makes them in a worker thread. This
module never looks at a mount point, because that would ask the daemon.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Sequence
from typing import Final

from zcfuse.linux._connection import open_abort_file, write_abort
from zcfuse.linux._mount_table import FSTYPE, MountEntry, mount_at, read_mounts
from zcfuse.linux._privileges import Capability, has_capability

FUSE_DEVICE: Final = "/dev/fuse"
FUSERMOUNT: Final = "fusermount3"
# It prints its name as it was called, by the whole path.
_OWN_NAME: Final = re.compile(rf"^(?:\S*/)?{FUSERMOUNT}: ")
# fusermount3 answers in milliseconds; more than this means that something under the mount point
# hangs.
FUSERMOUNT_TIMEOUT_S: Final = 20.0

# <sys/mount.h>; os.unshare and friends do not offer these.
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

_libc: Final = ctypes.CDLL(None, use_errno=True)


class MountError(Exception):
    """A mount, an unmount or an option was refused; the text is one line with the remedy.

    Parameters:
        usage: True if what the caller asked for is wrong in itself (a bad option, a mount point
            that is a file), False if this machine or its state does not permit it.
    """

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


class KernelMount:
    """A mount that exists in the kernel, and the descriptor of its connection.

    The kernel soon reuses device numbers and mount ids. So a mount that has once ended stays ended
    here (`notice_end`). The abort file is opened at the start, because its path may later name
    another mount's connection.
    """

    def __init__(self, descriptor: int, entry: MountEntry) -> None:
        self._descriptor = descriptor
        self._abort_descriptor = open_abort_file(entry.device)
        self._entry = entry
        self._gone = False

    @property
    def mountpoint(self) -> str:
        """Where it was mounted."""
        return self._entry.mountpoint

    @property
    def device(self) -> tuple[int, int]:
        """The (major, minor) number of the filesystem."""
        return self._entry.device

    def take_descriptor(self) -> int:
        """Hand the descriptor of ``/dev/fuse`` to the caller, who closes it."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def close(self) -> None:
        """Close the descriptors that are still owned; with the last the connection ends."""
        for descriptor in (self._descriptor, self._abort_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._abort_descriptor = -1

    def entry(self) -> MountEntry | None:
        """Return where it is mounted now (it may have been moved), or None if it is not."""
        if self._gone:
            return None
        return next((entry for entry in read_mounts() if self._is_same(entry)), None)

    def _is_same(self, entry: MountEntry) -> bool:
        known = self._entry
        return (entry.mount_id, entry.device, entry.fstype, entry.source) == (
            *(known.mount_id, known.device, known.fstype, known.source),
        )

    def notice_end(self) -> bool:
        """Note that the connection has ended; return whether the mount still exists.

        Call it at once: a later mount with the same numbers is another one.
        """
        self._gone = self.entry() is None
        return not self._gone

    def unmount(self) -> None:
        """Unmount; a mount that is gone already is no error.

        Raises:
            OSError: EBUSY if files on it are open.
            MountError: it is not permitted.
        """
        self._take_away(lazy=False)

    def abandon(self) -> None:
        """End the connection (clients get ENOTCONN) and detach the mount although it is busy.

        Raises:
            OSError, MountError: it could not be detached.
        """
        self.abort()
        self._take_away(lazy=True)

    def _take_away(self, *, lazy: bool) -> None:
        entry = self.entry()
        if entry is None:
            return
        try:
            unmount(entry.mountpoint, lazy=lazy, force=lazy)
        except (OSError, MountError):
            # Somebody else may have been quicker.
            if self.notice_end():
                raise
        self._gone = True

    def abort(self) -> bool:
        """End the connection, where fusectl is mounted; return whether that was done."""
        return write_abort(self._abort_descriptor)


def attach(
    source: str,
    mountpoint: str,
    *,
    allow_other: bool,
    read_only: bool = True,
    noexec: bool = False,
) -> KernelMount:
    """Mount a FUSE filesystem of type ``fuse.zcfuse`` that nobody serves yet.

    Parameters:
        source: what mountinfo shows as the source, any text without NUL.
        mountpoint: an existing directory, absolute and without symlinks.
        allow_other: let other users than the caller in (mount.fuse3(8)).
        read_only: mount ``ro``.
        noexec: mount ``noexec``.

    Returns:
        The mount. Clients block until the connection's INIT request is answered.

    Raises:
        MountError: it was refused.
    """
    check_device()
    options = ["default_permissions"] + (["allow_other"] if allow_other else [])
    flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0) | (MS_NOEXEC if noexec else 0)
    descriptor = -1
    if has_capability(Capability.SYS_ADMIN):
        descriptor = _mount_directly(source, mountpoint, options, flags)
    if descriptor < 0:
        descriptor = _mount_by_helper(source, mountpoint, options, flags)
    try:
        return KernelMount(descriptor, _own_entry(descriptor, mountpoint))
    except BaseException:
        os.close(descriptor)
        raise


def adopt(descriptor: int, device: tuple[int, int]) -> KernelMount | None:
    """Return a mount that another process made, and whose connection still exists.

    Parameters:
        descriptor: of ``/dev/fuse``; the mount owns it from now on.
        device: the (major, minor) number of the mount.

    Returns:
        None if it was unmounted; the descriptor is closed then.

    Raises:
        OSError: the mount table cannot be read.
    """
    number = _connection_number(descriptor)
    found = [entry for entry in read_mounts() if entry.is_ours and entry.device == device]
    if not found or number not in (None, device[1]):
        os.close(descriptor)
        return None
    return KernelMount(descriptor, found[-1])


def _own_entry(descriptor: int, mountpoint: str) -> MountEntry:
    """Return the entry of the mount that `descriptor` serves.

    Two processes may mount here at the same moment. The lower mount stays; the process of the other
    takes one mount away and raises MountError.
    """
    entries = [entry for entry in read_mounts() if entry.mountpoint == mountpoint]
    minor = _connection_number(descriptor)
    by_number = {entry.minor: entry for entry in entries if entry.is_ours}
    entry = mount_at(mountpoint, entries) if minor is None else by_number.get(minor)
    if entry is None or not entry.is_ours:
        raise MountError(f"{mountpoint}: the mount vanished while it was being made; try again")
    below = next((other for other in entries if other.mount_id == entry.parent_id), None)
    if below is not None and below.is_ours:
        with contextlib.suppress(OSError):
            unmount(mountpoint, lazy=True)
        raise MountError(
            f"{mountpoint}: busy, another zcfuse mount of {below.source} came first:"
            f" 'zcfuse umount {mountpoint}' first, or choose another directory"
        )
    return entry


def _connection_number(descriptor: int) -> int | None:
    """Return the minor device number of a FUSE connection; None on kernels that do not show it."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as info:
        for line in info:
            name, _, value = line.partition(":")
            if name == "fuse_connection":
                return int(value)
    return None


def check_device() -> None:
    """Check that ``/dev/fuse`` can be used.

    Raises:
        MountError: it is missing or closed to this user.
    """
    try:
        mode = os.stat(FUSE_DEVICE).st_mode
    except OSError as error:
        raise _device_error(error.errno) from error
    if not stat.S_ISCHR(mode):
        raise MountError(
            f"{FUSE_DEVICE} is not a device: create it with 'mknod {FUSE_DEVICE} c 10 229'"
        )
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        raise _device_error(errno.EACCES)


def _device_error(number: int | None) -> MountError:
    if number in (errno.EACCES, errno.EPERM):
        return MountError(
            f"{FUSE_DEVICE}: permission denied: run as root, or 'chmod 666 {FUSE_DEVICE}' as root"
        )
    reason = os.strerror(number or errno.EIO)
    return MountError(
        f"{FUSE_DEVICE}: {reason}:"
        f" load it with 'modprobe fuse', or give the container '--device {FUSE_DEVICE}'"
    )


def _mount_directly(source: str, mountpoint: str, options: Sequence[str], flags: int) -> int:
    """Mount by mount(2) and return the descriptor, or -1 where it is not permitted after all."""
    try:
        descriptor = os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _device_error(error.errno) from error
    data = [
        f"fd={descriptor}",
        f"rootmode={stat.S_IFDIR:o}",
        f"user_id={os.geteuid()}",
        f"group_id={os.getegid()}",
    ]
    arguments = [os.fsencode(part) for part in (source, mountpoint, FSTYPE)]
    status = _libc.mount(*arguments, ctypes.c_ulong(flags), ",".join([*data, *options]).encode())
    if status == 0:
        return descriptor
    number = ctypes.get_errno()
    os.close(descriptor)
    if number == errno.EPERM:
        return -1
    if number == errno.ENODEV:
        raise MountError("this kernel has no FUSE: load it with 'modprobe fuse'")
    raise MountError(f"{mountpoint}: cannot mount: {os.strerror(number)}")


def _mount_by_helper(source: str, mountpoint: str, options: Sequence[str], flags: int) -> int:
    """Let fusermount3 mount; it passes the descriptor over the socket that _FUSE_COMMFD names."""
    name = source.replace("\\", "\\\\").replace(",", "\\,")
    words = ["ro" if flags & MS_RDONLY else "rw", "nosuid", "nodev"]
    words += ["noexec"] if flags & MS_NOEXEC else []
    text = ",".join([*words, *options, f"fsname={name}", f"subtype={FSTYPE.removeprefix('fuse.')}"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            number = theirs.fileno()
            _run_helper(["-o", text, "--", mountpoint], descriptor=number)
        return _receive_descriptor(ours)


def _receive_descriptor(channel: socket.socket) -> int:
    channel.settimeout(FUSERMOUNT_TIMEOUT_S)
    numbers = array.array("i")
    room = socket.CMSG_LEN(numbers.itemsize)
    try:
        # Not socket.recv_fds: Python 3.11 ignores its flags, and children would inherit the
        # descriptor.
        _, messages, _, _ = channel.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise MountError(f"{FUSERMOUNT} sent no descriptor: {error}") from error
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: numbers.itemsize])
    if not numbers:
        raise MountError(f"{FUSERMOUNT} sent no descriptor: reinstall the package fuse3")
    return numbers[0]


def unmount(mountpoint: str, *, lazy: bool = False, force: bool = False) -> None:
    """Unmount one mount point.

    Parameters:
        mountpoint: an absolute path without symlinks.
        lazy: detach it even if it is busy; who has files open keeps them.
        force: also end the connection, where this process may (umount2(2), MNT_FORCE).

    Raises:
        OSError: EBUSY, EINVAL (not a mount point), ...
        MountError: fusermount3 is missing or refuses.
    """
    if has_capability(Capability.SYS_ADMIN):
        flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0)
        if _libc.umount2(os.fsencode(mountpoint), flags) == 0:
            return
        number = ctypes.get_errno()
        if number != errno.EPERM:
            raise OSError(number, os.strerror(number), mountpoint)
    _run_helper(["-u", *(["-z"] if lazy else []), "--", mountpoint])


def _run_helper(arguments: Sequence[str], *, descriptor: int = -1) -> None:
    helper = shutil.which(FUSERMOUNT)
    if helper is None:
        raise MountError(
            f"{FUSERMOUNT} is not installed: install the package fuse3, or run as root"
        )
    environment = {**os.environ, "LC_ALL": "C"}
    if descriptor >= 0:
        environment["_FUSE_COMMFD"] = str(descriptor)
    try:
        result = subprocess.run(
            [helper, *arguments],
            env=environment,
            pass_fds=(descriptor,) if descriptor >= 0 else (),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=FUSERMOUNT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise MountError(f"{FUSERMOUNT} did not end within {FUSERMOUNT_TIMEOUT_S:.0f} s") from error
    if result.returncode != 0:
        _raise_helper_error(os.fsdecode(result.stderr), arguments[-1])


def _raise_helper_error(text: str, mountpoint: str) -> None:
    lines = [_OWN_NAME.sub("", line).strip() for line in text.splitlines() if line.strip()]
    message = "; ".join(lines) or "failed without a word"
    if "Device or resource busy" in message:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), mountpoint)
    if "user_allow_other" in message:
        message = (
            "allow_other is not permitted:"
            " root must put a line 'user_allow_other' into /etc/fuse.conf"
        )
    elif "no write access" in message:
        message = (
            "this user may not write to the mount point:"
            " choose a directory that this user owns, or mount as root"
        )
        raise MountError(f"{mountpoint}: {message}")
    elif "Operation not permitted" in message and os.geteuid() != 0:
        message += f" (is {FUSERMOUNT} setuid root?)"
    raise MountError(f"{mountpoint}: {FUSERMOUNT}: {message}")
