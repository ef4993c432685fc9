"""The sections of a kept index, with a check of each block that is read.

A kept file is read and not mapped: shortening a mapped file would end the process by SIGBUS.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from zcfuse.linux import AT_EMPTY_PATH, AT_STATX_DONT_SYNC, statx
from zcfuse.tree._near import require_near_mount
from zcfuse.tree.archive._errors import DamagedIndexError
from zcfuse.tree.archive._reader import read_at

BLOCK_BYTES: Final = 4 * 1024
"""Bytes per check: a disk page, 256 entries."""


class CheckedFile:
    """The blocks of a kept file and their checksums. Owns the descriptor."""

    def __init__(self, fd: int, start: int, size: int, sums: memoryview) -> None:
        """Take over `fd`; `size` bytes from `start` on have a CRC-32 per block in `sums`."""
        self._fd = fd
        self._mount = statx(fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC).mount
        self._start = start
        self._size = size
        self._sums = sums

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes; DamagedIndexError if a checksum differs."""
        require_near_mount(self._mount)
        if not 0 <= offset <= offset + length <= self._size:
            raise DamagedIndexError(self._name(), f"bytes {offset} to {offset + length}")
        first, end = offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)
        start = first * BLOCK_BYTES
        size = min(end * BLOCK_BYTES, self._size) - start
        found = read_at(self._fd, size, self._start + start)
        view = memoryview(found)
        for number in range(first, end):
            at = number * BLOCK_BYTES - start
            whole = len(found) == size
            if not whole or zlib.crc32(view[at : at + BLOCK_BYTES]) != self._sums[number]:
                reason = f"block {number} does not match its checksum"
                raise DamagedIndexError(self._name(), reason)
        return found[offset - start : offset - start + length]

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _name(self) -> str:
        return os.readlink(f"/proc/self/fd/{self._fd}")


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
