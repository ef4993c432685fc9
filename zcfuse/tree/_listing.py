"""The listing of a mirrored directory, which is opened once for each batch of entries."""

from __future__ import annotations

import contextlib
import zlib
from typing import TYPE_CHECKING

from zcfuse.tree._nodes import MirrorNode, UnseenNode
from zcfuse.tree._snapshot import Snapshot, unseen_attributes
from zcfuse.tree._types import Attributes

if TYPE_CHECKING:
    from zcfuse.tree._backing import OpenPlace
    from zcfuse.tree._mirror import Mirror


class MirrorListing(Snapshot[MirrorNode]):
    """The names of a mirrored directory."""

    __slots__ = ("_kinds", "_mirror")

    def __init__(self, mirror: Mirror, directory: MirrorNode) -> None:
        """Read the names of `directory`."""
        names = mirror.enter(directory).at.names()
        super().__init__(mirror, directory, directory.parent or directory, list(names))
        self._mirror = mirror
        self._kinds = bytes(names.values())

    def entered(self) -> contextlib.AbstractContextManager[OpenPlace]:
        """Open the directory."""
        return contextlib.nullcontext(self._mirror.enter(self._directory))

    def status(self, opened: OpenPlace) -> Attributes:
        """Return the attributes of the open directory."""
        return self._mirror.inside(opened)

    def entry(self, opened: OpenPlace, index: int) -> tuple[MirrorNode, Attributes]:
        """Return the node of a name."""
        return self._mirror.entry(opened, self._directory, self._names[index])

    def unseen(self, index: int) -> tuple[MirrorNode, Attributes]:
        """Return a stand-in for an entry that exists but whose status is denied."""
        name = self._names[index]
        identity = b"unseen" + self._directory.identity + name
        ino = zlib.crc32(name, zlib.crc32(self._directory.identity)) or 1
        node = UnseenNode(identity, self._directory, name)
        return node, unseen_attributes(ino, self._kinds[index])
