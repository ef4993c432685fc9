"""Finds what a mount reads again when its file changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from zcfuse.tree._dir import Dir
from zcfuse.tree._renewal import Renewable, RenewablePart
from zcfuse.tree._report import parts_in
from zcfuse.tree._types import Tree


def renewables_in(top: Dir) -> Iterator[RenewablePart]:
    """Yield each `Renewable` of a directory, with what tells the kernel that it has new contents.

    A directory tells about its own names.
    """
    if isinstance(top, Renewable):
        yield RenewablePart(top, top.coherence, _nothing)
    for holder, name, part in parts_in(top):
        if isinstance(part, Tree):
            for one in part.renewables():
                yield one if one.tell else replace(one, tell=_teller(part, holder, name))
        elif isinstance(part, Renewable):
            yield RenewablePart(part, part.coherence, _nothing)


def _teller(tree: Tree, holder: Dir, name: bytes) -> Callable[[], None]:
    def tell() -> None:
        tree.take_over()
        holder.changed(name)

    return tell


def _nothing() -> None:
    """Do nothing."""
