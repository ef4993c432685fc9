"""The control plane: mounts, their daemon, and how to ask it.

The names are loaded when they are first used: ``zcfuse list`` needs no event loop, and the
commands fork before one is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from zcfuse.control._mount import mount
    from zcfuse.control._operations import Operations, OperationsStatistics
    from zcfuse.control._options import SERVING_PATHS, MountOptions
    from zcfuse.control._registry import list_mounts
    from zcfuse.control._served import Mount
    from zcfuse.control._status import StatusDocument, ThreadUsage
    from zcfuse.control._status_client import StatusError, read_status
    from zcfuse.control._unmounting import UnmountOutcome
    from zcfuse.datapath._mounting import MountError

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
    "SERVING_PATHS": "zcfuse.control._options",
    "Mount": "zcfuse.control._served",
    "MountError": "zcfuse.datapath._mounting",
    "MountOptions": "zcfuse.control._options",
    "Operations": "zcfuse.control._operations",
    "OperationsStatistics": "zcfuse.control._operations",
    "StatusDocument": "zcfuse.control._status",
    "StatusError": "zcfuse.control._status_client",
    "ThreadUsage": "zcfuse.control._status",
    "UnmountOutcome": "zcfuse.control._unmounting",
    "list_mounts": "zcfuse.control._registry",
    "mount": "zcfuse.control._mount",
    "read_status": "zcfuse.control._status_client",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
