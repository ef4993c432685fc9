"""Measurements: the copies of each serving path, and workloads on mounts and on the backing tree.

Daemons and clients run in child processes, every wait has a bound, and this package unmounts
everything that it mounts. It does not import the data path: it measures the real command line.
"""

from zcfuse.bench._answers import answer_commands
from zcfuse.bench._clients import ClientError, ClientProcess, ClientTimedOutError, Timing, client
from zcfuse.bench._copies import CASES, Case, Counted, Report, Row, run_copies
from zcfuse.bench._daemons import MountFailedError, RunningMount, running, zcfuse_command
from zcfuse.bench._frozen import frozen_targets
from zcfuse.bench._layers import LAYERS, layers_of, union_peer_targets, union_targets
from zcfuse.bench._rounds import BenchReport, BenchRow, Cell, filesystem_of, run_bench
from zcfuse.bench._sources import (
    DEFAULT_SIZE,
    SourceError,
    SourceFile,
    SourceTree,
    existing_file,
    mountpoint_outside,
    survey,
    tar_of,
    temporary_file,
    temporary_tree,
)
from zcfuse.bench._sweep import SIZES, SweepReport, run_sweep
from zcfuse.bench._targets import (
    BACKING,
    PATHS,
    VARIANTS,
    Target,
    peer_targets,
    split_path,
    started,
    tar_targets,
    zcfuse_target,
)
from zcfuse.bench._views import SLICES, view_targets, views_of
from zcfuse.bench._workloads import WORKLOADS, Cold, Workload
from zcfuse.bench._writing import (
    WRITTEN_FILES,
    writable_targets,
    writing_place,
    writing_workloads,
)

__all__ = [
    "BACKING",
    "CASES",
    "DEFAULT_SIZE",
    "LAYERS",
    "PATHS",
    "SIZES",
    "SLICES",
    "VARIANTS",
    "WORKLOADS",
    "WRITTEN_FILES",
    "BenchReport",
    "BenchRow",
    "Case",
    "Cell",
    "ClientError",
    "ClientProcess",
    "ClientTimedOutError",
    "Cold",
    "Counted",
    "MountFailedError",
    "Report",
    "Row",
    "RunningMount",
    "SourceError",
    "SourceFile",
    "SourceTree",
    "SweepReport",
    "Target",
    "Timing",
    "Workload",
    "answer_commands",
    "client",
    "existing_file",
    "filesystem_of",
    "frozen_targets",
    "layers_of",
    "mountpoint_outside",
    "peer_targets",
    "run_bench",
    "run_copies",
    "run_sweep",
    "running",
    "split_path",
    "started",
    "survey",
    "tar_of",
    "tar_targets",
    "temporary_file",
    "temporary_tree",
    "union_peer_targets",
    "union_targets",
    "view_targets",
    "views_of",
    "writable_targets",
    "writing_place",
    "writing_workloads",
    "zcfuse_command",
    "zcfuse_target",
]
