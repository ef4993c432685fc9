"""A layer of a union that is a tree: an archive, a manifest, a program's `Dir`.

Names that begin with ``.wh.`` hide names of the layers below, as in an OCI image layer. Extended
attributes of such a layer mark nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Final

from zcfuse.datapath import OPAQUE_NAME
from zcfuse.tree._types import Attributes, BackingFile, Identity, Lease, Node, StatFs, Tree
from zcfuse.tree._union_layer import Found

_DOTS: Final = frozenset({b".", b".."})


class TreeLayer:
    """Answers of one tree, in the form in which a union asks its layers; `index` from the top.

    The tree stays the caller's, unless the layer is `owned`. With `lowest`, no layer is below.
    """

    device: Final = 0
    stacked: Final = False

    def __init__(
        self, tree: Tree, index: int, *, lowest: bool = False, owned: bool = False
    ) -> None:
        self.tree = tree
        self.index = index
        self._lowest = lowest
        self._owned = owned

    @property
    def root(self) -> Node:
        """The tree's root."""
        return self.tree.root

    def refuse_device(self, major: int, minor: int) -> None:
        """Answer ELOOP for whatever lies on this device."""
        self.tree.refuse_device(major, minor)

    def is_opaque(self) -> bool:
        """Say whether an image hides all layers below; a server is not asked for that."""
        if self._lowest or self.tree.waits:
            return False
        with contextlib.suppress(FileNotFoundError):
            self.tree.lookup(self.root, OPAQUE_NAME)
            return True
        return False

    def above(self) -> Sequence[tuple[int, int]]:
        """Return the directories above the layer's root: none."""
        return ()

    def enter(self, directory: Node) -> None:
        """Do nothing: a tree opens no directory to look up names in it."""

    def find(self, place: object, directory: Node, name: bytes) -> Found:
        """Look `name` up in `directory`."""
        return *self.tree.lookup(directory, name), None, b""

    def names(self, directory: Node) -> dict[bytes, int]:
        """Return the names in the directory, each with its d_type, whiteouts included."""
        listing = self.tree.listing(directory)
        try:
            entries = listing.entries(0)
            return {
                name: stat.S_IFMT(attributes.mode) >> 12
                for _, name, _, attributes in entries
                if name not in _DOTS
            }
        finally:
            listing.close()

    def failures(self, directory: Node) -> Mapping[bytes, int]:
        """Return the errno for each name whose entry cannot be found, such as a missing file."""
        listing = self.tree.listing(directory)
        try:
            for _ in listing.entries(0):
                pass
            return listing.failures()
        finally:
            listing.close()

    def attributes(self, node: Node) -> Attributes:
        """Return the node's attributes."""
        return self.tree.attributes(node)

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        return self.tree.readlink(node)

    def open(self, node: Node) -> BackingFile:
        """Open a file."""
        return self.tree.open(node)

    def statfs(self) -> StatFs:
        """Return the sizes behind the tree."""
        return self.tree.statfs()

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute."""
        return self.tree.getxattr(node, name)

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return self.tree.listxattr(node)

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node that the data plane found."""
        return self.tree.adopt(directory, name, identity)

    def lease_root(self) -> Lease | None:
        """Return the lease of the tree's root, None where the data plane cannot answer for it."""
        return self.tree.lease_of(self.tree.root)

    def place(self, node: Node) -> bytes:
        """Return in a few words what the node is."""
        return os.fsencode(self.tree.describe(node))

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return what the tree tells."""
        return self.tree.report()

    def close(self) -> None:
        """Close an owned tree."""
        if self._owned:
            self.tree.close()
