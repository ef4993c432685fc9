"""A file object for the parsers: read, tell and seek over pread, with bounded reads."""

from __future__ import annotations

import errno
import os
from typing import Final

SMALL_WINDOW: Final = 4096
"""Bytes to read after a jump: a header or two, in one disk page."""

LARGE_WINDOW: Final = 256 * 1024
"""Bytes to read at once if headers are adjacent."""


class Reader:
    """Reads an open file at a private position. Borrows the descriptor.

    The window grows during sequential reads and shrinks at a jump. An archive of large members
    costs one disk page per header, and one of small members few calls.
    """

    def __init__(self, fd: int, size: int, limit: int) -> None:
        """Read `fd` up to byte `size`; refuse a single read of more than `limit` bytes."""
        self.size = size
        self._fd = fd
        self._limit = limit
        self._position = 0
        self._window = b""
        self._start = 0
        self._length = SMALL_WINDOW

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position and return it; reads beyond the end return nothing."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "a position before the beginning of the file")
        self._position = base + offset
        return self._position

    def read(self, count: int = -1) -> bytes:
        """Return the next `count` bytes, fewer only at the end; without a count all of them."""
        left = max(self.size - self._position, 0)
        count = left if count is None or count < 0 else min(count, left)
        if count > self._limit:
            raise ValueError(f"{count} bytes asked for at once, of at most {self._limit}")
        start = self._position - self._start
        if start < 0 or start + count > len(self._window):
            self._fill(count)
            start = self._position - self._start
        found = self._window[start : start + count]
        self._position += len(found)
        return found

    def _fill(self, count: int) -> None:
        """Refill the window from the position."""
        end = self._start + len(self._window)
        near = self._start <= self._position <= end + SMALL_WINDOW
        self._length = min(self._length * 2, LARGE_WINDOW) if near else SMALL_WINDOW
        self._start = self._position
        self._window = read_at(self._fd, max(count, self._length), self._position)


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Return `count` bytes from `offset`, fewer only at the end of the file."""
    found = os.pread(fd, count, offset)
    if len(found) == count or not found:
        return found
    pieces = [found]
    done = len(found)
    while done < count and (found := os.pread(fd, count - done, offset + done)):
        pieces.append(found)
        done += len(found)
    return b"".join(pieces)
