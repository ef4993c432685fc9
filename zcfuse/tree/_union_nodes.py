"""The nodes of a union: each layer's parts of a file or directory, without descriptors."""

from __future__ import annotations

import msgspec

from zcfuse.tree._nodes import MirrorNode
from zcfuse.tree._types import Attributes, Node
from zcfuse.tree._union_search import LayerDirectory, SearchResult


class UnionNode(Node):
    """A file of the union. The root has no parent.

    `parts` are the directories that are merged, the topmost first, or one other file. `data` has
    the bytes of a metacopy.

    The identity depends on all parts, so a directory becomes another one when a lower layer adds a
    part.
    """

    __slots__ = ("data", "identity", "name", "parent", "parts")

    def __init__(
        self,
        parent: UnionNode | None,
        name: bytes,
        parts: tuple[LayerDirectory, ...],
        data: LayerDirectory | None = None,
    ) -> None:
        self.parent = parent
        self.name = name
        self.parts = parts
        self.data = data
        made_of = parts if data is None else (*parts, data)
        self.identity: tuple[object, ...] = tuple(
            (part.layer.index, part.node.identity) for part in made_of
        )

    @property
    def top(self) -> LayerDirectory:
        """The part whose attributes are shown."""
        return self.parts[0]

    def merge(self, other: Node) -> None:
        """Try the names of `other` first from now on."""
        if not isinstance(other, UnionNode) or other is self or self.parent is None:
            return
        for mine, found in zip(self.parts, other.parts, strict=True):
            mine.node.merge(found.node)
        if self.data is not None and other.data is not None:
            self.data.node.merge(other.data.node)
        self.parent, self.name = other.parent, other.name


class UnseenUnionNode(UnionNode):
    """A name that is listed but cannot be looked at."""

    __slots__ = ()

    volatile = True

    def __init__(self, parent: UnionNode, name: bytes) -> None:
        identity = repr(("unseen", parent.top.node.identity, name)).encode()
        unseen = MirrorNode(identity, None, name)
        super().__init__(parent, name, (LayerDirectory(parent.top.layer, unseen),))


def node_of(parent: UnionNode, name: bytes, found: SearchResult) -> UnionNode:
    """Return the node that a search has found as `name` in `parent`."""
    parts = tuple(LayerDirectory(piece.layer, piece.node) for piece in found.pieces)
    data = None if found.data is None else LayerDirectory(found.data.layer, found.data.node)
    return UnionNode(parent, name, parts, data)


def merged_attributes(top: Attributes, parts: int, data: Attributes | None) -> Attributes:
    """Return the attributes that clients see: the topmost part's, with overlayfs's changes.

    A merged directory's link count would be the number of directories in one layer, so it is 1;
    the blocks of a metacopy are those of the file that has the bytes.
    """
    if parts > 1:
        return msgspec.structs.replace(top, nlink=1)
    return top if data is None else msgspec.structs.replace(top, blocks=data.blocks)
