"""`zcfuse bench transfer`: ways to move a file's bytes, from the backing file and from mounts.

A client process moves the bytes in C++ to a receiver in another process. A mount imports none of
this. Every wait has a bound, and the run unmounts everything that it mounts.
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
