"""The order of an index: directory by directory from the root, and by name in each."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import accumulate, islice, pairwise
from operator import eq
from typing import Final, Protocol

from zcfuse.tree.manifest._columns import DIRECTORY, Contents
from zcfuse.tree.manifest._errors import Problem

_ROOT: Final = 0
_AT_ONCE: Final = 1 << 14  # names of a large directory to copy at once


class Rows(Protocol):
    """Nodes in the order of the manifest.

    `parents` holds numbers of directories; `directory_rows` holds their rows.
    """

    names: list[bytes]
    parents: array[int]
    positions: array[int]
    contents: Contents
    directory_rows: array[int]


class Order:
    """The order of rows, and all names joined in that order, with their ends.

    `first` and `count` are the range of nodes of each directory. The root is node 0, so the row
    `rows[n]` becomes node n + 1.
    """

    __slots__ = ("count", "directories", "ends", "first", "names", "rows")

    def __init__(self, directories: int) -> None:
        self.rows: array[int] = array("I")
        self.names = bytearray()
        self.ends: array[int] = array("Q")
        self.first: array[int] = array("I", bytes(4 * directories))
        self.count: array[int] = array("I", bytes(4 * directories))
        self.directories: array[int] = array("I", [_ROOT])

    def add(self, directory: int, rows: array[int], name_of: Callable[[int], bytes]) -> bool:
        """Add a directory's contents, sorted; return whether two names are equal."""
        self.first[directory] = len(self.rows) + 1
        self.count[directory] = len(rows)
        self.rows.extend(rows)
        last: bytes | None = None
        twice = False
        for start in range(0, len(rows), _AT_ONCE):
            names = list(map(name_of, rows[start : start + _AT_ONCE]))
            twice = twice or names[0] == last or any(map(eq, names, islice(names, 1, None)))
            last = names[-1]
            ends = accumulate(map(len, names), initial=len(self.names))
            self.ends.extend(islice(ends, 1, None))
            self.names += b"".join(names)
        return twice


def sorted_rows(nodes: Rows) -> Order:
    """Return the order of all nodes; raise Problem if two have one name."""
    order = Order(len(nodes.directory_rows))
    grouped, ends = _grouped(nodes)
    worst: Problem | None = None
    name_of, kinds, numbers = nodes.names.__getitem__, nodes.contents.kinds, nodes.contents.sources
    for directory in order.directories:
        start = ends[directory - 1] if directory else 0
        rows = array("I", sorted(grouped[start : ends[directory]], key=name_of))
        if order.add(directory, rows, name_of):
            worst = _earlier(worst, _contradiction(nodes, rows))
        order.directories.extend(numbers[row] for row in rows if kinds[row] == DIRECTORY)
    if worst is not None:
        raise worst
    return order


def _grouped(nodes: Rows) -> tuple[array[int], array[int]]:
    """Return the rows by directory, and where each directory's rows end."""
    counts: array[int] = array("I", bytes(4 * len(nodes.directory_rows)))
    for parent in nodes.parents:
        counts[parent] += 1
    ends = array("I", accumulate(counts))
    free = array("I", [0, *ends[:-1]])
    grouped: array[int] = array("I", bytes(4 * len(nodes.names)))
    for row, parent in enumerate(nodes.parents):
        grouped[free[parent]] = row
        free[parent] += 1
    return grouped, ends


def _contradiction(nodes: Rows, rows: array[int]) -> Problem | None:
    """Return the first Problem of rows with one name in one directory."""
    found: Problem | None = None
    for one, other in pairwise(rows):
        if nodes.names[one] == nodes.names[other]:
            found = _earlier(found, _problem(nodes, one, other))
    return found


def _problem(nodes: Rows, one: int, other: int) -> Problem:
    if nodes.positions[one] > nodes.positions[other]:
        one, other = other, one
    path = _path(nodes, other)
    kinds = nodes.contents.kinds
    if kinds[one] == DIRECTORY:
        reason = f"{path} is a directory already"
    elif kinds[other] == DIRECTORY:
        reason = f"{path} must be a directory, but is not"
    else:
        reason = f"{path} is given twice"
    return Problem("path", reason, position=nodes.positions[other], other=nodes.positions[one])


def _earlier(one: Problem | None, other: Problem | None) -> Problem | None:
    if one is None or other is None:
        return one or other
    return one if one.position <= other.position else other


def _path(nodes: Rows, row: int) -> str:
    names = [nodes.names[row]]
    while parent := nodes.parents[row]:
        row = nodes.directory_rows[parent]
        names.append(nodes.names[row])
    return b"/".join(reversed(names)).decode()
