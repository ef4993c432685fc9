"""Look up a name in a merged directory, from the top layer to the bottom.

The search follows the kernel's (fs/overlayfs/namei.c, ovl_lookup, Linux 6.18). Directories merge
until one is opaque. Any other file ends the search, except a metacopy, whose bytes lie further
down. A redirect gives the name, or the path, that the layers below use for the rest.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

import msgspec

from zcfuse.tree._backing import OpenPlace
from zcfuse.tree._types import Node
from zcfuse.tree._union_layer import AnyLayer, LayerEntry, Missing, Whiteout
from zcfuse.tree._union_marks import Marks, redirect_names


class LayerDirectory(msgspec.Struct, frozen=True):
    """One layer's part of a merged directory. `at` is where it is open, None until it is."""

    layer: AnyLayer
    node: Node
    at: OpenPlace | None = None


class SearchResult(msgspec.Struct, frozen=True):
    """The result of a search.

    `pieces` holds one directory for each merged layer, the topmost first, or a single piece that
    is not a directory. `data` is the file that holds the bytes of a metacopy. `refused` gives the
    reason why a part cannot be served, and is empty otherwise.
    """

    pieces: tuple[LayerEntry, ...]
    data: LayerEntry | None = None
    refused: str = ""


def search(
    parts: Sequence[LayerDirectory], roots: Sequence[LayerDirectory], name: bytes
) -> SearchResult:
    """Return what `name` is in the directory made of `parts`; `roots` are those of the root.

    Raises OSError: ENOENT where no layer has it, and whatever looking gives.
    """
    pieces: list[LayerEntry] = []
    data: LayerEntry | None = None
    way = _Way(name)
    left = list(parts)
    from_the_root = False
    while left and not way.stopped:
        part = left.pop(0)
        piece = way.walk(part)
        if piece is None:
            continue
        if pieces and not piece.is_directory:
            data = piece
        else:
            pieces.append(piece)
        if way.absolute and not from_the_root:
            from_the_root = True
            left = [root for root in roots if root.layer.index > part.layer.index]
    if not pieces:
        raise OSError(way.errno, os.strerror(way.errno), name)
    refused = way.refused
    if way.metacopy and not refused:
        refused = "no layer below has the data of the metacopy"
    return SearchResult(tuple(pieces), data, refused)


class _Way:
    """The names to look up in the next layer down, and the state of the search so far."""

    def __init__(self, name: bytes) -> None:
        self.names = [name]
        self.absolute = False  # the names lead from the root, not from the directory
        self.stopped = False
        self.metacopy = False  # the bytes of the file that was found are still to be found
        self.directory = False
        self.refused = ""
        self.errno = errno.ENOENT

    def walk(self, part: LayerDirectory) -> LayerEntry | None:
        """Return what the part's layer has; None: nothing that shows."""
        names = tuple(self.names)
        at = part
        for depth, name in enumerate(names):
            piece = self._look(at, name)
            if piece is None or not self._take(piece, len(names) - depth - 1):
                return None
            at = LayerDirectory(piece.layer, piece.node)
        return piece

    def _look(self, at: LayerDirectory, name: bytes) -> LayerEntry | None:
        place = at.layer.enter(at.node) if at.at is None else at.at
        found = at.layer.find(place, at.node, name)
        if isinstance(found, Missing):
            self.errno = found.number
            return None
        if isinstance(found, Whiteout):
            self.errno = errno.ENOENT
            self.stopped = True
            return None
        return found

    def _take(self, piece: LayerEntry, after: int) -> bool:
        """Note what a piece means for the layers below; return whether it is part of the answer.

        `after`: the number of names behind that of the piece.
        """
        last = after == 0
        if not piece.is_directory:
            # Once the bytes are found, or where a file is in the way of a directory, it is over.
            hides = self.directory or not last
            hides = hides or (self.metacopy and not stat.S_ISREG(piece.attributes.mode))
            self.metacopy = piece.marks.metacopy if not hides else self.metacopy
            self.stopped = hides or not self.metacopy
            if hides or self.stopped:
                return not hides
        else:
            if last and self.metacopy:
                self.stopped = True
                return False
            self.directory = self.directory or last
            if piece.covers:
                self.stopped = True
                return True
        self._follow(piece.marks, after)
        return True

    def _follow(self, marks: Marks, after: int) -> None:
        if marks.refused:
            self.refused = marks.refused
            self.stopped = True
        elif marks.redirect is not None:
            names = redirect_names(marks.redirect)
            # From the end: a redirect above it may have changed the names before it.
            end = len(self.names) - after
            if marks.redirect.startswith(b"/"):
                self.names[:end] = names
                self.absolute = True
                # A directory above it may have been opaque: this way leads elsewhere.
                self.stopped = False
            else:
                self.names[end - 1] = names[0]
