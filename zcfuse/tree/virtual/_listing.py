"""Listings of a virtual tree's directories."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from zcfuse.tree._entry import Content
from zcfuse.tree._sources import LOG
from zcfuse.tree._types import Attributes, Listing, Node
from zcfuse.tree.virtual._nodes import DirNode, GraftNode, UnseenNode, identity_of

if TYPE_CHECKING:
    from zcfuse.tree.virtual._tree import VirtualTree

_DOTS: Final = 2
# The name is missing: its file is missing, or lies on the mount itself.
_SKIPPED: Final = frozenset({errno.ENOENT, errno.ELOOP})


class DirListing(Listing):
    """The names of a directory. Offset n stands behind entry n - 1, "." being entry 0."""

    __slots__ = ("_directory", "_meaning", "_names", "_tree")

    def __init__(
        self,
        tree: VirtualTree,
        directory: DirNode,
        names: Sequence[bytes],
        meaning: Callable[[bytes], Content | None],
    ) -> None:
        """`meaning` returns a name's present entry, None if it is gone."""
        self._tree = tree
        self._directory = directory
        self._names = names
        self._meaning = meaning

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the entries from offset `start`."""
        if start == 0:
            yield 1, b".", self._directory, self._tree.attributes(self._directory)
        if start <= 1:
            above = self._directory.parent or self._directory
            yield 2, b"..", above, self._tree.attributes(above)
        for index in range(max(start - _DOTS, 0), len(self._names)):
            name = self._names[index]
            found = self._look(name)
            if found is not None:
                yield index + _DOTS + 1, name, *found

    def close(self) -> None:
        """Free the names."""
        self._names = ()

    def _look(self, name: bytes) -> tuple[Node, Attributes] | None:
        try:
            content = self._meaning(name)
            return None if content is None else self._tree.place(self._directory, name, content)
        except OSError as error:
            if error.errno in _SKIPPED:
                return None
        except Exception:
            LOG.exception("the directory entry %r cannot be shown", name)
        unseen = UnseenNode(identity_of(self._directory.identity, name, "unseen"))
        return unseen, unseen.attributes()


class GraftListing(Listing):
    """The listing of a directory of another tree."""

    __slots__ = ("_directory", "_inner")

    def __init__(self, directory: GraftNode, inner: Listing) -> None:
        self._directory = directory
        self._inner = inner

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the other tree's entries."""
        at_top = self._directory.inner is self._directory.graft.tree.root
        entries = self._inner.entries(start)
        try:
            for offset, name, inner, attributes in entries:
                if at_top and name == b"..":
                    yield offset, name, self._directory.graft.parent, attributes
                else:
                    yield offset, name, self._directory.beside(inner), attributes
        finally:
            close = getattr(entries, "close", None)
            if close is not None:
                close()

    def close(self) -> None:
        """Close the other tree's listing."""
        self._inner.close()
