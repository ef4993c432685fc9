"""The data plane: mounting, the kernel's channel, leases and serving paths.

The bytes are served by C++ threads without the GIL (`native/`); this package is their Python face.
It knows nothing of trees. The compiled part is loaded when one of its names is first used: what
only looks at mounts, or serves without a data plane, works without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from zcfuse.datapath._latency import Latencies, Latency
    from zcfuse.datapath._native import (
        WHOLE_FILE,
        Config,
        DataPath,
        Source,
        arm_faults,
        index_source,
        upcall_pair,
    )
    from zcfuse.datapath._statistics import (
        Directories,
        Init,
        PathCounts,
        Pool,
        Statistics,
        Thread,
        Transport,
        Windows,
    )

__all__ = [
    "WHOLE_FILE",
    "Config",
    "DataPath",
    "Directories",
    "Init",
    "Latencies",
    "Latency",
    "PathCounts",
    "Pool",
    "Source",
    "Statistics",
    "Thread",
    "Transport",
    "Windows",
    "arm_faults",
    "index_source",
    "upcall_pair",
]

_HOMES: Final = {
    **dict.fromkeys(
        (
            "WHOLE_FILE",
            "Config",
            "DataPath",
            "Source",
            "arm_faults",
            "index_source",
            "upcall_pair",
        ),
        "_native",
    ),
    **dict.fromkeys(("Latencies", "Latency"), "_latency"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "_statistics")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
