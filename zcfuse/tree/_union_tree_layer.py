"""A layer of a union that is a tree: an archive, a manifest, a program's `Dir`.

Names that begin with ``.wh.`` hide names of the layers below, as in an OCI image layer. Extended
attributes of such a layer mark nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Final

from zcfuse.tree._types import Attributes, BackingFile, Identity, Lease, Node, StatFs, Tree
from zcfuse.tree._union_layer import LayerEntry, Missing, Whiteout
from zcfuse.tree._union_marks import NO_MARKS, OCI_OPAQUE, OCI_PREFIX, is_device_whiteout

_MISSING: Final = frozenset({errno.ENOENT, errno.ENAMETOOLONG})
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
        return not self._lowest and not self.tree.waits and self._has(self.root, OCI_OPAQUE)

    def above(self) -> Sequence[tuple[int, int]]:
        """Return the directories above the layer's root: none."""
        return ()

    def enter(self, directory: Node) -> None:
        """Do nothing: a tree opens no directory to look up names in it."""

    def find(self, at: object, directory: Node, name: bytes) -> LayerEntry | Whiteout | Missing:
        """Look `name` up in `directory`."""
        try:
            node, attributes = self.tree.lookup(directory, name)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            covered = not self._lowest and self._has(directory, OCI_PREFIX + name)
            return Whiteout() if covered else Missing(error.errno or errno.ENOENT)
        if is_device_whiteout(attributes):
            return Whiteout()
        covers = self._lowest or not stat.S_ISDIR(attributes.mode)
        covers = covers or self._has(node, OCI_OPAQUE) or self._has(directory, OCI_PREFIX + name)
        return LayerEntry(self, node, attributes, NO_MARKS, covers)

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

    def _has(self, directory: Node, name: bytes) -> bool:
        try:
            self.tree.lookup(directory, name)
        except OSError as error:
            if error.errno in _MISSING:
                return False
            raise
        return True
