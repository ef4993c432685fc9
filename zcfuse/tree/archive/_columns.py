"""The growing flat arrays of an index."""

from __future__ import annotations

from array import array
from typing import Final

ROOT: Final = 0
"""The number of the root's directory, and of its node."""

NO_NODE: Final = 2**32 - 1
"""Stands for a node not yet known: of a hard link, or of a directory without a member."""

NEVER: Final = -1


class Columns:
    """Entries, hard links and directories, each numbered into separate arrays.

    An entry is a name in a directory, numbered in the order of the archive. A directory gets its
    number at its first mention, so its number is greater than its parent's.
    """

    def __init__(self) -> None:
        self.nodes = bytearray()
        self.pieces = bytearray()
        self.targets = bytearray()
        """Targets of symlinks."""
        self.text = bytearray()
        """Names, and targets of hard links, in order of arrival."""
        self.entry_directory = array("I")
        self.entry_name = array("Q")
        self.entry_length = array("H")
        self.entry_node = array("I")
        self.link_entry = array("I")
        self.link_target = array("Q")
        self.link_length = array("I")
        self.parent = array("I", [ROOT])
        self.directory_name = array("Q", [0])
        self.directory_length = array("H", [0])
        self.directory_node = array("I", [NO_NODE])
        self.described_before = array("q", [NEVER])
        """The number of the entry after the directory's member."""

    @property
    def entries(self) -> int:
        """The number of entries so far."""
        return len(self.entry_node)

    @property
    def directories(self) -> int:
        """The number of directories so far, including the root."""
        return len(self.parent)

    def add_entry(self, directory: int, name: bytes, node: int) -> None:
        """Append a name of a node."""
        self.entry_directory.append(directory)
        self.entry_name.append(len(self.text))
        self.entry_length.append(len(name))
        self.entry_node.append(node)
        self.text += name

    def add_link(self, directory: int, name: bytes, target: bytes) -> None:
        """Append a name that shares another's node."""
        self.link_entry.append(self.entries)
        self.add_entry(directory, name, NO_NODE)
        self.link_target.append(len(self.text))
        self.link_length.append(len(target))
        self.text += target

    def add_directory(self, parent: int, name: bytes) -> int:
        """Append a directory and return its number."""
        self.parent.append(parent)
        self.directory_name.append(len(self.text))
        self.directory_length.append(len(name))
        self.directory_node.append(NO_NODE)
        self.described_before.append(NEVER)
        self.text += name
        return len(self.parent) - 1

    def name(self, entry: int) -> bytes:
        """Return the name of an entry."""
        start = self.entry_name[entry]
        return bytes(self.text[start : start + self.entry_length[entry]])

    def target(self, link: int) -> bytes:
        """Return the target of a hard link, as in the archive."""
        start = self.link_target[link]
        return bytes(self.text[start : start + self.link_length[link]])

    def path(self, directory: int, name: bytes) -> bytes:
        """Return the path of a name, for a message."""
        parts = [name]
        while directory != ROOT:
            start = self.directory_name[directory]
            parts.append(bytes(self.text[start : start + self.directory_length[directory]]))
            directory = self.parent[directory]
        return b"/".join(reversed(parts))
