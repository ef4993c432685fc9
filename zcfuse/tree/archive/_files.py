"""Open members: byte ranges of the archive, or memory with a decompressed member."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence

from zcfuse.tree._file import pread_extents
from zcfuse.tree._types import HOLE, WHOLE_FILE, Attributes, BackingFile, Extent
from zcfuse.tree.archive._index import ArchiveIndex, Member
from zcfuse.tree.archive._members import Run
from zcfuse.tree.archive._unpacked import UnpackedMembers


class SharedArchive:
    """The archive's descriptor, shared by all open files. Thread-safe."""

    def __init__(self, index: ArchiveIndex) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._fd = -1
        self._users = 0

    def take(self) -> int:
        """Return the descriptor, borrowed until give_back(); ESTALE if the archive has changed."""
        # Before the lock, which a thread that waits for the filesystem may hold.
        self._index.place.require_near()
        with self._lock:
            if self._fd < 0:
                self._fd = self._index.open()
            else:
                self._index.check()
            self._users += 1
            return self._fd

    def give_back(self) -> None:
        """Close the descriptor after its last user."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                fd, self._fd = self._fd, -1
                os.close(fd)


class MemberFile(BackingFile):
    """An open member in ranges of the archive."""

    __slots__ = ("_attributes", "_fd", "_runs", "_shared")

    def __init__(self, shared: SharedArchive, runs: Sequence[Run], attributes: Attributes) -> None:
        self._runs = runs
        self._attributes = attributes
        self._shared = shared
        self._fd = shared.take()

    @property
    def extents(self) -> Sequence[Extent]:
        """The ranges, including holes."""
        return list(self._ranges())

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return pread_extents(self._ranges(), size, offset)

    def attributes(self) -> Attributes:
        """Return the attributes, which do not change."""
        return self._attributes

    def close(self) -> None:
        """Give the descriptor back."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._shared.give_back()

    def _ranges(self) -> Iterator[Extent]:
        for run in self._runs:
            if run.offset is None:
                yield Extent(HOLE, 0, run.length)
            else:
                yield Extent(self._fd, run.offset, run.length)


class UnpackedFile(BackingFile):
    """An open decompressed member."""

    __slots__ = ("_attributes", "_fd", "_node", "_owner", "_unpacked")

    def __init__(
        self,
        unpacked: UnpackedMembers,
        member: Member,
        attributes: Attributes,
        owner: object,
    ) -> None:
        self._attributes = attributes
        self._owner = owner  # frees the member once nobody refers to it
        self._node = member.node
        self._unpacked = unpacked
        self._fd = unpacked.take(member)

    @property
    def extents(self) -> Sequence[Extent]:
        """Its memory, as one extent."""
        return (Extent(self._fd, 0, WHOLE_FILE),)

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return os.pread(self._fd, size, offset)

    def attributes(self) -> Attributes:
        """Return the attributes, which do not change."""
        return self._attributes

    def close(self) -> None:
        """Release the memory for other members."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._unpacked.give_back(self._node)
