"""The entries of a large directory, with its plain files side by side in two buffers.

A plain file takes the bytes of its name, of its path behind the part that all paths share, and five
more. Its object is made when the program asks for the name. A `Dir` owns the entries, in place of a
dictionary.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator, MutableMapping
from itertools import accumulate
from typing import Final

from zcfuse.tree._entry import Content

_FEWEST: Final = 32  # of fewer, a dictionary takes as little
_WIDE: Final = 1 << 32  # bytes of a buffer whose ends need eight bytes each
_END: Final = b"\0"  # of a name; it sorts before all bytes of names


def packed(
    entries: MutableMapping[bytes, Content | bytes],
) -> MutableMapping[bytes, Content | bytes]:
    """Return the same entries in little memory. A path, bytes, stands for its plain `File`."""
    plain = sum(isinstance(held, bytes) for held in entries.values())
    return PackedEntries(entries) if plain >= _FEWEST else entries


class PackedEntries(MutableMapping[bytes, "Content | bytes"]):
    """Iterates over the packed names in their order, then over later ones.

    A packed entry that the program replaces or removes keeps its few bytes.
    """

    __slots__ = ("_data", "_ends", "_gone", "_likely", "_others", "_shared")

    def __init__(self, entries: MutableMapping[bytes, Content | bytes]) -> None:
        paths = {name: held for name, held in entries.items() if isinstance(held, bytes)}
        self._others = {name: held for name, held in entries.items() if name not in paths}
        ends_of_order = [min(paths.values()), max(paths.values())]
        self._shared = os.fsencode(os.path.commonprefix(ends_of_order))  # noqa: RUF071 - of bytes
        behind = len(self._shared)
        records = [name + _END + paths[name][behind:] for name in sorted(paths)]
        self._data = b"".join(records)
        ends = accumulate(map(len, records))
        self._ends = array("I" if len(self._data) < _WIDE else "Q", ends)
        self._gone: set[int] = set()
        self._likely = 0  # the place of the name behind the last one that was asked for

    def __getitem__(self, name: bytes) -> Content | bytes:
        found = self._others.get(name)
        if found is not None:
            return found
        number = self._find(name)
        if number is None:
            raise KeyError(name)
        start = self._start(number) + len(name) + len(_END)
        return self._shared + self._data[start : self._ends[number]]

    def __setitem__(self, name: bytes, held: Content | bytes) -> None:
        number = self._find(name)
        if number is not None:
            self._gone.add(number)
        self._others[name] = held

    def __delitem__(self, name: bytes) -> None:
        number = self._find(name)
        if number is None:
            del self._others[name]
        else:
            self._gone.add(number)

    def __iter__(self) -> Iterator[bytes]:
        for number in range(len(self._ends)):
            if number not in self._gone:
                yield self._name(number)
        yield from self._others

    def __len__(self) -> int:
        return len(self._ends) - len(self._gone) + len(self._others)

    def _find(self, name: bytes) -> int | None:
        """Return the place of a packed name that is there."""
        number = self._likely
        if not self._has(number, name):
            number = bisect_left(range(len(self._ends)), name, key=self._name)
            if not self._has(number, name):
                return None
        self._likely = number + 1
        return None if number in self._gone else number

    def _has(self, number: int, name: bytes) -> bool:
        """Whether a packed name is at a place, which may be behind the last one."""
        return number < len(self._ends) and self._data.startswith(name + _END, self._start(number))

    def _name(self, number: int) -> bytes:
        start = self._start(number)
        return self._data[start : self._data.index(_END, start)]

    def _start(self, number: int) -> int:
        return self._ends[number - 1] if number else 0
