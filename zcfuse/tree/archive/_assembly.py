"""Turns the columns of all members into the sections of an index.

Order of the steps: make directories entries of their parents; sort entries by directory, name and
age; give hard links the node that their target had at that point; write the last entry of each
name.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Final, Protocol

from zcfuse.tree.archive._columns import NO_NODE, ROOT, Columns
from zcfuse.tree.archive._format import ENTRY, NODE
from zcfuse.tree.archive._members import Kind
from zcfuse.tree.archive._names import UnusableNameError, components

REPLACED: Final = "a later member has the same name"
IN_THE_WAY: Final = "other members need its name for a directory"
NO_TARGET: Final = "a hard link to a member that is not there"
TARGET_IS_DIRECTORY: Final = "a hard link to a directory"
LINKS_IN_A_CIRCLE: Final = "hard links that lead only to one another"

AFTER_ALL: Final = 2**62
"""The age of a directory with entries: no file replaces it."""


class Book(Protocol):
    """The builder's interface for the assembly."""

    def number_of(self, path: bytes) -> int | None: ...
    def made_directory(self) -> int: ...
    def broken_link(self, reason: str, target: bytes) -> int: ...
    def note(self, reason: str, name: bytes) -> None: ...


def assemble(columns: Columns, book: Book) -> dict[str, bytes | bytearray]:
    """Return the sections except meta; consumes the columns."""
    members = columns.entries
    _enter_directories(columns, book)
    order, starts = _sorted(columns)
    _Links(columns, book, members, order, starts).resolve()
    return _Writer(columns, book, members).write(order, starts)


def _enter_directories(columns: Columns, book: Book) -> None:
    """Give every directory an entry in its parent, numbered after all members in their order."""
    for number in range(1, columns.directories):
        if columns.directory_node[number] == NO_NODE:
            columns.directory_node[number] = book.made_directory()
        columns.entry_directory.append(columns.parent[number])
        columns.entry_name.append(columns.directory_name[number])
        columns.entry_length.append(columns.directory_length[number])
        columns.entry_node.append(columns.directory_node[number])


def _sorted(columns: Columns) -> tuple[array[int], array[int]]:
    """Return the entries by directory, name and number, and each directory's first entry."""
    starts = array("I", bytes(4 * (columns.directories + 1)))
    for directory in columns.entry_directory:
        starts[directory + 1] += 1
    for directory in range(1, len(starts)):
        starts[directory] += starts[directory - 1]
    order = array("I", bytes(4 * columns.entries))
    free = array("I", starts)
    for entry, directory in enumerate(columns.entry_directory):
        order[free[directory]] = entry
        free[directory] += 1
    for start, end in pairwise(starts):
        if end - start > 1:
            order[start:end] = array("I", sorted(order[start:end], key=columns.name))
    return order, starts


class _Links:
    """Finds the target of each hard link."""

    def __init__(
        self, columns: Columns, book: Book, members: int, order: array[int], starts: array[int]
    ) -> None:
        self._columns = columns
        self._book = book
        self._members = members
        self._order = order
        self._starts = starts

    def resolve(self) -> None:
        """Give every hard link the node of its target, or one that cannot be read."""
        for link in self._columns.link_entry:
            if self._columns.entry_node[link] == NO_NODE:
                self._follow(link)

    def _follow(self, link: int) -> None:
        """Resolve a link and the links on its way."""
        nodes = self._columns.entry_node
        chain: dict[int, None] = {}
        entry, reason = link, ""
        while nodes[entry] == NO_NODE and not reason:
            chain[entry] = None
            found = self._target(entry)
            if isinstance(found, str):
                reason = found
            elif found in chain:
                reason = LINKS_IN_A_CIRCLE
            else:
                entry = found
        for passed in chain:
            if reason:
                nodes[passed] = self._book.broken_link(reason, self._target_name(passed))
            else:
                nodes[passed] = nodes[entry]

    def _target_name(self, entry: int) -> bytes:
        return self._columns.target(bisect_left(self._columns.link_entry, entry))

    def _target(self, entry: int) -> int | str:
        """Return a link's target: the last entry before it, or the last at all; or a reason."""
        try:
            parts = components(self._target_name(entry))
        except UnusableNameError:
            return NO_TARGET
        directory = self._book.number_of(b"/".join(parts[:-1])) if parts else None
        if directory is None:
            return NO_TARGET if parts else TARGET_IS_DIRECTORY
        return self._last_before(entry, directory, parts[-1])

    def _last_before(self, entry: int, directory: int, name: bytes) -> int | str:
        order, key = self._order, self._columns.name
        start, end = self._starts[directory], self._starts[directory + 1]
        first = bisect_left(order, name, start, end, key=key)
        end = bisect_right(order, name, first, end, key=key)
        # Entries of one name are in the order of their numbers, a directory after the members.
        files_end = bisect_left(order, self._members, first, end)
        before = bisect_left(order, entry, first, files_end)
        if before > first:
            return order[before - 1]
        if files_end > first and order[files_end - 1] != entry:
            return order[files_end - 1]
        return TARGET_IS_DIRECTORY if files_end < end else NO_TARGET


class _Writer:
    """Writes the entries that win, with their names in the same order."""

    def __init__(self, columns: Columns, book: Book, members: int) -> None:
        self._columns = columns
        self._book = book
        self._members = members
        self._links = array("I", bytes(4 * (len(columns.nodes) // NODE.size)))

    def write(self, order: array[int], starts: array[int]) -> dict[str, bytes | bytearray]:
        """Return the sections."""
        columns = self._columns
        entries, names = bytearray(), columns.targets
        for directory, (start, end) in enumerate(pairwise(starts)):
            first = len(entries) // ENTRY.size
            for entry, name in self._winners(directory, order[start:end], starts):
                node = columns.entry_node[entry]
                entries += ENTRY.pack(len(names), node, len(name))
                names += name
                self._links[node] += 1
                if entry >= self._members:
                    self._links[columns.directory_node[directory]] += 1
            self._close(columns.directory_node[directory], first, len(entries) // ENTRY.size)
        self._describe_root()
        self._count_links()
        sections = {"entries": entries, "nodes": columns.nodes, "pieces": columns.pieces}
        return {**sections, "names": names}

    def _winners(
        self, directory: int, order: array[int], starts: array[int]
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the winning entry of each name; note the others."""
        for name, group in groupby(order, self._columns.name):
            same = list(group)
            if len(same) == 1:
                yield same[0], name
                continue
            winner = max(same, key=lambda entry: self._age(entry, starts))
            for entry in same:
                if self._columns.entry_node[entry] != self._columns.entry_node[winner]:
                    file_lost = self._age(winner, starts) == AFTER_ALL
                    reason = IN_THE_WAY if file_lost else REPLACED
                    self._book.note(reason, self._columns.path(directory, name))
            yield winner, name

    def _age(self, entry: int, starts: array[int]) -> int:
        """Return a number that is greater for later entries."""
        if entry < self._members:
            return 2 * entry + 1
        directory = entry - self._members + 1
        if starts[directory + 1] > starts[directory]:
            return AFTER_ALL
        return 2 * self._columns.described_before[directory]

    def _close(self, node: int, first: int, end: int) -> None:
        """Record the range of a directory's entries."""
        at = node * NODE.size
        *head, _, _, detail, kind = NODE.unpack_from(self._columns.nodes, at)
        NODE.pack_into(self._columns.nodes, at, *head, first, end - first, detail, kind)

    def _describe_root(self) -> None:
        """Move the root's node, which a member may have described, to its fixed place."""
        nodes, node = self._columns.nodes, self._columns.directory_node[ROOT]
        if node != ROOT:
            nodes[: NODE.size] = nodes[node * NODE.size : (node + 1) * NODE.size]
            self._links[ROOT] = self._links[node]
        self._links[ROOT] += 1

    def _count_links(self) -> None:
        """Record link counts; a directory has one more, its "."."""
        nodes = self._columns.nodes
        for number, links in enumerate(self._links):
            at = number * NODE.size
            mode, uid, gid, _, *rest = NODE.unpack_from(nodes, at)
            links += rest[-1] == Kind.DIRECTORY
            NODE.pack_into(nodes, at, mode, uid, gid, links, *rest)
