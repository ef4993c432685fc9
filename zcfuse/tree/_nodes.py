"""The nodes of a mirror: an identity and the names that lookups used, without descriptors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from zcfuse.datapath import DEPTH_LIMIT
from zcfuse.tree._types import Node

# Names kept for an inode with many links, the newest first. A client that uses a forgotten name
# gets ESTALE; then its kernel looks the path up, and the name is known again.
_LINKS_KEPT: Final = 8


class MirrorNode(Node):
    """A file of the mirrored tree. The root has no parent."""

    __slots__ = ("_others", "identity", "name", "parent")

    def __init__(self, identity: bytes, parent: MirrorNode | None, name: bytes) -> None:
        self.identity: bytes = identity
        self.parent = parent
        self.name = name
        self._others: tuple[tuple[MirrorNode, bytes], ...] = ()

    def merge(self, other: Node) -> None:
        """Try the name of `other` first from now on, then the earlier ones."""
        if not isinstance(other, MirrorNode) or other is self or other.parent is None:
            return
        if self.parent is None or (other.parent is self.parent and other.name == self.name):
            return
        newest = (other.parent, other.name)
        earlier = ((self.parent, self.name), *self._others)
        self._others = tuple(link for link in earlier if not _same(link, newest))[: _LINKS_KEPT - 1]
        self.parent, self.name = newest

    def paths(self) -> Iterator[list[bytes]]:
        """Yield the names from the root down to the node, by each link known, the newest first."""
        if self.parent is None:
            yield []
            return
        yield [*_path(self.parent), self.name]
        for parent, name in self._others:
            yield [*_path(parent), name]


class UnseenNode(MirrorNode):
    """A listed name without a status, for example for lack of search permission."""

    __slots__ = ()

    volatile = True


def _path(node: MirrorNode) -> list[bytes]:
    names: list[bytes] = []
    while node.parent is not None:
        names.append(node.name)
        node = node.parent
        if len(names) > DEPTH_LIMIT:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    names.reverse()
    return names


def _same(link: tuple[MirrorNode, bytes], other: tuple[MirrorNode, bytes]) -> bool:
    return link[1] == other[1] and link[0].identity == other[0].identity
