"""File objects for the parsers: read, tell and seek, with bounded reads."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from typing import Final, Protocol

from zcfuse.tree.archive._compression import SeekableStream

SMALL_WINDOW: Final = 4096
"""Bytes to read after a jump: a header or two, in one disk page."""

LARGE_WINDOW: Final = 256 * 1024
"""Bytes to read at once if headers are adjacent."""


PROGRESS_BYTES: Final = 64 * 1024 * 1024
"""Decompressed bytes between two reports of a stream's progress."""


class TarReader(Protocol):
    """The input of the parser of tar archives: a file, or a stream that it reads forward once."""

    streamed: bool
    """Whether offsets are those of decompressed bytes."""

    def tell(self) -> int: ...
    def seek(self, offset: int, whence: int = ..., /) -> int: ...
    def read(self, count: int = ..., /) -> bytes: ...

    def begin(self, offset: int) -> None:
        """Say that nothing before `offset` will be read again."""
        ...

    def checksum(self, offset: int, length: int) -> int | None:
        """Return the CRC-32 of a stream's bytes, 0 for a file; None if it ends before them."""
        ...

    def end(self) -> int:
        """Return the number of bytes, once the end was met."""
        ...


class Reader:
    """Reads an open file at a private position. Borrows the descriptor.

    The window grows during sequential reads and shrinks at a jump. An archive of large members
    costs one disk page per header, and one of small members few calls.
    """

    def __init__(self, fd: int, size: int, limit: int) -> None:
        """Read `fd` up to byte `size`; refuse a single read of more than `limit` bytes."""
        self.size = size
        self.streamed = False
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
        if count == 0:
            return b""  # also at a position that no pread(2) takes
        start = self._position - self._start
        if start < 0 or start + count > len(self._window):
            self._fill(count)
            start = self._position - self._start
        found = self._window[start : start + count]
        self._position += len(found)
        return found

    def begin(self, offset: int) -> None:
        """Do nothing: a file is read again as easily."""

    def checksum(self, offset: int, length: int) -> int | None:
        """Return 0 if the file has these bytes, and None otherwise."""
        return 0 if offset + length <= self.size else None

    def end(self) -> int:
        """Return the size."""
        return self.size

    def _fill(self, count: int) -> None:
        """Refill the window from the position."""
        end = self._start + len(self._window)
        near = self._start <= self._position <= end + SMALL_WINDOW
        self._length = min(self._length * 2, LARGE_WINDOW) if near else SMALL_WINDOW
        self._start = self._position
        self._window = read_at(self._fd, max(count, self._length), self._position)


class StreamReader:
    """Reads a compressed stream forward, once. Keeps the headers of one member in memory."""

    def __init__(self, stream: SeekableStream, limit: int, progress: Callable[[int], None]) -> None:
        """Refuse a single read of more than `limit` bytes; tell `progress` compressed bytes."""
        self.streamed = True
        self._stream = stream
        self._limit = limit
        self._progress = progress
        self._position = 0
        self._window = bytearray()
        self._start = 0
        self._next_report = PROGRESS_BYTES

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position at or after that of begin(), and return it."""
        if whence == os.SEEK_CUR:
            offset += self._position
        if offset < self._start or whence == os.SEEK_END:
            raise OSError(errno.EINVAL, "a position that a stream does not go back to")
        self._position = offset
        return offset

    def read(self, count: int = -1) -> bytes:
        """Return the next `count` bytes, fewer only at the end."""
        if not 0 <= count <= self._limit:
            raise ValueError(f"{count} bytes asked for at once, of at most {self._limit}")
        self._pass(self._position)
        while self.end() < self._position + count and self._more():
            pass
        start = self._position - self._start
        found = bytes(self._window[start : start + count])
        self._position += len(found)
        return found

    def begin(self, offset: int) -> None:
        """Forget the bytes before `offset`."""
        self._pass(offset)
        done = min(offset - self._start, len(self._window))
        del self._window[:done]
        self._start += done

    def checksum(self, offset: int, length: int) -> int | None:
        """Return the CRC-32 of bytes and forget them; None if the stream ends before them."""
        self.begin(offset)
        crc, left = 0, length
        while left and (self._window or self._more()):
            piece = bytes(self._window[:left])
            crc = zlib.crc32(piece, crc)
            left -= len(piece)
            self.begin(self._start + len(piece))
        return None if left else crc

    def end(self) -> int:
        """Return the position after the bytes in memory."""
        return self._start + len(self._window)

    def _pass(self, offset: int) -> None:
        """Read up to a position beyond the bytes in memory, and forget those."""
        while self.end() < offset:
            self._start = self.end()
            self._window.clear()
            if not self._more():
                return

    def _more(self) -> bool:
        """Decompress some more; return whether there was more."""
        found = self._stream.read(LARGE_WINDOW)
        self._window += found
        if self.end() >= self._next_report:
            self._next_report = self.end() + PROGRESS_BYTES
            self._progress(self._stream.done())
        return bool(found)


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
