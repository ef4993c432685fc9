"""An open file of a union: one layer's, or a metacopy, whose bytes another layer has."""

from __future__ import annotations

import errno
import os

from zcfuse.tree._file import RegularFile
from zcfuse.tree._types import Attributes, BackingFile
from zcfuse.tree._union_nodes import merged_attributes


class MetacopyFile(RegularFile):
    """Bytes of one file, attributes of another. Owns both."""

    __slots__ = ("_top",)

    def __init__(self, top: BackingFile, data: RegularFile) -> None:
        """Take over both; `data` is empty from then on."""
        super().__init__(data.detach())
        self._top = top

    def attributes(self) -> Attributes:
        """Return the attributes of the metacopy, with the blocks that its bytes take."""
        return merged_attributes(self._top.attributes(), 1, super().attributes())

    def close(self) -> None:
        """Close both files."""
        super().close()
        self._top.close()


def is_all_hole(file: RegularFile) -> bool:
    """Return whether a file has a size but no data, like a metacopy."""
    try:
        os.lseek(file.fileno(), 0, os.SEEK_DATA)
    except OSError as error:
        return error.errno == errno.ENXIO and file.attributes().size > 0
    return False
