"""The data plane: mounting, the kernel's channel, leases and serving paths.

The bytes are served by C++ threads without the GIL (`native/`); this package is their Python face.
It knows nothing of trees.
"""

from ._native import WHOLE_FILE, Config, DataPath, arm_faults, upcall_pair
from ._statistics import (
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
    "Init",
    "PathCounts",
    "Pool",
    "Statistics",
    "Thread",
    "Transport",
    "Windows",
    "arm_faults",
    "upcall_pair",
]
