"""Look up a name in a merged directory, from the top layer to the bottom.

The search is the data path's own; here it asks layers that only Python can answer for: trees of
programs, and directories with other mounts inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from zcfuse.datapath import SourceDirectory, search_layers
from zcfuse.tree._backing import OpenPlace
from zcfuse.tree._types import Attributes, Node
from zcfuse.tree._union_layer import AnyLayer


class LayerDirectory(msgspec.Struct, frozen=True):
    """One layer's part of a merged directory. `place` is where it is open, None until it is."""

    layer: AnyLayer
    node: Node
    place: OpenPlace | None = None

    def opened(self) -> LayerDirectory:
        """Open it to look at its entries."""
        return LayerDirectory(self.layer, self.node, self.layer.enter(self.node))

    def look(self, name: bytes) -> LayerEntry:
        """Look a name up in the directory, which is open."""
        return LayerEntry(self.layer, *self.layer.find(self.place, self.node, name))


class LayerEntry(msgspec.Struct, frozen=True):
    """One layer's file under a name. Its marks are those of `own_name` in `at`; None: it has none.

    A mounted file is the name b"" in itself.
    """

    layer: AnyLayer
    node: Node
    attributes: Attributes
    at: SourceDirectory | None = None
    own_name: bytes = b""

    def directory(self) -> LayerDirectory:
        """Open it to look at its entries."""
        return LayerDirectory(self.layer, self.node).opened()


class SearchResult(msgspec.Struct, frozen=True):
    """The result of a search.

    `pieces` holds one directory for each merged layer, the topmost first, or a single piece that
    is not a directory. `data` is the file that holds the bytes of a metacopy. `refused` gives the
    reason why a part cannot be served, and is empty otherwise.
    """

    pieces: tuple[LayerEntry, ...]
    data: LayerEntry | None
    refused: str


def search(
    parts: Sequence[LayerDirectory], roots: Sequence[LayerDirectory], name: bytes
) -> SearchResult:
    """Return what `name` is in the directory made of `parts`, which are open.

    `roots` are the parts of the root.

    Raises OSError: ENOENT where no layer has it, and whatever looking gives.
    """

    def roots_below(layer: int) -> list[LayerDirectory]:
        return [root.opened() for root in roots if root.layer.index > layer]

    return SearchResult(*search_layers(parts, roots_below, name))
