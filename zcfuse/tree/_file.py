"""An open regular file of a real filesystem, and bytes of files that are made of parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from zcfuse.linux import AT_EMPTY_PATH, Status, statx
from zcfuse.tree._types import HOLE, WHOLE_FILE, Attributes, BackingFile, Extent


class RegularFile(BackingFile):
    """A backing file that is one real file as a whole. Owns `fd`."""

    __slots__ = ("_describe", "_fd")

    def __init__(self, fd: int, describe: Callable[[Status], Attributes] | None = None) -> None:
        """Take over `fd`; `describe` turns the file's status into the attributes to be shown."""
        self._fd = fd
        self._describe = describe

    @property
    def extents(self) -> Sequence[Extent]:
        """One extent: the whole file."""
        return (Extent(self._fd, 0, WHOLE_FILE),)

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._fd

    def detach(self) -> int:
        """Return the descriptor, which is the caller's from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return os.pread(self._fd, size, offset)

    def attributes(self) -> Attributes:
        """Return the attributes of the open file, whatever its name leads to by now."""
        status = statx(self._fd, b"", AT_EMPTY_PATH)
        return status.attributes if self._describe is None else self._describe(status)

    def close(self) -> None:
        """Close the descriptor."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def pread_extents(extents: Iterable[Extent], size: int, offset: int) -> bytes:
    """Return up to `size` bytes from `offset` of a file; a backing file that is short ends it."""
    found = bytearray()
    for extent in extents:
        if offset >= extent.length:
            offset -= extent.length
            continue
        wanted = min(size - len(found), extent.length - offset)
        if wanted == 0:
            break
        part = bytes(wanted)
        if extent.fd != HOLE:
            part = os.pread(extent.fd, wanted, extent.offset + offset)
        found += part
        if len(part) < wanted:
            break
        offset = 0
    return bytes(found)
