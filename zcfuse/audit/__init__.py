"""Copy accounting: the daemon's ledger, the kernel's audit, and the two held against each other.

Everything here looks from outside: at status documents and at what the kernel counts. Nothing
imports the data path or control, and nothing here serves a request. Any thread may call it.
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
from zcfuse.linux._residency import Residency, cached_twice, cachestat
from zcfuse.linux._syscalls import detach_mountpoint

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
