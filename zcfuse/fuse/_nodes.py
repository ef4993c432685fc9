"""The node table: the kernel's nodeid of each node, and its lookups that await a FORGET.

Belongs to the trio thread. A nodeid is never used twice, so that generations can stay 0 and a late
FORGET or a late reply never hits a stranger.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Hashable
from typing import Final

import msgspec

from zcfuse.datapath import DEPTH_LIMIT
from zcfuse.tree import Node

ROOT_NODEID: Final = 1
LISTED_NODES: Final = 100_000
"""The nodes from which on listings add no others, since a listing may have any number of names."""


class _Known(msgspec.Struct, gc=False):
    """gc=False: it is in no reference cycle, and there may be a million of them.

    `above` and `name`: where the last lookup found it.
    """

    nodeid: int
    node: Node
    lookups: int
    opened_as: tuple[int, int] | None = None
    above: _Known | None = None
    name: bytes = b""


class NodeTable:
    """Nodes by nodeid and by identity. The root is always known, as 1."""

    def __init__(self, root: Node, adopt: Callable[[int], Node | None] | None = None) -> None:
        """Begin with the root; `adopt` finds the node of a nodeid that another plane gave out."""
        self._adopt = adopt
        known = _Known(ROOT_NODEID, root, 0)
        self._by_nodeid: dict[int, _Known] = {ROOT_NODEID: known}
        self._by_identity: dict[Hashable, _Known] = {root.identity: known}
        self._next = ROOT_NODEID + 1

    def __len__(self) -> int:
        return len(self._by_nodeid)

    def node(self, nodeid: int) -> Node:
        """Return the node of a nodeid; OSError(ESTALE) if it has been forgotten."""
        return self._known(nodeid).node

    def replace_root(self, root: Node) -> None:
        """Have another node as the root from now on."""
        known = self._by_nodeid[ROOT_NODEID]
        self._by_identity.pop(known.node.identity, None)
        known.node = root
        self._by_identity[root.identity] = known

    def nodeid(self, node: Node) -> int | None:
        """Return the nodeid of a node, None if the kernel does not know it."""
        known = self._by_identity.get(node.identity)
        return None if known is None else known.nodeid

    def is_for_lookups(self, node: Node) -> bool:
        """Return whether a listing should leave `node` to a LOOKUP: it is one too many."""
        return len(self._by_nodeid) >= LISTED_NODES and node.identity not in self._by_identity

    def count_lookup(self, node: Node, parent: int = 0, name: bytes = b"") -> tuple[int, bool]:
        """Count one lookup of `node`; return its nodeid and whether the nodeid is new.

        It was found as `name` in the directory that the kernel knows as `parent`. Call it before
        the reply with the nodeid is written: the kernel may forget the node as soon as it has read
        the reply.
        """
        known = self._by_identity.get(node.identity)
        if known is not None:
            known.lookups += 1
            if known.node is not node:
                known.node.merge(node)
            self._place(known, parent, name)
            return known.nodeid, False
        known = _Known(self._next, node, 1)
        self._place(known, parent, name)
        self._next += 1
        self._by_nodeid[known.nodeid] = known
        self._by_identity[node.identity] = known
        return known.nodeid, True

    def forget(self, nodeid: int, lookups: int) -> bool:
        """Take lookups back; return whether the node is gone now. Ignores unknown ids."""
        known = self._by_nodeid.get(nodeid)
        if known is None or nodeid == ROOT_NODEID:
            return False
        known.lookups -= lookups
        if known.lookups > 0:
            return False
        del self._by_nodeid[nodeid]
        if self._by_identity.get(known.node.identity) is known:
            del self._by_identity[known.node.identity]
        known.above = None  # outsiders' renames may have made a cycle of them
        return True

    def reopened_unchanged(self, nodeid: int, version: int, mtime_ns: int) -> bool:
        """Note version and mtime of a file being opened; return whether the last open saw these."""
        known = self._known(nodeid)
        same = known.opened_as == (version, mtime_ns)
        known.opened_as = (version, mtime_ns)
        return same

    def forget_opened(self, nodeid: int) -> None:
        """Forget version and mtime, so that the node's next open trusts neither."""
        self._known(nodeid).opened_as = None

    def adopt(
        self, nodeid: int, node: Node, parent: int = 0, name: bytes = b"", *, renew: bool = False
    ) -> Node:
        """Register a node under a nodeid of the data plane, which counts its lookups.

        It was found as `name` in `parent`. The data plane forwards the node's last FORGET. Lookups
        in this table never find the node. A node that is known stays, unless `renew` asks for this
        one. Returns the node.
        """
        known = self._by_nodeid.setdefault(nodeid, _Known(nodeid, node, 0))
        if renew:
            known.node = node
        self._place(known, parent, name)
        return known.node

    def path_of(self, nodeid: int) -> bytes | None:
        """Return a node's path from the root, by the names found last; None if unknown."""
        at = self._by_nodeid.get(nodeid)
        names: list[bytes] = []
        while at is not None and at.nodeid != ROOT_NODEID and len(names) < DEPTH_LIMIT:
            names.append(at.name)
            at = at.above
        return None if at is None or at.nodeid != ROOT_NODEID else b"/".join(reversed(names))

    def _place(self, known: _Known, parent: int, name: bytes) -> None:
        above = self._by_nodeid.get(parent)
        if above is not None and above is not known:
            known.above, known.name = above, name

    def _known(self, nodeid: int) -> _Known:
        known = self._by_nodeid.get(nodeid)
        if known is None and self._adopt is not None and self._adopt(nodeid) is not None:
            known = self._by_nodeid.get(nodeid)
        if known is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return known
