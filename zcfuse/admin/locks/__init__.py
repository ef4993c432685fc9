"""The files that a mount keeps locked in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.admin.locks._files import FileLocks as FileLocks
    from zcfuse.admin.locks._files import backing_ranges as backing_ranges
    from zcfuse.admin.locks._files import files_of as files_of
    from zcfuse.admin.locks._files import pieces_of as pieces_of
    from zcfuse.admin.locks._room import LockRoom as LockRoom
    from zcfuse.admin.locks._room import OwnBudget as OwnBudget
else:
    __getattr__ = lazy(
        __name__,
        {
            "_files": (
                "FileLocks",
                "backing_ranges",
                "files_of",
                "pieces_of",
            ),
            "_room": (
                "LockRoom",
                "OwnBudget",
            ),
        },
    )
