"""Ready-made views: trees that many programs need, each a page of code to read and to change.

All are built of public entries (`Dir`, `File`, `Computed`). Those that take a directory walk it
once, when they are called.
"""

from zcfuse.views._by_user import by_user
from zcfuse.views._dedup import dedup
from zcfuse.views._faulty import faulty
from zcfuse.views._files import Files
from zcfuse.views._flatten import flatten
from zcfuse.views._split import split
from zcfuse.views._tiered import Movable, Opened, Tiered, tiered

__all__ = [
    "Files",
    "Movable",
    "Opened",
    "Tiered",
    "by_user",
    "dedup",
    "faulty",
    "flatten",
    "split",
    "tiered",
]
