"""Limits for an archive: the most that an ordinary one of its size could need.

They depend on the archive alone, so equal archives get equal answers.
"""

from __future__ import annotations

import os
import resource
from typing import Final

MIB: Final = 1024 * 1024

DEEPEST: Final = 4096
"""Parts of a member's name: twice the maximum for PATH_MAX bytes."""

LONGEST_PATH: Final = 32 * 1024
"""Bytes of a member's name: eight times PATH_MAX, for clients that walk by openat(2)."""

TAR_HEADER: Final = 4 * MIB
"""Bytes of one extended header: a sparse map of 200,000 pieces."""

EXTENDED_HEADERS: Final = 64
"""Extended headers of one member. Real archives have up to three."""

DIGITS: Final = 1024
"""Consecutive digits in an extended header; tarfile's search takes quadratic time in them."""

ZIP_DIRECTORY: Final = 1024 * MIB
"""Bytes of the central directory: ten million members with names of 60 bytes."""

LEAST_MEMORY: Final = 256 * MIB
MEMORY_PER_BYTE: Final = 8
"""Bytes of memory per byte on disk. A member takes 1 KiB, and its header 76 to 512."""

STREAM_MEMORY: Final = 2048 * MIB
"""Bytes of address space for decompressing a stream. rapidgzip reserves most of it at once."""

LEAST_SECONDS: Final = 20
BYTES_PER_SECOND: Final = 4 * MIB
"""Bytes on disk per allowed second of processor time. Even headers alone take less."""

STALLED_SECONDS: Final = 300.0
"""Wall-clock seconds per 1,000 members."""


def memory_limit(status: os.stat_result, *, compressed: bool = False) -> int:
    """Return the memory limit for indexing the file, in bytes."""
    least = LEAST_MEMORY + (STREAM_MEMORY if compressed else 0)
    return least + MEMORY_PER_BYTE * _on_disk(status)


def seconds_limit(status: os.stat_result) -> int:
    """Return the processor time limit for indexing the file, in seconds."""
    return LEAST_SECONDS + _on_disk(status) // BYTES_PER_SECOND


def _on_disk(status: os.stat_result) -> int:
    """Return the bytes outside holes; some filesystems count no blocks."""
    return min(status.st_size, status.st_blocks * 512 or status.st_size)


def limit_this_process(memory: int, seconds: int) -> None:
    """Set the limits of one job: bytes of memory, seconds of processor time.

    The process itself may already have used some of each.
    """
    with open("/proc/self/statm", "rb") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _soft_limit(resource.RLIMIT_AS, now + memory)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _soft_limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds)


def _soft_limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, hard))
