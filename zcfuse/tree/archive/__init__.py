"""Archives as trees: the bytes of a tar or zip archive that belong to each file.

The index is independent of mounts. It answers for names, attributes and places without reading the
members, and is kept between mounts.
"""

from zcfuse.tree.archive._budget import UnpackBudget
from zcfuse.tree.archive._compression import ENDINGS
from zcfuse.tree.archive._errors import (
    ArchiveError,
    DamagedIndexError,
    NotAnArchiveError,
    printable,
    shown,
)
from zcfuse.tree.archive._format import Note
from zcfuse.tree.archive._identity import ArchiveIdentity
from zcfuse.tree.archive._index import ArchiveIndex, Member
from zcfuse.tree.archive._indexer import indexing_process
from zcfuse.tree.archive._members import Kind, Run
from zcfuse.tree.archive._open import Keep, index_archive
from zcfuse.tree.archive._parse import Progress
from zcfuse.tree.archive._tree import Archive, ArchiveNode
from zcfuse.tree.archive._unpack import BadMemberError, unpack
from zcfuse.tree.archive._unpacked import UnpackedStatistics

__all__ = [
    "ENDINGS",
    "Archive",
    "ArchiveError",
    "ArchiveIdentity",
    "ArchiveIndex",
    "ArchiveNode",
    "BadMemberError",
    "DamagedIndexError",
    "Keep",
    "Kind",
    "Member",
    "NotAnArchiveError",
    "Note",
    "Progress",
    "Run",
    "UnpackBudget",
    "UnpackedStatistics",
    "index_archive",
    "indexing_process",
    "printable",
    "shown",
    "unpack",
]
