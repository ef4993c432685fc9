"""The control plane: mounts, their daemon, and how to ask it.

The names are loaded when they are first used: ``zcfuse list`` needs no event loop, and the
commands fork before one is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from zcfuse.admin._unmounting import UnmountOutcome
    from zcfuse.admin.status._client import StatusError, read_status
    from zcfuse.admin.status._document import StatusDocument, ThreadUsage
    from zcfuse.admin.status._registry import list_mounts
    from zcfuse.control._mount import mount
    from zcfuse.control._served import Mount
    from zcfuse.fuse._operations import Operations, OperationsStatistics
    from zcfuse.linux._mounting import MountError
    from zcfuse.options._mount import SERVING_PATHS, MountOptions

__all__ = [
    "SERVING_PATHS",
    "Mount",
    "MountError",
    "MountOptions",
    "Operations",
    "OperationsStatistics",
    "StatusDocument",
    "StatusError",
    "ThreadUsage",
    "UnmountOutcome",
    "list_mounts",
    "mount",
    "read_status",
]

_HOMES: Final = {
    "SERVING_PATHS": "zcfuse.options._mount",
    "Mount": "zcfuse.control._served",
    "MountError": "zcfuse.linux._mounting",
    "MountOptions": "zcfuse.options._mount",
    "Operations": "zcfuse.fuse._operations",
    "OperationsStatistics": "zcfuse.fuse._operations",
    "StatusDocument": "zcfuse.admin.status._document",
    "StatusError": "zcfuse.admin.status._client",
    "ThreadUsage": "zcfuse.admin.status._document",
    "UnmountOutcome": "zcfuse.admin._unmounting",
    "list_mounts": "zcfuse.admin.status._registry",
    "mount": "zcfuse.control._mount",
    "read_status": "zcfuse.admin.status._client",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
