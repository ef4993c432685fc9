"""Copy accounting: compares the daemon's ledger with the kernel's audit.

This package reads status documents and the kernel's counts. It imports neither the data path nor
control, and serves no request. Any thread may call it.
"""

from zcfuse.audit._compare import Comparison, Count, compare
from zcfuse.audit._ledger import Ledger, PathCounts, ledger_of
from zcfuse.audit._model import CLASSIC, CopyModel, model_of, native_model
from zcfuse.audit._process import (
    IoCounts,
    ProcessUsage,
    ThreadUsage,
    process_cpu_ns,
    read_usage,
    roles_of,
    thread_ids,
)
from zcfuse.audit._tracepoints import (
    CountUnavailableError,
    RequestCounter,
    TracepointCounter,
    availability,
    count_system_calls,
    kernel_device,
    tracepoint_id,
)
from zcfuse.linux import Residency, cached_twice, cachestat, detach_mountpoint

__all__ = [
    "CLASSIC",
    "Comparison",
    "CopyModel",
    "Count",
    "CountUnavailableError",
    "IoCounts",
    "Ledger",
    "PathCounts",
    "ProcessUsage",
    "RequestCounter",
    "Residency",
    "ThreadUsage",
    "TracepointCounter",
    "availability",
    "cached_twice",
    "cachestat",
    "compare",
    "count_system_calls",
    "detach_mountpoint",
    "kernel_device",
    "ledger_of",
    "model_of",
    "native_model",
    "process_cpu_ns",
    "read_usage",
    "roles_of",
    "thread_ids",
    "tracepoint_id",
]
