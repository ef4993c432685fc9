"""System calls that Python lacks: statx, openat2, fstatfs. Each raises OSError.

Thread-safe: calls share no buffer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

import msgspec

AT_EMPTY_PATH: Final = 0x1000
# Under this flag the kernel answers for a FUSE filesystem from its cache and sends no request
# (fs/fuse/dir.c). Local filesystems ignore it.
AT_STATX_DONT_SYNC: Final = 0x4000

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_SYMLINKS: Final = 0x04

_SYS_OPENAT2: Final = 437  # the same on every architecture that Debian builds for
_STATX_BASIC_STATS: Final = 0x7FF
_STATX_BTIME: Final = 0x800
_STATX_MNT_ID: Final = 0x1000  # since Linux 5.8; an older kernel leaves the field 0
_STATX_MASK: Final = _STATX_BASIC_STATS | _STATX_BTIME | _STATX_MNT_ID
_SECOND: Final = 1_000_000_000

# struct statx up to stx_mnt_id: mask blksize attributes nlink uid gid mode; ino size blocks
# attributes_mask; atime btime ctime mtime; rdev and dev as (major, minor); mnt_id.
_STATX: Final = struct.Struct("=IIQIIIHxxQQQQ qI4x qI4x qI4x qI4x IIII Q")

_StatxBuffer = ctypes.c_char * 256
_StatfsBuffer = ctypes.c_char * 256


STACKED_TYPES: Final = {"overlay": 0x794C7630, "ecryptfs": 0xF15F, "aufs": 0x61756673}
"""Filesystems made of others, by magic number; the kernel counts each as a level of stacking."""


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_OPEN_HOW_BYTES: Final = ctypes.sizeof(_OpenHow)

_libc = ctypes.CDLL(None, use_errno=True)
_statx = _libc.statx
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_syscall = _libc.syscall
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_OpenHow),
    ctypes.c_size_t,
)
_syscall.restype = ctypes.c_long
_fstatfs = _libc.fstatfs
_fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """A node's attributes as in stat(2): times in nanoseconds, size in bytes, blocks of 512 bytes.

    `ino` is the inode number that clients see; hard links share it.
    """

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blksize: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class Status(msgspec.Struct, frozen=True, gc=False):
    """The result of statx(2): `device` is major << 32 | minor; `mount` is 0 if unknown."""

    device: int
    mount: int
    btime_ns: int
    attributes: Attributes


def device_number(major: int, minor: int) -> int:
    """Return a device as `Status.device` has it."""
    return major << 32 | minor


def statx(fd: int, name: bytes, flags: int) -> Status:
    """Return the status of `name` in directory `fd` (of `fd` itself with AT_EMPTY_PATH)."""
    buffer = _StatxBuffer()
    if _statx(fd, name, flags, _STATX_MASK, buffer) < 0:
        raise _failure(name)
    (
        mask, blksize, _, nlink, uid, gid, mode, ino, size, blocks, _,
        atime, atime_ns, btime, btime_ns, ctime, ctime_ns, mtime, mtime_ns,
        rdev_major, rdev_minor, dev_major, dev_minor, mount,
    ) = _STATX.unpack_from(buffer)  # fmt: skip
    return Status(
        dev_major << 32 | dev_minor,
        mount if mask & _STATX_MNT_ID else 0,
        btime * _SECOND + btime_ns if mask & _STATX_BTIME else 0,
        Attributes(
            ino,
            mode,
            nlink,
            uid,
            gid,
            os.makedev(rdev_major, rdev_minor) if rdev_major or rdev_minor else 0,
            size,
            blksize,
            blocks,
            atime * _SECOND + atime_ns,
            mtime * _SECOND + mtime_ns,
            ctime * _SECOND + ctime_ns,
        ),
    )


def openat2(fd: int, path: bytes, flags: int, resolve: int) -> int:
    """Open `path` below directory `fd` as openat2(2) does (Linux 5.6); O_CLOEXEC is added."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    opened: int
    while (opened := _syscall(_SYS_OPENAT2, fd, path, how, _OPEN_HOW_BYTES)) < 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _failure(path)
    return opened


def is_stacked(fd: int) -> bool:
    """Say whether the filesystem that `fd` is on is one of STACKED_TYPES, by statfs(2)."""
    buffer = _StatfsBuffer()
    if _fstatfs(fd, buffer) < 0:
        raise _failure(None)
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF in STACKED_TYPES.values()


def _failure(name: bytes | None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)
