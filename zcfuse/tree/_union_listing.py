"""The listing of a merged directory: the names of all layers at one moment.

The listing looks each name up when it reaches it, so that listings and lookups agree, also about
whiteouts. It holds only the names of one directory.
"""

from __future__ import annotations

import errno
import stat
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from zcfuse.tree._types import Attributes, Listing
from zcfuse.tree._union_marks import is_reserved
from zcfuse.tree._union_nodes import UnionNode, UnseenUnionNode
from zcfuse.tree._union_search import Part

if TYPE_CHECKING:
    from zcfuse.tree._union import Union

_DOTS: Final = 2
# ENOENT: gone since, or a whiteout. ELOOP: the mount's own filesystem.
_SKIPPED: Final = frozenset({errno.ENOENT, errno.ELOOP})


class UnionListing(Listing):
    """A snapshot of a directory. Offset n stands behind entry n - 1, "." being entry 0."""

    __slots__ = ("_directory", "_kinds", "_names", "_union")

    def __init__(self, union: Union, directory: UnionNode) -> None:
        """Read the names that any layer has in `directory`, each once."""
        kinds: dict[bytes, int] = {}
        for part in directory.parts:
            for name, kind in part.layer.names(part.node).items():
                if not is_reserved(name):
                    kinds.setdefault(name, kind)
        self._union = union
        self._directory = directory
        self._names = list(kinds)
        self._kinds = bytes(kinds.values())

    def entries(self, start: int) -> Iterator[tuple[int, bytes, UnionNode, Attributes]]:
        """Yield the entries from offset `start`; ESTALE once the directory is elsewhere."""
        if start >= _DOTS + len(self._names):
            return
        with self._union.entered(self._directory) as parts:
            yield from self._dots(start)
            for index in range(max(start - _DOTS, 0), len(self._names)):
                found = self._entry(parts, index)
                if found is not None:
                    yield index + _DOTS + 1, self._names[index], *found

    def close(self) -> None:
        """Free the names."""
        self._names = []
        self._kinds = b""

    def _dots(self, start: int) -> Iterator[tuple[int, bytes, UnionNode, Attributes]]:
        if start == 0:
            yield 1, b".", self._directory, self._union.attributes(self._directory)
        if start <= 1:
            above = self._directory.parent or self._directory
            try:
                attributes = self._union.attributes(above)
            except OSError:
                above, attributes = self._directory, self._union.attributes(self._directory)
            yield 2, b"..", above, attributes

    def _entry(self, parts: Sequence[Part], index: int) -> tuple[UnionNode, Attributes] | None:
        name = self._names[index]
        try:
            return self._union.entry(self._directory, parts, name)
        except OSError as error:
            return None if error.errno in _SKIPPED else self._unseen(index)

    def _unseen(self, index: int) -> tuple[UnionNode, Attributes]:
        """Stand in for an entry that cannot be looked at: only its type is known."""
        name = self._names[index]
        mode = self._kinds[index] << 12 or stat.S_IFREG
        ino = zlib.crc32(name, zlib.crc32(repr(self._directory.identity).encode())) or 1
        attributes = Attributes(ino, mode, 1, 0, 0, 0, 0, 4096, 0, 0, 0, 0)
        return UnseenUnionNode(self._directory, name), attributes
