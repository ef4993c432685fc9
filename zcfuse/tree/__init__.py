"""What a mount shows: trees of nodes, their attributes and the files behind them.

Nothing here knows of FUSE. A tree may be used from any thread; its calls are plain blocking system
calls that never wait for a writer, a lease or the mount that shows the tree.
"""

from zcfuse.tree._file import RegularFile
from zcfuse.tree._mirror import Mirror
from zcfuse.tree._types import (
    WHOLE_FILE,
    Attributes,
    BackingFile,
    Extent,
    Identity,
    Listing,
    Node,
    StatFs,
    Tree,
)
from zcfuse.tree._union import Union

__all__ = [
    "WHOLE_FILE",
    "Attributes",
    "BackingFile",
    "Extent",
    "Identity",
    "Listing",
    "Mirror",
    "Node",
    "RegularFile",
    "StatFs",
    "Tree",
    "Union",
]
