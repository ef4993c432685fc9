"""Trees: the nodes that a mount shows, their attributes and the files behind them.

Nothing here knows of FUSE. A `Mirror` is the tree of one real directory. A program builds a `Dir`
from `File`, `Slice`, `Concat`, `Zeros`, `Bytes`, `Computed`, `Symlink`, further directories and
other trees; `VirtualTree` shows it. Any thread may use a tree; a tree that shows a `Dir` belongs to
its mount's thread and the worker threads that this one uses. A tree makes plain blocking system
calls that never wait for a writer, a lease or the mount that shows the tree. Within `near_only`
they do not wait for other processes or machines either.
"""

from zcfuse.tree._arena import Memory, MemoryPlace
from zcfuse.tree._backing import Backing, Call, OpenPlace
from zcfuse.tree._bytes import Bytes
from zcfuse.tree._computed import Computed, Read
from zcfuse.tree._content import Blob, Concat, File, Slice, Zeros
from zcfuse.tree._dir import Dir, DirPlace, Held, TreeLike
from zcfuse.tree._directories import merged_directories
from zcfuse.tree._entry import Content, Entry, Given, Overrides, PathLike, Symlink
from zcfuse.tree._file import RegularFile, pread_extents
from zcfuse.tree._filter import Filter, FilterNode
from zcfuse.tree._later import NotYetError, answered, asked_since, fresh_since
from zcfuse.tree._leased import Leased, LeasedNames
from zcfuse.tree._mirror import Mirror
from zcfuse.tree._move import move_file
from zcfuse.tree._near import AskFar, FarError, begin_ask_far, end_ask_far, near_only
from zcfuse.tree._nodes import MirrorNode
from zcfuse.tree._paths import PathOpener
from zcfuse.tree._pool import REFUSABLE, Hint, Permitting, Placing, Pool
from zcfuse.tree._renewal import PUSHING, Renewable, RenewablePart, RenewalError
from zcfuse.tree._sources import Maker, Run, Runs, Source, Sources, Stamp
from zcfuse.tree._types import (
    HOLE,
    WHOLE_FILE,
    Answer,
    ArchiveLease,
    Attributes,
    BackingFile,
    BeingMadeError,
    DescribedRoot,
    DescribedTree,
    EntryDescription,
    Extent,
    Found,
    GivenValues,
    Growing,
    Identity,
    IndexSink,
    Lease,
    Listing,
    Node,
    Placed,
    Placement,
    StatFs,
    Tree,
    UpcallFile,
    Who,
)
from zcfuse.tree._union import Union
from zcfuse.tree._union_changes import (
    Change,
    union_changes,
    write_layer_directory,
    write_layer_tar,
)
from zcfuse.tree._union_nodes import UnionNode
from zcfuse.tree._union_upper import Upper
from zcfuse.tree.virtual import DirNode, VirtualTree

__all__ = [
    "HOLE",
    "PUSHING",
    "REFUSABLE",
    "WHOLE_FILE",
    "Answer",
    "ArchiveLease",
    "AskFar",
    "Attributes",
    "Backing",
    "BackingFile",
    "BeingMadeError",
    "Blob",
    "Bytes",
    "Call",
    "Change",
    "Computed",
    "Concat",
    "Content",
    "DescribedRoot",
    "DescribedTree",
    "Dir",
    "DirNode",
    "DirPlace",
    "Entry",
    "EntryDescription",
    "Extent",
    "FarError",
    "File",
    "Filter",
    "FilterNode",
    "Found",
    "Given",
    "GivenValues",
    "Growing",
    "Held",
    "Hint",
    "Identity",
    "IndexSink",
    "Lease",
    "Leased",
    "LeasedNames",
    "Listing",
    "Maker",
    "Memory",
    "MemoryPlace",
    "Mirror",
    "MirrorNode",
    "Node",
    "NotYetError",
    "OpenPlace",
    "Overrides",
    "PathLike",
    "PathOpener",
    "Permitting",
    "Placed",
    "Placement",
    "Placing",
    "Pool",
    "Read",
    "RegularFile",
    "Renewable",
    "RenewablePart",
    "RenewalError",
    "Run",
    "Runs",
    "Slice",
    "Source",
    "Sources",
    "Stamp",
    "StatFs",
    "Symlink",
    "Tree",
    "TreeLike",
    "Union",
    "UnionNode",
    "UpcallFile",
    "Upper",
    "VirtualTree",
    "Who",
    "Zeros",
    "answered",
    "asked_since",
    "begin_ask_far",
    "end_ask_far",
    "fresh_since",
    "merged_directories",
    "move_file",
    "near_only",
    "pread_extents",
    "union_changes",
    "write_layer_directory",
    "write_layer_tar",
]
