"""System calls that Python's `os` does not have, by `syscall(2)` through ctypes.

Owns nothing: callers own the descriptors they get. The numbers are those of the generic table,
which x86-64 and arm64 share for everything added since Linux 5.1; `perf_event_open` is older and
differs.
"""

import ctypes
import errno
import functools
import os
import platform
from collections.abc import Callable
from typing import Final

_NR_FSOPEN: Final = 430  # Linux 5.2
_NR_FSCONFIG: Final = 431  # Linux 5.2
_NR_FSMOUNT: Final = 432  # Linux 5.2
NR_CACHESTAT: Final = 451  # Linux 6.5
_NR_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241, "riscv64": 241}

_FSOPEN_CLOEXEC: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_FSMOUNT_CLOEXEC: Final = 1
_PERF_FLAG_FD_CLOEXEC: Final = 8
_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make system call `number`; returns its value, raises `OSError` with its errno."""
    function: Callable[..., int] = _libc().syscall
    converted = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result = function(ctypes.c_long(number), *converted)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def perf_event_open(attributes: bytes, pid: int, cpu: int) -> int:
    """Open one perf event (perf_event_open(2)); `attributes` is a perf_event_attr."""
    number = _NR_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"perf_event_open is not known on {platform.machine()}")
    return syscall(number, attributes, pid, cpu, -1, _PERF_FLAG_FD_CLOEXEC)


def detached_mount(filesystem: bytes) -> int:
    """Mount `filesystem` nowhere: the descriptor of its root is the only way in.

    The mount dissolves when the descriptor is closed, so even a killed process leaves nothing
    behind (fsopen(2), fsmount(2), Linux 5.2; needs CAP_SYS_ADMIN).
    """
    context = syscall(_NR_FSOPEN, filesystem, _FSOPEN_CLOEXEC)
    try:
        syscall(_NR_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall(_NR_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)


def detach_mountpoint(mountpoint: str) -> None:
    """Take a FUSE mount out of the tree without waiting for it: umount2(MNT_FORCE | MNT_DETACH).

    MNT_FORCE aborts the connection, so clients that wait for a reply get ENOTCONN at once.
    """
    if _libc().umount2(os.fsencode(mountpoint), _MNT_FORCE | _MNT_DETACH) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), mountpoint)


def inotify_init() -> int:
    """Return the descriptor of a new inotify(7) instance, which does not wait in read(2)."""
    return _checked(_libc().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def inotify_add_watch(fd: int, path: bytes, mask: int) -> int:
    """Watch a path for the events of a mask (inotify_add_watch(2))."""
    return _checked(_libc().inotify_add_watch(fd, path, ctypes.c_uint32(mask)))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
