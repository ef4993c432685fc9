"""The FUSE operations: pyfuse3 calls them, and they ask a tree.

Everything here runs in the trio thread of the mount.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.fuse._changes import Changes as Changes
    from zcfuse.fuse._directory_leases import DirectoryLeases as DirectoryLeases
    from zcfuse.fuse._far import FarCalls as FarCalls
    from zcfuse.fuse._operations import Operations as Operations
    from zcfuse.fuse._operations import OperationsStatistics as OperationsStatistics
    from zcfuse.fuse._sessions import Session as Session
    from zcfuse.fuse._sessions import own_session as own_session
else:
    __getattr__ = lazy(
        __name__,
        {
            "_changes": ("Changes",),
            "_directory_leases": ("DirectoryLeases",),
            "_far": ("FarCalls",),
            "_operations": (
                "Operations",
                "OperationsStatistics",
            ),
            "_sessions": ("Session", "own_session"),
        },
    )
