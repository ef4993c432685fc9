"""A listing of names that were read at one moment; what each one stands for is found when asked.

A listing and a lookup agree because both find a node in the same way. Memory is that of the names
of one directory, and an open directory of a client costs no descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import stat
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from zcfuse.datapath import BLOCK_BYTES
from zcfuse.tree._types import Attributes, Listing, Node, Tree

_DOTS: Final = 2
# ENOENT: gone since, or a whiteout. ELOOP: the mount's own filesystem, mounted inside the source.
_SKIPPED: Final = frozenset({errno.ENOENT, errno.ELOOP})

_Node = TypeVar("_Node", bound=Node)


class Snapshot(Listing, Generic[_Node]):
    """The names of a directory. Offset n stands behind entry n - 1, "." being entry 0."""

    __slots__ = ("_directory", "_failures", "_names", "_parent", "_tree")

    def __init__(self, tree: Tree, directory: _Node, parent: _Node, names: Sequence[bytes]) -> None:
        self._tree = tree
        self._directory = directory
        self._parent = parent
        self._names = names
        self._failures: dict[bytes, int] = {}

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the entries from offset `start`; ESTALE once the directory is elsewhere."""
        if start >= _DOTS + len(self._names):
            return
        with self.entered() as opened:
            if start == 0:
                yield 1, b".", self._directory, self.status(opened)
            if start <= 1:
                yield 2, b"..", *self._above(opened)
            for index in range(max(start - _DOTS, 0), len(self._names)):
                try:
                    found = self.entry(opened, index)
                except OSError as error:
                    if error.errno in _SKIPPED:
                        continue
                    self._failures[self._names[index]] = error.errno or errno.EIO
                    found = self.unseen(index)
                if found is not None:
                    yield index + _DOTS + 1, self._names[index], *found

    def failures(self) -> Mapping[bytes, int]:
        """Return the errno for each name so far that could not be looked at."""
        return self._failures

    def close(self) -> None:
        """Free the names."""
        self._names = ()

    def entered(self) -> contextlib.AbstractContextManager[Any]:
        """Open the directory for one batch of entries; `status` and `entry` get the result."""
        return contextlib.nullcontext()

    def status(self, opened: Any) -> Attributes:  # noqa: ANN401 - the subclass's own
        """Return the attributes of the directory."""
        return self._tree.attributes(self._directory)

    @abstractmethod
    def entry(self, opened: Any, index: int) -> tuple[Node, Attributes] | None:  # noqa: ANN401
        """Return the node of a name, None if it is gone."""

    @abstractmethod
    def unseen(self, index: int) -> tuple[Node, Attributes]:
        """Return a stand-in for a name whose status is denied."""

    def _above(self, opened: object) -> tuple[Node, Attributes]:
        try:
            return self._parent, self._tree.attributes(self._parent)
        except OSError:
            return self._directory, self.status(opened)


def unseen_attributes(ino: int, kind: int = 0) -> Attributes:
    """Return attributes of which only the type is known: `kind` is a DT_* value of readdir(3)."""
    return Attributes(ino, kind << 12 or stat.S_IFREG, 1, 0, 0, 0, 0, BLOCK_BYTES, 0, 0, 0, 0)
