"""The bytes of a section, in memory or in a kept file with a check of each block read.

A kept file is read and not mapped: shortening a mapped file would end the process by SIGBUS.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, Protocol

from zcfuse.linux import AT_EMPTY_PATH, AT_STATX_DONT_SYNC, statx
from zcfuse.tree._near import require_near_mount
from zcfuse.tree.archive._errors import DamagedIndexError
from zcfuse.tree.archive._reader import read_at

BLOCK_BYTES: Final = 4 * 1024
"""Bytes per check: a disk page, 256 entries."""

READ_AT_ONCE: Final = 64
"""A read of more blocks than this is a whole section, and is not cached."""

CACHED_BLOCKS: Final = 4096
"""Cached blocks, for all kept indexes together: 16 MiB."""


class Section(Protocol):
    """A run of bytes with a size."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes; DamagedIndexError if they are missing."""
        ...


class MemorySection:
    """A new section, or one of a small index."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes."""
        check_range(offset, length, self.size)
        return bytes(self._data[offset : offset + length])


class CheckedFile:
    """The blocks of a kept file and their checksums. Owns the descriptor."""

    def __init__(self, fd: int, start: int, size: int, sums: memoryview) -> None:
        """Take over `fd`; `size` bytes from `start` on have a CRC-32 per block in `sums`."""
        self._fd = fd
        self._mount = statx(fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC).mount
        self._start = start
        self._size = size
        self._sums = sums

    def block(self, number: int) -> bytes:
        """Return a block; DamagedIndexError if its checksum differs."""
        return self.blocks(number, 1)

    def blocks(self, first: int, count: int) -> bytes:
        """Return several adjacent blocks, with one read."""
        require_near_mount(self._mount)
        offset = first * BLOCK_BYTES
        length = min(count * BLOCK_BYTES, self._size - offset)
        found = read_at(self._fd, length, self._start + offset)
        view = memoryview(found)
        for number in range(first, first + count):
            at = (number - first) * BLOCK_BYTES
            whole = len(found) == length
            if not whole or zlib.crc32(view[at : at + BLOCK_BYTES]) != self._sums[number]:
                name = os.readlink(f"/proc/self/fd/{self._fd}")
                raise DamagedIndexError(name, f"block {number} does not match its checksum")
        return found

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@lru_cache(maxsize=CACHED_BLOCKS)
def _block(file: CheckedFile, number: int) -> bytes:
    return file.block(number)


class FileSection:
    """A section of a kept file."""

    def __init__(self, file: CheckedFile, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes."""
        check_range(offset, length, self.size)
        number, within = divmod(self._start + offset, BLOCK_BYTES)
        if within + length <= BLOCK_BYTES:
            return _block(self._file, number)[within : within + length]
        end = within + length
        count = -(-end // BLOCK_BYTES)
        if count > READ_AT_ONCE:
            return self._file.blocks(number, count)[within:end]
        blocks = range(number, number + count)
        return b"".join(_block(self._file, block) for block in blocks)[within:end]


def check_range(offset: int, length: int, size: int) -> None:
    """Raise DamagedIndexError unless the range lies within `size` bytes."""
    if not 0 <= offset <= offset + length <= size:
        raise DamagedIndexError("", f"bytes {offset} to {offset + length} of a section of {size}")


def blocks_of(pieces: Iterable[bytes | bytearray]) -> Iterator[bytes]:
    """Yield the concatenation of `pieces` in blocks; only the last may be shorter."""
    rest = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        start = BLOCK_BYTES - len(rest) if rest else 0
        rest += view[:start]
        if len(rest) == BLOCK_BYTES:
            yield bytes(rest)
            rest.clear()
        if not rest:
            whole = start + (max(len(view) - start, 0) // BLOCK_BYTES) * BLOCK_BYTES
            for offset in range(start, whole, BLOCK_BYTES):
                yield bytes(view[offset : offset + BLOCK_BYTES])
            rest += view[max(whole, start) :]
    if rest:
        yield bytes(rest)
