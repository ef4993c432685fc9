"""Memory that looks like files: sealed memfds, for bytes that a program made.

Each large content gets a separate memfd, which can pass through the kernel like any file. Small
ones lie side by side in chunks, each twice as large as the one before, so that any number of them
costs a few descriptors; and so do large ones once a share of the descriptors that the process may
have is used up. A chunk is given back with the last content in it.

A memfd is sealed before anybody else sees its descriptor: it neither shrinks nor grows, and only
the arena can write to it, through the mapping that it made before
(F_SEAL_FUTURE_WRITE, Linux 5.1; memfd_create(2), fcntl(2)).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import threading
import weakref
from typing import Final

_LARGE: Final = 1 << 20  # bytes; a content of this size is worth a descriptor
_FIRST_CHUNK: Final = 1 << 20
_LARGEST_CHUNK: Final = 1 << 30  # sparse: only what is filled takes memory
_DESCRIPTOR_SHARE: Final = 4  # of RLIMIT_NOFILE, for contents with a separate memfd
_ALIGNMENT: Final = 8
_WRITE_BYTES: Final = 1 << 30  # write(2) takes no more than 2 GiB at once

_F_SEAL_FUTURE_WRITE: Final = 0x10  # linux/fcntl.h; fcntl has no name for it yet
_SIZE_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class Memory:
    """A memfd. Owns its descriptor, which is closed with the last content that lies in it."""

    __slots__ = ("__weakref__", "fd")

    def __init__(self, size: int) -> None:
        self.fd = -1
        self.fd = os.memfd_create("zcfuse-bytes", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.truncate(self.fd, size)

    def __del__(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def seal(self, seals: int) -> None:
        """Add seals that can never be taken off."""
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)


class MemoryPlace:
    """Where a content lies; keeps the memory."""

    __slots__ = ("memory", "offset", "whole")

    def __init__(self, memory: Memory, offset: int, *, whole: bool) -> None:
        self.memory = memory
        self.offset = offset
        self.whole = whole


class _Chunk:
    """A memfd that is being filled from its start on."""

    __slots__ = ("_mapping", "_size", "_used", "memory")

    def __init__(self, size: int) -> None:
        self.memory = Memory(size)
        self._mapping = mmap.mmap(self.memory.fd, size)
        self._size = size
        self._used = 0
        self.memory.seal(_SIZE_SEALS)
        try:
            self.memory.seal(_F_SEAL_FUTURE_WRITE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before Linux 5.1
                raise

    def place(self, data: memoryview) -> MemoryPlace | None:
        """Copy a content in; None where it does not fit."""
        offset = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        if offset + data.nbytes > self._size:
            return None
        self._mapping[offset : offset + data.nbytes] = data
        self._used = offset + data.nbytes
        return MemoryPlace(self.memory, offset, whole=False)


class Arena:
    """Places contents. Thread-safe."""

    def __init__(self, *, large: int = _LARGE) -> None:
        """`large` is the size in bytes of the smallest content that gets a separate memfd."""
        self._large = large
        self._lock = threading.Lock()
        self._chunk: _Chunk | None = None
        self._next_bytes = _FIRST_CHUNK
        self._own: weakref.WeakSet[Memory] = weakref.WeakSet()

    def place(self, data: memoryview) -> MemoryPlace:
        """Copy a content into sealed memory. Raises OSError when memory or descriptors run out."""
        with self._lock:
            if data.nbytes >= self._large and len(self._own) < _descriptors():
                memory = _filled(data)
                self._own.add(memory)
                return MemoryPlace(memory, 0, whole=True)
            place = None if self._chunk is None else self._chunk.place(data)
            if place is None:
                self._chunk = _Chunk(max(self._next_bytes, data.nbytes, mmap.PAGESIZE))
                self._next_bytes = min(2 * self._next_bytes, _LARGEST_CHUNK)
                place = self._chunk.place(data)
            assert place is not None, "a new chunk is large enough"
            return place


def _descriptors() -> int:
    """Return how many contents may each hold a separate descriptor."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft // _DESCRIPTOR_SHARE if soft != resource.RLIM_INFINITY else 1 << 20


def _filled(data: memoryview) -> Memory:
    memory = Memory(data.nbytes)
    done = 0
    while done < data.nbytes:
        done += os.pwrite(memory.fd, data[done : done + _WRITE_BYTES], done)
    memory.seal(_SIZE_SEALS | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
    return memory
