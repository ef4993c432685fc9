"""`zcfuse bench transfer`: ways to move a file's bytes, from the backing file and from mounts.

A client process moves the bytes in C++ to a receiver in another process. A mount imports none of
this. Every wait has a bound, and the run unmounts everything that it mounts.
"""

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy
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

if TYPE_CHECKING:
    from zcfuse.bench.transfer._html import html_of as html_of
    from zcfuse.bench.transfer._plots import DARK as DARK
    from zcfuse.bench.transfer._plots import LIGHT as LIGHT
    from zcfuse.bench.transfer._plots import plots_of as plots_of
    from zcfuse.bench.transfer._plots import png as png
else:
    # matplotlib is an extra, and takes a while to load.
    __getattr__ = lazy(
        __name__, {"_html": ("html_of",), "_plots": ("DARK", "LIGHT", "plots_of", "png")}
    )

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
