"""Mounts by fsopen(2), fsmount(2) and move_mount(2): made nowhere first, and put in place last.

A mount that is nowhere belongs to its descriptor, and dissolves when that is closed. So nothing
stays mounted when a step fails, or when the process dies between two steps.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final

from zcfuse.linux._files import AT_EMPTY_PATH
from zcfuse.linux._syscalls import syscall

_NR_OPEN_TREE: Final = 428  # Linux 5.2
_NR_MOVE_MOUNT: Final = 429
_NR_FSOPEN: Final = 430
_NR_FSCONFIG: Final = 431
_NR_FSMOUNT: Final = 432
_NR_MOUNT_SETATTR: Final = 442  # Linux 5.12

# <linux/mount.h>
ATTR_RDONLY: Final = 0x1
ATTR_NOSUID: Final = 0x2
ATTR_NODEV: Final = 0x4
ATTR_NOEXEC: Final = 0x8
_CLOEXEC: Final = 1
_SET_FLAG: Final = 0
_SET_STRING: Final = 1
_SET_FD: Final = 5
_CREATE: Final = 6
_FROM_EMPTY_PATH: Final = 4
_OPEN_TREE_CLONE: Final = 1
_AT_FDCWD: Final = -100

LONGEST_STRING: Final = 255
"""Bytes of a value that fsconfig(2) takes."""

_MOUNT_ATTR: Final = struct.Struct("=QQQQ")
_MESSAGE_BYTES: Final = 4096

Setting = tuple[bytes, bytes | int | None]
"""A parameter of a filesystem: a string, a descriptor, or None for a flag."""


def new_mount(filesystem: bytes, settings: Sequence[Setting], attributes: int) -> int:
    """Make a mount that is nowhere and return its descriptor, which the caller closes.

    Parameters:
        filesystem: its type.
        settings: its parameters, in order.
        attributes: ATTR_RDONLY and others.

    Raises:
        OSError: the kernel refused; the text has what it wrote about the reason.
    """
    context = syscall(_NR_FSOPEN, filesystem, _CLOEXEC)
    try:
        try:
            for key, value in settings:
                _set(context, key, value)
            syscall(_NR_FSCONFIG, context, _CREATE, None, None, 0)
            return syscall(_NR_FSMOUNT, context, _CLOEXEC, attributes)
        except OSError as error:
            name = filesystem.decode()
            raise OSError(error.errno, f"{name}: {error.strerror}{_messages(context)}") from error
    finally:
        os.close(context)


def cloned_mount(path: str, attributes: int) -> int:
    """Make a bind mount of a directory that is nowhere, and return its descriptor.

    The clone has no mounts below the directory.

    Raises:
        OSError: the kernel refused.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    fd = syscall(_NR_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    try:
        packed = _MOUNT_ATTR.pack(attributes, 0, 0, 0)
        buffer = ctypes.create_string_buffer(packed, len(packed))
        syscall(_NR_MOUNT_SETATTR, fd, b"", AT_EMPTY_PATH, buffer, len(packed))
    except BaseException:
        os.close(fd)
        raise
    return fd


def put_at(mount: int, mountpoint: str) -> None:
    """Put a mount that is nowhere on a directory; the descriptor stays the caller's."""
    place = os.fsencode(mountpoint)
    syscall(_NR_MOVE_MOUNT, mount, b"", _AT_FDCWD, place, _FROM_EMPTY_PATH)


def _set(context: int, key: bytes, value: bytes | int | None) -> None:
    if value is None:
        syscall(_NR_FSCONFIG, context, _SET_FLAG, key, None, 0)
    elif isinstance(value, int):
        syscall(_NR_FSCONFIG, context, _SET_FD, key, None, value)
    else:
        syscall(_NR_FSCONFIG, context, _SET_STRING, key, value, 0)


def _messages(context: int) -> str:
    """Return what the kernel wrote to the context: each message begins with its level."""
    found = []
    with contextlib.suppress(OSError):
        while True:
            message = os.read(context, _MESSAGE_BYTES).decode("utf-8", "backslashreplace")
            found.append(message[2:].strip())
    return "".join(f" ({message})" for message in found)
