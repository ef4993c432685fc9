"""How much of a file the page cache holds, by cachestat(2) (Linux 6.5).

Comparing the backing file with the same file on the mount shows how many bytes are in memory twice.
Under passthrough the mount's own cache of the file stays empty.
"""

import ctypes
import os
import struct
from typing import Final

import msgspec

from zcfuse.linux._syscalls import NR_CACHESTAT, syscall

_RESULT: Final = struct.Struct("=5Q")  # struct cachestat
_RANGE: Final = struct.Struct("=2Q")  # struct cachestat_range; a length of 0 is the whole file
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Residency(msgspec.Struct, frozen=True):
    """Pages of a file in the page cache. `cached_bytes` counts whole pages."""

    cached_bytes: int
    dirty_bytes: int
    writeback_bytes: int
    evicted_bytes: int


def cachestat(fd: int, offset: int = 0, length: int = 0) -> Residency:
    """Return how much of `fd` is cached, from `offset` for `length` bytes (0: to the end).

    Raises `OSError`: ENOSYS before Linux 6.5, EPERM since 6.14 for a file that is neither ours nor
    writable, EOPNOTSUPP on hugetlbfs.
    """
    result = ctypes.create_string_buffer(_RESULT.size)
    syscall(NR_CACHESTAT, fd, _RANGE.pack(offset, length), result, 0)
    cached, dirty, writeback, evicted, _recently = _RESULT.unpack(result.raw)
    return Residency(cached * _PAGE, dirty * _PAGE, writeback * _PAGE, evicted * _PAGE)


def cached_twice(backing_bytes: int, mounted_bytes: int) -> int:
    """Return how many bytes both caches hold, the backing file's and the mount's.

    Exact if both hold the same part of the file, as after reading it from end to end; otherwise an
    upper bound.
    """
    return min(backing_bytes, mounted_bytes)
