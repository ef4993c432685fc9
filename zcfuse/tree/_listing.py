"""The listing of a mirrored directory: its names at one moment, their status when asked for.

The directory is opened once when the names are read and once for each batch of entries, so that an
open directory of a client costs no descriptor.
"""

from __future__ import annotations

import errno
import stat
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from zcfuse import linux
from zcfuse.tree._nodes import MirrorNode, UnseenNode
from zcfuse.tree._types import Attributes, Listing

if TYPE_CHECKING:
    from zcfuse.tree._mirror import Mirror

_DOTS: Final = 2
# ELOOP: the mount's own filesystem, mounted inside the source, is not shown.
_SKIPPED: Final = frozenset({errno.ENOENT, errno.ELOOP})


class MirrorListing(Listing):
    """A snapshot of a directory. Offset n stands behind entry n - 1, "." being entry 0."""

    __slots__ = ("_directory", "_kinds", "_mirror", "_names")

    def __init__(self, mirror: Mirror, directory: MirrorNode, fd: int) -> None:
        """Read the names of `directory` from `fd`, which stays the caller's."""
        names = linux.directory_names(fd)
        self._mirror = mirror
        self._directory = directory
        self._names = list(names)
        self._kinds = bytes(names.values())

    def entries(self, start: int) -> Iterator[tuple[int, bytes, MirrorNode, Attributes]]:
        """Yield the entries from offset `start`; ESTALE once the directory is elsewhere."""
        if start >= _DOTS + len(self._names):
            return
        fd = self._mirror.enter(self._directory)
        try:
            yield from self._dots(start, fd)
            for index in range(max(start - _DOTS, 0), len(self._names)):
                name = self._names[index]
                try:
                    node, attributes = self._mirror.entry(fd, self._directory, name)
                except OSError as error:
                    if error.errno in _SKIPPED:
                        continue
                    node, attributes = self._unseen(index)
                yield index + _DOTS + 1, name, node, attributes
        finally:
            self._mirror.leave(fd)

    def close(self) -> None:
        """Free the names."""
        self._names = []
        self._kinds = b""

    def _dots(self, start: int, fd: int) -> Iterator[tuple[int, bytes, MirrorNode, Attributes]]:
        if start == 0:
            yield 1, b".", self._directory, self._mirror.inside(fd)
        if start <= 1:
            above = self._directory.parent or self._directory
            try:
                attributes = self._mirror.attributes(above)
            except OSError:
                above, attributes = self._directory, self._mirror.inside(fd)
            yield 2, b"..", above, attributes

    def _unseen(self, index: int) -> tuple[MirrorNode, Attributes]:
        """Stand in for an entry that exists but whose status is denied: only its type is known."""
        name, kind = self._names[index], self._kinds[index]
        identity = b"unseen" + self._directory.identity + name
        mode = kind << 12 or stat.S_IFREG
        ino = zlib.crc32(name, zlib.crc32(self._directory.identity)) or 1
        attributes = Attributes(ino, mode, 1, 0, 0, 0, 0, 4096, 0, 0, 0, 0)
        return UnseenNode(identity, self._directory, name), attributes
