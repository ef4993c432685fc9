"""The listing of a merged directory: the names of all layers at one moment."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zcfuse.datapath import WHITEOUT_PREFIX, is_reserved
from zcfuse.tree._snapshot import Snapshot, unseen_attributes
from zcfuse.tree._types import Attributes
from zcfuse.tree._union_nodes import UnionNode, UnseenUnionNode
from zcfuse.tree._union_search import LayerDirectory

if TYPE_CHECKING:
    from zcfuse.tree._union import Union


class UnionListing(Snapshot[UnionNode]):
    """The names that any layer has in a directory, each once."""

    __slots__ = ("_kinds", "_union", "_whiteouts")

    def __init__(self, union: Union, directory: UnionNode) -> None:
        kinds: dict[bytes, int] = {}
        whiteouts: dict[bytes, int] = {}
        for part in directory.parts:
            for name, kind in part.layer.names(part.node).items():
                if not is_reserved(name):
                    kinds.setdefault(name, kind)
                else:
                    whiteouts.setdefault(name.removeprefix(WHITEOUT_PREFIX), part.layer.index)
        super().__init__(union, directory, directory.parent or directory, list(kinds))
        self._union = union
        self._kinds = bytes(kinds.values())
        self._whiteouts = whiteouts

    def entered(self) -> contextlib.AbstractContextManager[list[LayerDirectory]]:
        """Open the parts of the directory."""
        return contextlib.nullcontext(self._union._entered(self._directory))

    def entry(self, opened: Sequence[LayerDirectory], index: int) -> tuple[UnionNode, Attributes]:
        """Return the node of a name; ENOENT for a whiteout."""
        return self._union._entry(self._directory, opened, self._names[index])

    def failures(self) -> Mapping[bytes, int]:
        """Return those of the listing and of its layers; no layer hides or shows their names."""
        found: dict[bytes, int] = {}
        for part in self._directory.parts:
            for name, number in part.layer.failures(part.node).items():
                if self._whiteouts.get(name, part.layer.index) >= part.layer.index:
                    found.setdefault(name, number)
        for name in self._names:
            found.pop(name, None)
        return {**found, **super().failures()}

    def unseen(self, index: int) -> tuple[UnionNode, Attributes]:
        """Return a stand-in for an entry that cannot be examined."""
        name = self._names[index]
        ino = zlib.crc32(name, zlib.crc32(repr(self._directory.identity).encode())) or 1
        node = UnseenUnionNode(self._directory, name)
        return node, unseen_attributes(ino, self._kinds[index])
