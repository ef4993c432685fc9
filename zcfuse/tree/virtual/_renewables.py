"""Finds what a mount reads again when its file changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zcfuse.tree._dir import Dir
from zcfuse.tree._renewal import Renewable
from zcfuse.tree._report import parts_in
from zcfuse.tree._types import Tree
from zcfuse.tree.virtual._tree import VirtualTree


def renewables_in(tree: Tree) -> Iterator[tuple[Renewable, Callable[[], None] | None]]:
    """Yield each `Renewable` of a tree, and what tells the kernel that it has new contents.

    None stands for the root of the tree, which has no name that could mean something else. A
    directory tells about its own names.
    """
    if isinstance(tree, Renewable):
        yield tree, None
    if not isinstance(tree, VirtualTree):
        return
    top = tree.root.directory
    if isinstance(top, Renewable):
        yield top, _nothing
    for holder, name, part in parts_in(top):
        if isinstance(part, Renewable):
            yield part, _nothing if not isinstance(part, Tree) else _teller(holder, name)


def _teller(holder: Dir, name: bytes) -> Callable[[], None]:
    return lambda: holder.changed(name)


def _nothing() -> None:
    """Do nothing."""
