"""The contents of nodes as columns of numbers.

A row is one content; its kind decides the meaning of `source`, `offset` and `length`:

| kind | source | offset | length |
|---|---|---|---|
| DIRECTORY | number of its first name | | how many names it holds |
| FILE | number of the file | in the file | in bytes, or TO_THE_END |
| TEXT | | in the texts | in bytes |
| ZEROS | | | in bytes |
| PARTS | first row in the table of parts | | how many |
| SYMLINK | | in the targets | in bytes |
| MIRROR | number among the mirrors | | |
| REMOTE | number among the URLs | | |
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

DIRECTORY: Final = 0
FILE: Final = 1
TEXT: Final = 2
ZEROS: Final = 3
PARTS: Final = 4
SYMLINK: Final = 5
MIRROR: Final = 6
REMOTE: Final = 7

TO_THE_END: Final = 2**64 - 1

Row = tuple[int, int, int, int]
"""Kind, source, offset, length."""


class Contents:
    """A growing table of contents, 21 bytes per row."""

    __slots__ = ("kinds", "lengths", "offsets", "sources")

    def __init__(self) -> None:
        self.kinds = bytearray()
        self.sources: array[int] = array("I")
        self.offsets: array[int] = array("Q")
        self.lengths: array[int] = array("Q")

    def __len__(self) -> int:
        return len(self.kinds)

    def append(self, row: Row) -> None:
        """Add a row."""
        kind, source, offset, length = row
        self.kinds.append(kind)
        self.sources.append(source)
        self.offsets.append(offset)
        self.lengths.append(length)

    def row(self, number: int) -> Row:
        """Return a row."""
        return (
            self.kinds[number],
            self.sources[number],
            self.offsets[number],
            self.lengths[number],
        )

    def reorder(self, order: Iterable[int]) -> None:
        """Reorder the rows column by column, so that only one column is doubled at a time."""
        numbers = array("I", order)
        self.kinds = bytearray(map(self.kinds.__getitem__, numbers))
        self.sources = reordered(self.sources, numbers)
        self.offsets = reordered(self.offsets, numbers)
        self.lengths = reordered(self.lengths, numbers)


def reordered(column: array[int], order: Iterable[int]) -> array[int]:
    """Return a column with its rows in another order."""
    return array(column.typecode, map(column.__getitem__, order))
