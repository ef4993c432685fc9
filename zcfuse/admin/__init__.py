"""Administration of a mount: status, metrics, locked files, explanations, unmounting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.admin._file_requests import FileRequests as FileRequests
    from zcfuse.admin._messages import MOST_BYTES as MOST_BYTES
    from zcfuse.admin._messages import MOST_FILES as MOST_FILES
    from zcfuse.admin._messages import CacheReply as CacheReply
    from zcfuse.admin._messages import FileRange as FileRange
    from zcfuse.admin._messages import LockReply as LockReply
    from zcfuse.admin._messages import LockReport as LockReport
    from zcfuse.admin._messages import UnlockReply as UnlockReply
    from zcfuse.admin._service import ServiceManager as ServiceManager
    from zcfuse.admin._unmounting import UnmountOutcome as UnmountOutcome
    from zcfuse.admin._unmounting import unmount_within as unmount_within
else:
    __getattr__ = lazy(
        __name__,
        {
            "_file_requests": ("FileRequests",),
            "_messages": (
                "MOST_BYTES",
                "MOST_FILES",
                "CacheReply",
                "FileRange",
                "LockReply",
                "LockReport",
                "UnlockReply",
            ),
            "_service": ("ServiceManager",),
            "_unmounting": (
                "UnmountOutcome",
                "unmount_within",
            ),
        },
    )
