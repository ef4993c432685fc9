"""A FUSE filesystem of real files whose bytes never pass through the daemon.

`mount` shows a `Tree` in the filesystem for as long as a trio block runs; `Mirror` is the tree of
one backing directory, `Union` that of several, merged. Subclass `Tree` (or `Mirror`) for a policy
of your own: Python is asked for names and attributes, and once per open; the bytes are served by
the data path or by the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zcfuse.tree import (
    WHOLE_FILE,
    Attributes,
    BackingFile,
    Extent,
    Listing,
    Mirror,
    Node,
    StatFs,
    Tree,
    Union,
)

if TYPE_CHECKING:
    from zcfuse.control import Mount, MountError, MountOptions, mount

__version__ = "0.1.0"

__all__ = [
    "WHOLE_FILE",
    "Attributes",
    "BackingFile",
    "Extent",
    "Listing",
    "Mirror",
    "Mount",
    "MountError",
    "MountOptions",
    "Node",
    "StatFs",
    "Tree",
    "Union",
    "__version__",
    "mount",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    # Loaded when first used: a tree alone needs no event loop and no compiled part.
    if name in {"Mount", "MountError", "MountOptions", "mount"}:
        from zcfuse import control

        return getattr(control, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
