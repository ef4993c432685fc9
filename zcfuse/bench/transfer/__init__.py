"""`zcfuse bench transfer`: ways to move a file's bytes, from the backing file and from mounts.

The bytes are moved by a client process in C++, to a receiver in another process; nothing here is
imported by a mount. Everything runs with a bound on every wait, and what is mounted is unmounted.
"""

from zcfuse.bench.transfer._cells import QUANTITIES, Figure, Sample, Side, TransferCell
from zcfuse.bench.transfer._latency import LatencyCell, LatencySample
from zcfuse.bench.transfer._machine import Machine, describe_machine
from zcfuse.bench.transfer._methods import (
    CACHE_LABELS,
    CACHES,
    COLUMNS,
    METHODS,
    SINK_LABELS,
    SINKS,
    Method,
)
from zcfuse.bench.transfer._report import TransferReport, run_transfer, steps_of
from zcfuse.bench.transfer._run import Plan

__all__ = [
    "CACHES",
    "CACHE_LABELS",
    "COLUMNS",
    "METHODS",
    "QUANTITIES",
    "SINKS",
    "SINK_LABELS",
    "Figure",
    "LatencyCell",
    "LatencySample",
    "Machine",
    "Method",
    "Plan",
    "Sample",
    "Side",
    "TransferCell",
    "TransferReport",
    "describe_machine",
    "run_transfer",
    "steps_of",
]
