"""The data path: the kernel's channel, leases and serving paths.

C++ threads serve the bytes without the GIL (`native/`); this package is their Python face. It
knows nothing of trees. A caller that uses none of the compiled names does not load the compiled
part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.datapath._holder import holder_program as holder_program
    from zcfuse.datapath._latency import Latencies as Latencies
    from zcfuse.datapath._latency import Latency as Latency
    from zcfuse.datapath._native import BLOCK_BYTES as BLOCK_BYTES
    from zcfuse.datapath._native import DEPTH_LIMIT as DEPTH_LIMIT
    from zcfuse.datapath._native import ENTRY_FORMAT as ENTRY_FORMAT
    from zcfuse.datapath._native import ENTRY_KINDS as ENTRY_KINDS
    from zcfuse.datapath._native import HOLDER_GO as HOLDER_GO
    from zcfuse.datapath._native import HOLDER_HANDOVER as HOLDER_HANDOVER
    from zcfuse.datapath._native import HOLDER_HANDOVERS as HOLDER_HANDOVERS
    from zcfuse.datapath._native import HOLDER_MESSAGE as HOLDER_MESSAGE
    from zcfuse.datapath._native import HOLDER_STATE as HOLDER_STATE
    from zcfuse.datapath._native import HOLDER_UNKNOWN as HOLDER_UNKNOWN
    from zcfuse.datapath._native import IMPLICIT_BIT as IMPLICIT_BIT
    from zcfuse.datapath._native import MADE_INO_BIT as MADE_INO_BIT
    from zcfuse.datapath._native import MEMBER_KINDS as MEMBER_KINDS
    from zcfuse.datapath._native import MESSAGE_BYTES as MESSAGE_BYTES
    from zcfuse.datapath._native import MOST_DEATHS as MOST_DEATHS
    from zcfuse.datapath._native import MOST_STACK_DEPTH as MOST_STACK_DEPTH
    from zcfuse.datapath._native import MOST_THREADS as MOST_THREADS
    from zcfuse.datapath._native import NAME_BYTES as NAME_BYTES
    from zcfuse.datapath._native import NODE_FORMAT as NODE_FORMAT
    from zcfuse.datapath._native import OPAQUE_NAME as OPAQUE_NAME
    from zcfuse.datapath._native import ORPHAN_PREFIX as ORPHAN_PREFIX
    from zcfuse.datapath._native import OWN_BIT as OWN_BIT
    from zcfuse.datapath._native import PIECE_FORMAT as PIECE_FORMAT
    from zcfuse.datapath._native import REASONS as REASONS
    from zcfuse.datapath._native import SECTOR_BYTES as SECTOR_BYTES
    from zcfuse.datapath._native import SUSPECTS_BYTES as SUSPECTS_BYTES
    from zcfuse.datapath._native import TERM_KINDS as TERM_KINDS
    from zcfuse.datapath._native import WHITEOUT_PREFIX as WHITEOUT_PREFIX
    from zcfuse.datapath._native import WHOLE_FILE as WHOLE_FILE
    from zcfuse.datapath._native import Config as Config
    from zcfuse.datapath._native import DataPath as DataPath
    from zcfuse.datapath._native import ErofsImage as ErofsImage
    from zcfuse.datapath._native import MemberIndex as MemberIndex
    from zcfuse.datapath._native import NamePatterns as NamePatterns
    from zcfuse.datapath._native import Presence as Presence
    from zcfuse.datapath._native import Source as Source
    from zcfuse.datapath._native import SourceDirectory as SourceDirectory
    from zcfuse.datapath._native import SurvivingState as SurvivingState
    from zcfuse.datapath._native import UserDescriptors as UserDescriptors
    from zcfuse.datapath._native import arm_faults as arm_faults
    from zcfuse.datapath._native import backing_xattr as backing_xattr
    from zcfuse.datapath._native import clone_device as clone_device
    from zcfuse.datapath._native import filter_source as filter_source
    from zcfuse.datapath._native import frozen_source as frozen_source
    from zcfuse.datapath._native import is_local as is_local
    from zcfuse.datapath._native import is_reserved as is_reserved
    from zcfuse.datapath._native import mixed_ino as mixed_ino
    from zcfuse.datapath._native import open_directory as open_directory
    from zcfuse.datapath._native import packed_identity as packed_identity
    from zcfuse.datapath._native import search_layers as search_layers
    from zcfuse.datapath._native import serving_threads as serving_threads
    from zcfuse.datapath._native import shown_xattrs as shown_xattrs
    from zcfuse.datapath._native import tick_ns as tick_ns
    from zcfuse.datapath._native import trace_lines as trace_lines
    from zcfuse.datapath._native import traced_files as traced_files
    from zcfuse.datapath._native import upcall_pair as upcall_pair
    from zcfuse.datapath._statistics import Directories as Directories
    from zcfuse.datapath._statistics import Init as Init
    from zcfuse.datapath._statistics import PathCounts as PathCounts
    from zcfuse.datapath._statistics import Pool as Pool
    from zcfuse.datapath._statistics import Statistics as Statistics
    from zcfuse.datapath._statistics import Thread as Thread
    from zcfuse.datapath._statistics import Transport as Transport
    from zcfuse.datapath._statistics import Windows as Windows
else:
    __getattr__ = lazy(
        __name__,
        {
            "_holder": ("holder_program",),
            "_latency": (
                "Latencies",
                "Latency",
            ),
            "_native": (
                "BLOCK_BYTES",
                "DEPTH_LIMIT",
                "ENTRY_FORMAT",
                "ENTRY_KINDS",
                "HOLDER_GO",
                "HOLDER_HANDOVER",
                "HOLDER_HANDOVERS",
                "HOLDER_MESSAGE",
                "HOLDER_STATE",
                "HOLDER_UNKNOWN",
                "IMPLICIT_BIT",
                "MADE_INO_BIT",
                "MEMBER_KINDS",
                "MESSAGE_BYTES",
                "MOST_STACK_DEPTH",
                "MOST_THREADS",
                "NAME_BYTES",
                "NODE_FORMAT",
                "MOST_DEATHS",
                "OPAQUE_NAME",
                "ORPHAN_PREFIX",
                "OWN_BIT",
                "Presence",
                "PIECE_FORMAT",
                "REASONS",
                "SECTOR_BYTES",
                "SUSPECTS_BYTES",
                "TERM_KINDS",
                "WHITEOUT_PREFIX",
                "WHOLE_FILE",
                "Config",
                "DataPath",
                "ErofsImage",
                "trace_lines",
                "traced_files",
                "MemberIndex",
                "NamePatterns",
                "Source",
                "SourceDirectory",
                "SurvivingState",
                "UserDescriptors",
                "arm_faults",
                "backing_xattr",
                "clone_device",
                "filter_source",
                "frozen_source",
                "is_local",
                "is_reserved",
                "mixed_ino",
                "open_directory",
                "packed_identity",
                "search_layers",
                "serving_threads",
                "shown_xattrs",
                "tick_ns",
                "upcall_pair",
            ),
            "_statistics": (
                "Directories",
                "Init",
                "PathCounts",
                "Pool",
                "Statistics",
                "Thread",
                "Transport",
                "Windows",
            ),
        },
    )
