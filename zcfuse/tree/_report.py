"""Joins the reports of the trees in a directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from zcfuse.tree._dir import Dir
from zcfuse.tree._types import Tree

MOST_NAMES: Final = 20_000
"""Limit of names to search. It takes about 20 ms, and the mount answers no request meanwhile."""


def report_of(directory: Dir) -> Mapping[str, Mapping[str, object]]:
    """Return the reports of all trees in a directory and below it, one section after the other.

    Skips directories that make their contents on demand, and stops after `MOST_NAMES` names.
    """
    sections: dict[str, dict[str, object]] = {}
    for tree in _trees(directory):
        for section, told in tree.report().items():
            sections.setdefault(section, {}).update(told)
    return sections


def _trees(directory: Dir) -> Iterator[Tree]:
    left = MOST_NAMES
    known = {id(directory)}
    waiting = [directory]
    while waiting:
        for entry in _entries(waiting.pop()):
            left -= 1
            if left < 0:
                return
            if isinstance(entry, Tree | Dir) and id(entry) not in known:
                known.add(id(entry))
                if isinstance(entry, Dir):
                    waiting.append(entry)
                else:
                    yield entry


def _entries(directory: Dir) -> Iterator[object]:
    kind = type(directory)
    if kind.dynamic or kind.get is not Dir.get or kind.names is not Dir.names:
        return
    for name in directory.names():
        yield directory.get(name)
