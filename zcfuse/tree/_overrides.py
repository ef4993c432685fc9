"""Whether a subclass of a tree answers in its own way, so that the data path must ask it."""

from __future__ import annotations

from collections.abc import Collection

from zcfuse.tree._types import Tree

# Methods that build, end and describe a tree. A subclass that overrides only these answers alike.
_FREE = frozenset(
    {"__init__", "__repr__", "close", "describe", "lease_of", "refuse_device", "watch"}
)


def overrides(tree: Tree, base: type[Tree], free: Collection[str] = ()) -> bool:
    """Return whether an object overrides a method of `base` besides those in `free`."""
    return any(
        name in vars(tree) or getattr(type(tree), name) is not getattr(base, name)
        for name, value in {**vars(Tree), **vars(base)}.items()
        if callable(value) and name not in _FREE and name not in free
    )
