"""The files that are asked for most, by name: the data path counts node ids, control knows names.

Belongs to the trio thread. What is told is for people, and bounded: a few dozen files. A name that
was found once is kept for as long as the file stays among them, since the kernel may forget the
node meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from zcfuse.control._status import HotFile, printable_bytes

# By requests, and as many by bytes: more than any screen shows.
MOST: Final = 20


class Counts(Protocol):
    """What the data path offers."""

    def hot_files(self, most: int, /) -> list[tuple[int, int, int, int, int, bytes]]:
        """Return (nodeid, opens, reads, bytes, root, path below the root) for each file."""


class HotFiles:
    """The hottest files of one mount. `path_of` names a node of control's, None if it cannot."""

    def __init__(self, datapath: Counts, path_of: Callable[[int], bytes | None]) -> None:
        self._datapath = datapath
        self._path_of = path_of
        self._names: dict[int, str] = {}

    def now(self) -> list[HotFile]:
        """Return them as they are now, the most requests first."""
        names: dict[int, str] = {}
        files = []
        for nodeid, opens, reads, size, root, below in self._datapath.hot_files(MOST):
            name = self._named(root, below) or self._names.get(nodeid)
            if name is not None:
                names[nodeid] = name
            files.append(HotFile(nodeid, name, opens, reads, size))
        self._names = names
        return sorted(files, key=lambda file: (file.requests, file.bytes), reverse=True)

    def _named(self, root: int, below: bytes) -> str | None:
        above = self._path_of(root) if root else None
        if above is None:
            return None
        return printable_bytes(b"/".join(filter(None, (above, below)))) or "/"
