"""The nodes of a virtual tree: an entry or a node of another tree, at a place.

A lookup makes a node, which lives while the kernel knows it. A node's identity is a digest of its
place, its entry's key and the files behind it. The identity stays the same until the name gets
another meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

from zcfuse.datapath import MADE_INO_BIT
from zcfuse.tree._dir import Dir
from zcfuse.tree._entry import Entry
from zcfuse.tree._snapshot import unseen_attributes
from zcfuse.tree._types import Attributes, Node, Tree

if TYPE_CHECKING:
    from zcfuse.tree.virtual._tree import VirtualTree

_DIGEST_BYTES: Final = 16


class EntryNode(Node):
    """An entry at a place. The root has no parent."""

    __slots__ = ("entry", "identity", "name", "parent")

    def __init__(self, entry: Entry, parent: DirNode | None, name: bytes, identity: bytes) -> None:
        self.entry = entry
        self.parent = parent
        self.name = name
        self.identity: bytes = identity

    @property
    def ino(self) -> int:
        """The inode number that clients see."""
        return int.from_bytes(self.identity[:8]) | MADE_INO_BIT


class DirNode(EntryNode):
    """A `Dir` at a place."""

    __slots__ = ("__weakref__", "tree")

    def __init__(
        self, tree: VirtualTree, entry: Dir, parent: DirNode | None, name: bytes, identity: bytes
    ) -> None:
        super().__init__(entry, parent, name, identity)
        self.tree = tree
        entry.show(self)

    @property
    def directory(self) -> Dir:
        """The entry."""
        assert isinstance(self.entry, Dir)
        return self.entry

    @property
    def volatile(self) -> bool:  # type: ignore[override]  # a property serves where it is read
        """Whether the kernel must not cache the directory's answers."""
        return self.directory.volatile

    def merge(self, other: Node) -> None:
        """Use the newest of several objects that stand for one directory."""
        if isinstance(other, DirNode) and other.entry is not self.entry:
            self.entry = other.directory
            other.directory.show(self)

    def name_changed(self, name: bytes) -> None:
        """Pass on that a name means something else now."""
        self.tree.name_changed(self, name)


class Graft:
    """Another tree at a place."""

    __slots__ = ("identity", "parent", "tree")

    def __init__(self, tree: Tree, parent: DirNode, identity: bytes) -> None:
        self.tree = tree
        self.parent = parent
        self.identity = identity


class GraftNode(Node):
    """A node of another tree."""

    __slots__ = ("graft", "inner")

    def __init__(self, graft: Graft, inner: Node) -> None:
        self.graft = graft
        self.inner = inner

    @property
    def identity(self) -> Hashable:  # type: ignore[override]  # a property serves where it is read
        """The tree's place and the node's identity in it."""
        return self.graft.identity, self.inner.identity

    @property
    def volatile(self) -> bool:  # type: ignore[override]
        """The other tree's answer."""
        return self.inner.volatile

    def merge(self, other: Node) -> None:
        """Merge the inner nodes."""
        if isinstance(other, GraftNode) and other.inner is not self.inner:
            self.inner.merge(other.inner)

    def beside(self, inner: Node) -> GraftNode:
        """Return another node of the same tree at the same place."""
        return self if inner is self.inner else GraftNode(self.graft, inner)


class UnseenNode(Node):
    """A name that is listed but whose file cannot be looked at now."""

    __slots__ = ("identity",)

    volatile = True

    def __init__(self, identity: bytes) -> None:
        self.identity: bytes = identity

    def attributes(self) -> Attributes:
        """Return what is known: that there is something."""
        ino = int.from_bytes(self.identity[:8]) | MADE_INO_BIT
        return unseen_attributes(ino)


def identity_of(parent: bytes, name: bytes, key: object) -> bytes:
    """Return the digest for what `name` is in the directory whose digest is `parent`."""
    text = repr((name, key)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(parent + text, digest_size=_DIGEST_BYTES).digest()
