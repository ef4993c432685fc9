"""How much an archive may ask for: no more than an honest one of its size could need.

Everything in this module depends on the archive alone, so that one archive gets one answer.
"""

from __future__ import annotations

import os
from typing import Final

MIB: Final = 1024 * 1024

DEEPEST: Final = 4096
"""Parts of a member's name: twice as many as a path of PATH_MAX bytes has."""

LONGEST_PATH: Final = 32 * 1024
"""Bytes of a member's name: eight times PATH_MAX, for clients that walk by openat(2)."""

TAR_HEADER: Final = 4 * MIB
"""Bytes of one extended header: a sparse map of 200,000 pieces."""

EXTENDED_HEADERS: Final = 64
"""Extended headers of one member. Real archives have up to three."""

DIGITS: Final = 1024
"""Digits in a row in an extended header; tarfile's search takes their square as time."""

ZIP_DIRECTORY: Final = 1024 * MIB
"""Bytes of the central directory: ten million members with names of 60 bytes."""

LEAST_MEMORY: Final = 256 * MIB
MEMORY_PER_BYTE: Final = 8
"""Bytes of memory for each byte on the disk. A member takes 1 KiB, and its header 76 to 512."""

LEAST_SECONDS: Final = 20
BYTES_PER_SECOND: Final = 4 * MIB
"""Bytes on the disk for which one second of processor time is allowed. Headers alone take less."""

STALLED_SECONDS: Final = 300.0
"""Wall-clock time in which 1,000 members must have been read."""


def memory_limit(status: os.stat_result) -> int:
    """Return the bytes of memory that indexing the file may take."""
    return LEAST_MEMORY + MEMORY_PER_BYTE * _on_disk(status)


def seconds_limit(status: os.stat_result) -> int:
    """Return the seconds of processor time that indexing the file may take."""
    return LEAST_SECONDS + _on_disk(status) // BYTES_PER_SECOND


def _on_disk(status: os.stat_result) -> int:
    """Return the bytes that are no holes; some filesystems count no blocks at all."""
    return min(status.st_size, status.st_blocks * 512 or status.st_size)
