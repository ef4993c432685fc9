"""Maps a range of a file, to see how much is in memory, to read it in, and to keep it there.

Python's `mmap` keeps a descriptor for each mapping, so this module makes system calls by ctypes,
which releases the GIL meanwhile. The process never touches a byte of a mapping: after a truncation
that would raise SIGBUS, whereas a system call returns an error. A file on a mount is mapped by the
pages that serve its readers: under passthrough those of the backing file (fs/fuse/passthrough.c).
Any thread may use a mapping; all calls may block on the file's disk.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_PROT_READ: Final = 1
_MAP_SHARED: Final = 1
_MADV_WILLNEED: Final = 3
_MADV_POPULATE_READ: Final = 22  # Linux 5.14
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_IN_CORE: Final = bytes(range(1, 256, 2))  # mincore(2): the least bit says so

_PAGEMAP: Final = "/proc/self/pagemap"
_ENTRY_BYTES: Final = 8
_SCAN_BYTES: Final = 1 << 20
# proc_pid_pagemap(5): bit 63 says that the page is there, bit 62 that it is on its way (a page that
# is being moved looks swapped). Of the entry's last byte that is a value of 64 or more.
_PRESENT: Final = bytes(range(0x40, 0x100))

_libc: Final = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_mmap.restype = ctypes.c_void_p
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_mincore = _libc.mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_mlock = _libc.mlock
_mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def whole_pages(offset: int, length: int) -> tuple[int, int]:
    """Return the range of whole pages, in bytes, that covers a range."""
    start = offset // PAGE_BYTES * PAGE_BYTES
    return start, -(-(offset + length) // PAGE_BYTES) * PAGE_BYTES - start


class Mapping:
    """A shared, read-only mapping of `length` bytes of a file from `offset`, a multiple of a page.

    The descriptor may be closed at once. The mapping keeps the file, though not its name, until
    `close`.

    Raises:
        OSError: the file cannot be mapped. ENODEV: its reads go past the page cache.
    """

    __slots__ = ("address", "length")

    def __init__(self, fd: int, offset: int, length: int) -> None:
        self.length = length
        found = _mmap(None, length, _PROT_READ, _MAP_SHARED, fd, offset)
        if found is None or found == _MAP_FAILED:
            raise _failure()
        self.address: int = found

    @property
    def pages(self) -> int:
        """How many pages it has."""
        return -(-self.length // PAGE_BYTES)

    def in_core(self) -> int:
        """Return how many of its pages are in memory, by mincore(2).

        If the process neither owns the file nor may write to it, the kernel claims all pages (Linux
        5.2). So call this only if `may_ask` allows it.
        """
        vector = ctypes.create_string_buffer(self.pages)
        if _mincore(self.address, self.length, vector) < 0:
            raise _failure()
        return self.pages - len(vector.raw.translate(None, _IN_CORE))

    def will_need(self) -> None:
        """Make the kernel start reading it; `populate` reports the result."""
        _madvise(self.address, self.length, _MADV_WILLNEED)

    def populate(self) -> bool:
        """Read it in and wait for that; return False if this kernel cannot.

        Raises:
            OSError: EFAULT if a page cannot be read (the file is shorter, or its disk failed).
        """
        while _madvise(self.address, self.length, _MADV_POPULATE_READ) < 0:
            number = ctypes.get_errno()
            if number == errno.EINVAL:
                return False
            if number not in (errno.EINTR, errno.EAGAIN):
                raise OSError(number, os.strerror(number))
        return True

    def lock(self) -> None:
        """Keep it in memory until `close`.

        Raises:
            OSError: ENOMEM or EPERM if the process may not lock so much, or a page cannot be read;
                EAGAIN if memory is short (mlock(2)).
        """
        if _mlock(self.address, self.length) < 0:
            raise _failure()

    def present(self) -> int:
        """Return how many of its pages this process has in its page table now.

        Of a locked mapping these are the pages that are locked. Unlike mincore(2) the kernel tells
        it to everybody.
        """
        found = 0
        at = self.address // PAGE_BYTES * _ENTRY_BYTES
        end = at + self.pages * _ENTRY_BYTES
        with open(_PAGEMAP, "rb", buffering=0) as file:
            while at < end:
                part = os.pread(file.fileno(), min(_SCAN_BYTES, end - at), at)
                if not part:
                    break
                tops = part[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]
                found += len(tops) - len(tops.translate(None, _PRESENT))
                at += len(part)
        return found

    def close(self) -> None:
        """Unmap it, which also unlocks it; a second call does nothing."""
        address, self.address = self.address, 0
        if address:
            _munmap(address, self.length)


def may_ask(status: os.stat_result) -> bool:
    """Say whether the kernel tells this user the truth about a file's pages in memory."""
    return os.geteuid() in (0, status.st_uid)


def data_ranges(fd: int, start: int, end: int) -> list[tuple[int, int]]:
    """Return the (offset, length) of what is no hole in a file between two offsets, in bytes.

    A filesystem that knows of no holes has none. The file's offset is moved.
    """
    found = []
    at = start
    while at < end:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: only a hole from here on
                found.append((at, end - at))
            break
        if data >= end:
            break
        found.append((data, min(hole, end) - data))
        at = hole
    return found


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
