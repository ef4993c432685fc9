"""Listings of a virtual tree's directories."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from zcfuse.tree._entry import Content
from zcfuse.tree._snapshot import Snapshot
from zcfuse.tree._sources import LOG
from zcfuse.tree._types import Attributes, Listing, Node
from zcfuse.tree.virtual._nodes import DirNode, GraftNode, UnseenNode, identity_of

if TYPE_CHECKING:
    from zcfuse.tree.virtual._tree import VirtualTree


class DirListing(Snapshot[DirNode]):
    """The names of a directory that a program describes."""

    __slots__ = ("_inos", "_meaning", "_place")

    def __init__(
        self,
        tree: VirtualTree,
        directory: DirNode,
        names: Sequence[bytes],
        meaning: Callable[[bytes], Content | None],
        inos: Mapping[bytes, int] = MappingProxyType({}),
    ) -> None:
        """`meaning` returns a name's present entry, None if it is gone.

        `inos` are the numbers that the data path shows of leased entries.
        """
        super().__init__(tree, directory, directory.parent or directory, names)
        self._inos = inos
        self._place = tree.place
        self._meaning = meaning

    def entry(self, opened: None, index: int) -> tuple[Node, Attributes] | None:
        """Return the node of a name, None if it is gone."""
        name = self._names[index]
        try:
            content = self._meaning(name)
            if content is None:
                return None
            node, attributes = self._place(self._directory, name, content)
            if name in self._inos:
                attributes = msgspec.structs.replace(attributes, ino=self._inos[name])
            return node, attributes
        except OSError as error:
            # The directory has the name: its file is missing.
            self._failures[name] = error.errno or errno.EIO
            raise
        except Exception:
            LOG.exception("the directory entry %r cannot be shown", name)
            self._failures[name] = errno.EIO
        return self.unseen(index)

    def unseen(self, index: int) -> tuple[Node, Attributes]:
        """Return a stand-in for an entry that cannot be shown."""
        name = self._names[index]
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

    def failures(self) -> Mapping[bytes, int]:
        """Return those of the other tree's listing."""
        return self._inner.failures()

    def close(self) -> None:
        """Close the other tree's listing."""
        self._inner.close()
