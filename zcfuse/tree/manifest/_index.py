"""All nodes of a manifest, as columns: about 50 bytes each, and their names.

A node is a number, 0 the root. The names of a directory have consecutive numbers and are sorted, so
a bisection finds a name, and a listing is a range. An index is immutable; any thread may use it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple, overload

from zcfuse.tree.manifest._columns import DIRECTORY, Contents, Row
from zcfuse.tree.manifest._files import BackingFiles
from zcfuse.tree.manifest._given import NO_TIME, Attributes, GivenAttributes
from zcfuse.tree.manifest._sorting import Order

ROOT: Final = 0


class Mirrored(NamedTuple):
    """A real directory, and the `coherence` of its `Mirror`."""

    directory: bytes
    coherence: str | None


class Index:
    """Looks nodes up by directory and name. A `Builder` creates it."""

    def __init__(
        self,
        *,
        mtime_ns: int,
        order: Order,
        contents: Contents,
        given: GivenAttributes,
        parts: Contents,
        files: BackingFiles,
        texts: bytearray,
        targets: bytes,
        mirrors: list[Mirrored],
        urls: list[str],
    ) -> None:
        """Take ownership of the columns."""
        self.mtime_ns = mtime_ns
        self.files = files
        self.texts = texts
        self.targets = targets
        self.mirrors = mirrors
        self.urls = urls
        self._parts = parts
        self._ends = order.ends
        self._names = bytes(order.names)
        contents.reorder(order.rows)
        given.reorder(order.rows)
        _place_directories(contents, order)
        self._root: Row = (DIRECTORY, order.first[ROOT], 0, order.count[ROOT])
        self._contents = contents
        self._given = given

    def __len__(self) -> int:
        """Return the number of nodes, including implied directories and the root."""
        return len(self._contents) + 1

    def content(self, number: int) -> Row:
        """Return the content of a node."""
        return self._contents.row(number - 1) if number else self._root

    def given(self, number: int) -> tuple[Attributes, int]:
        """Return a node's explicit attributes and modification time."""
        return self._given.of(number - 1) if number else (_NOTHING, NO_TIME)

    def parts(self, content: Row) -> list[Row]:
        """Return the parts of a PARTS content."""
        _, first, _, count = content
        return [self._parts.row(first + part) for part in range(count)]

    def name(self, number: int) -> bytes:
        """Return the name of a node that is not the root."""
        start = self._ends[number - 2] if number > 1 else 0
        return self._names[start : self._ends[number - 1]]

    def find(self, directory: int, name: bytes, near: int = ROOT) -> int | None:
        """Return the node called `name` in a directory, or None.

        It tries `near` first, because clients look up the names of a listing in order.
        """
        _, first, _, count = self.content(directory)
        if first <= near < first + count and self.name(near) == name:
            return near
        numbers = range(first, first + count)
        place = bisect_left(numbers, name, key=self.name)
        if place < count and self.name(numbers[place]) == name:
            return numbers[place]
        return None

    def names(self, directory: int) -> Names:
        """Return the names in a directory, sorted."""
        _, first, _, count = self.content(directory)
        return Names(self, range(first, first + count))

    def directories(self, directory: int) -> int:
        """Return the number of subdirectories of a directory."""
        _, first, _, count = self.content(directory)
        return self._contents.kinds.count(DIRECTORY, first - 1, first - 1 + count)


class Names(Sequence[bytes]):
    """The names of a directory, created on access."""

    __slots__ = ("_index", "_numbers")

    def __init__(self, index: Index, numbers: range) -> None:
        self._index = index
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> bytes: ...

    @overload
    def __getitem__(self, place: slice) -> Names: ...

    def __getitem__(self, place: int | slice) -> bytes | Names:
        if isinstance(place, slice):
            return Names(self._index, self._numbers[place])
        return self._index.name(self._numbers[place])


_NOTHING: Final = Attributes()


def _place_directories(contents: Contents, order: Order) -> None:
    """Replace each directory's reading number by the place of its names."""
    for row, kind in enumerate(contents.kinds):
        if kind == DIRECTORY:
            directory = contents.sources[row]
            contents.sources[row] = order.first[directory]
            contents.lengths[row] = order.count[directory]
