"""Writes by Linux AIO (io_submit(2)), which Python has no call for."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

# io_setup, io_destroy, io_getevents, io_submit.
_NUMBERS: Final = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_PWRITE: Final = 1
_WAIT_S: Final = 10


class _Iocb(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("reqprio", ctypes.c_int16),
        ("fildes", ctypes.c_uint32),
        ("buf", ctypes.c_uint64),
        ("nbytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("resfd", ctypes.c_uint32),
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Event(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("data", "obj", "res", "res2"))


def append_by_aio(descriptor: int, data: bytes) -> None:
    """Write *data* at the end of a file, and wait until that is done."""
    setup, destroy, get_events, submit = _NUMBERS[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    context = ctypes.c_ulong(0)
    buffer = ctypes.create_string_buffer(data, len(data))
    block = _Iocb(
        opcode=_PWRITE,
        fildes=descriptor,
        buf=ctypes.addressof(buffer),
        nbytes=len(data),
        offset=os.fstat(descriptor).st_size,
    )
    blocks = (ctypes.POINTER(_Iocb) * 1)(ctypes.pointer(block))
    event = _Event()
    assert libc.syscall(setup, 1, ctypes.byref(context)) == 0, ctypes.get_errno()
    try:
        assert libc.syscall(submit, context, 1, blocks) == 1, ctypes.get_errno()
        wait = _Timespec(_WAIT_S, 0)
        done = libc.syscall(get_events, context, 1, 1, ctypes.byref(event), ctypes.byref(wait))
        assert done == 1, ctypes.get_errno()
        assert event.res == len(data)
    finally:
        libc.syscall(destroy, context)
