"""Names the files with the most requests: the data path counts node ids, control knows names.

This module belongs to the trio thread. The list is for people, and has at most a few dozen files.
The kernel may forget a node and later use another one for the same file. So the module keeps a name
while the data path counts its node, and adds up the counts of one name. It leaves out a node that
the kernel forgot before the first request for the list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from zcfuse.admin.status._document import HotFile, printable_bytes

# For each of the two orders, requests and bytes: more than a screen shows.
MOST_HOT_FILES: Final = 20
# Further nodes to take from the data path; some of them have no name, or share one.
_SPARE: Final = 40


class Counts(Protocol):
    """The part of the data path that this module needs."""

    def hot_files(self, most: int, /) -> list[tuple[int, int, int, int, int, bytes]]:
        """Return (nodeid, opens, reads, bytes, root, path below the root) for each file."""


class HotFiles:
    """The hottest files of one mount.

    `path_of` returns the path of a node that control made, or None. The list has the `most` files
    with the most requests, and the `most` with the most bytes.
    """

    def __init__(
        self, datapath: Counts, path_of: Callable[[int], bytes | None], most: int = MOST_HOT_FILES
    ) -> None:
        self._datapath = datapath
        self._most = most
        self._path_of = path_of
        self._names: dict[int, str] = {}

    def now(self) -> list[HotFile]:
        """Return the hottest files now, those with the most requests first."""
        names: dict[int, str] = {}
        files: dict[str, HotFile] = {}
        counted = self._datapath.hot_files(self._most + _SPARE)
        for nodeid, opens, reads, size, root, below in counted:
            name = self._named(root, below) or self._names.get(nodeid)
            if name is None:
                continue
            names[nodeid] = name
            other = files.get(name, HotFile(name))
            files[name] = HotFile(
                name, other.opens + opens, other.reads + reads, other.bytes + size
            )
        self._names = names
        by_requests = sorted(files.values(), key=lambda file: (-file.requests, -file.bytes))
        by_bytes = sorted(files.values(), key=lambda file: -file.bytes)
        chosen = {*by_requests[: self._most], *by_bytes[: self._most]}
        return [file for file in by_requests if file in chosen]

    def _named(self, root: int, below: bytes) -> str | None:
        above = self._path_of(root) if root else None
        if above is None:
            return None
        return printable_bytes(b"/".join(filter(None, (above, below)))) or "/"
