"""Finds the trees in a directory, and joins their reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from zcfuse.tree._dir import Dir
from zcfuse.tree._types import Tree

MOST_NAMES: Final = 20_000
"""Limit of names to search. It takes about 20 ms, and the mount answers no request meanwhile."""


def report_of(directory: Dir) -> Mapping[str, Mapping[str, object]]:
    """Return the reports of all trees in a directory and below it, one section after the other."""
    return joined_reports(tree.report() for tree in trees_in(directory))


def joined_reports(
    reports: Iterable[Mapping[str, Mapping[str, object]]],
) -> dict[str, Mapping[str, object]]:
    """Return reports as one, whose sections have the names of all."""
    sections: dict[str, Mapping[str, object]] = {}
    for report in reports:
        for section, told in report.items():
            sections[section] = {**sections.get(section, {}), **told}
    return sections


def trees_in(directory: Dir) -> Iterator[Tree]:
    """Yield the trees in a directory and below it.

    Of a directory that makes its contents on demand it takes `Dir.subtrees`. Stops after
    `MOST_NAMES` names.
    """
    return (found for _, _, found in parts_in(directory) if isinstance(found, Tree))


def parts_in(directory: Dir) -> Iterator[tuple[Dir, bytes, Tree | Dir]]:
    """Yield the trees and directories below a directory, each once, with one holder and name.

    The name of what `Dir.subtrees` returns is empty. Stops after `MOST_NAMES` names.
    """
    left = MOST_NAMES
    known = {id(directory)}
    waiting = [directory]
    while waiting:
        holder = waiting.pop()
        for name, entry in _entries(holder):
            left -= 1
            if left < 0:
                return
            if isinstance(entry, Tree | Dir) and id(entry) not in known:
                known.add(id(entry))
                yield holder, name, entry
                if isinstance(entry, Dir):
                    waiting.append(entry)


def _entries(directory: Dir) -> Iterator[tuple[bytes, object]]:
    for tree in directory.subtrees():
        yield b"", tree
    kind = type(directory)
    if kind.dynamic or kind.get is not Dir.get or kind.names is not Dir.names:
        return
    for name in directory.names():
        yield name, directory.get(name)
