"""The members of an archive as it was indexed once. Another archive in its place gets another one.

Nodes and open files refer to it, so whoever reads the old archive finishes with its bytes.
"""

from __future__ import annotations

import hashlib
from typing import Final

from zcfuse.datapath import MADE_INO_BIT
from zcfuse.tree.archive._budget import UnpackBudget
from zcfuse.tree.archive._files import SharedArchive
from zcfuse.tree.archive._index import ArchiveIndex
from zcfuse.tree.archive._unpacked import UnpackedMembers


class Indexed:
    """One index, with what was opened and decompressed by it. It owns these."""

    def __init__(self, index: ArchiveIndex, budget: UnpackBudget) -> None:
        self.index: Final = index
        self.unpacked: Final = UnpackedMembers(index, budget)
        self.shared: Final = SharedArchive(index)
        self.key: Final = hashlib.blake2b(repr(index.identity).encode(), digest_size=16).digest()
        self.first_ino: Final = MADE_INO_BIT | (int.from_bytes(self.key[:4]) >> 1) << 32

    def __del__(self) -> None:
        if hasattr(self, "unpacked"):
            self.close()

    def close(self) -> None:
        """Free the index and the decompressed members; a second call does nothing."""
        self.unpacked.close()
        self.index.close()
