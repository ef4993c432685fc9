"""One layer of a union: a mirrored directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from zcfuse.datapath import OPAQUE_NAME, SourceDirectory
from zcfuse.linux import AT_EMPTY_PATH, AT_STATX_DONT_SYNC, statx
from zcfuse.tree._backing import OpenPlace
from zcfuse.tree._file import RegularFile
from zcfuse.tree._mirror import Mirror
from zcfuse.tree._nodes import MirrorNode
from zcfuse.tree._types import Attributes, BackingFile, Identity, Lease, Node, StatFs

Found = tuple[Node, Attributes, SourceDirectory | None, bytes]
"""What a layer has under a name, and where its marks are: a name in a directory; None: nowhere."""


class AnyLayer(Protocol):
    """The questions that a union asks a layer; `index` counts from the top.

    Lookups in a directory use the place that `enter` returned.
    """

    index: int

    @property
    def device(self) -> int:
        """The device whose inode numbers clients see unchanged, or 0."""

    @property
    def stacked(self) -> bool:
        """Whether the layer's filesystem lies on others, such as overlayfs."""

    @property
    def root(self) -> Node:
        """The layer's root."""

    def refuse_device(self, major: int, minor: int) -> None:
        """Answer ELOOP for whatever lies on this device."""

    def is_opaque(self) -> bool:
        """Say whether the root hides all layers below."""

    def above(self) -> Sequence[tuple[int, int]]:
        """Return (device, inode number) of the root and of all directories above it."""

    def enter(self, directory: Node) -> OpenPlace | None:
        """Open a directory to look up names in it; None where that needs no opening."""

    def find(self, place: OpenPlace | None, directory: Node, name: bytes) -> Found:
        """Look a name up, whiteouts included."""

    def names(self, directory: Node) -> dict[bytes, int]:
        """Return the names in a directory, each with its d_type, whiteouts included."""

    def failures(self, directory: Node) -> Mapping[bytes, int]:
        """Return the errno for each further name whose entry cannot be found."""

    def attributes(self, node: Node) -> Attributes:
        """Return a node's attributes."""

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""

    def open(self, node: Node) -> BackingFile:
        """Open a regular file."""

    def statfs(self) -> StatFs:
        """Return the state of the layer's filesystem."""

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute."""

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes."""

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node that the data plane found."""

    def lease_root(self) -> Lease | None:
        """Return a lease for the data plane, or None if it cannot answer."""

    def place(self, node: Node) -> bytes:
        """Return a node's place or a description of it."""

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return what a tree tells for its mount's status."""

    def close(self) -> None:
        """Free what the layer holds."""


class Layer(Mirror):
    """A directory among several; `index` counts from the top.

    Clients see the inode numbers of the device `numbers_of` unchanged; None: the layer's device.
    """

    def __init__(
        self,
        source: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        index: int,
        numbers_of: int | None = None,
        *,
        openat2: bool = True,
    ) -> None:
        self.index = index
        self._numbers_of = numbers_of
        super().__init__(source, openat2=openat2)

    @property
    def device(self) -> int:
        """The device of the layer's root, as Status.device has it."""
        return self._backing.device

    @property
    def fd(self) -> int:
        """The root's O_PATH descriptor, which the layer owns."""
        return self._backing.fileno()

    def is_opaque(self) -> bool:
        """Say whether an image hides all layers below; overlayfs has no such mark for a root."""
        with contextlib.suppress(FileNotFoundError):
            self._backing.find(self._backing.root, OPAQUE_NAME)
            return True
        return False

    def above(self) -> list[tuple[int, int]]:
        """Return (device, inode number) of the layer's root and of all directories above it."""
        found: list[tuple[int, int]] = []
        fd = os.dup(self.fd)
        try:
            while True:
                status = statx(fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC)
                place = (status.device, status.attributes.ino)
                if found and place == found[-1]:
                    return found
                found.append(place)
                following = os.open(b"..", os.O_PATH | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = following
        finally:
            os.close(fd)

    def lease_root(self) -> Lease | None:
        """Return the layer's directory, None without openat2."""
        self._backing.require_near()  # whoever leases it asks it
        return Lease(self.fd) if self._openat2 else None

    def open(self, node: Node) -> RegularFile:
        """Open a regular file as a mirror does."""
        file = super().open(node)
        assert isinstance(file, RegularFile)
        return file

    def find(self, place: OpenPlace | None, directory: Node, name: bytes) -> Found:
        """Look `name` up in `directory`, which is open as `place`."""
        assert place is not None  # from enter()
        found, own, identity, attributes = self._backing.find(place, name)
        return MirrorNode(identity, self._own(directory), name), attributes, found.at, own

    def names(self, directory: Node) -> dict[bytes, int]:
        """Return the names in the directory, each with its d_type, whiteouts included."""
        return self.enter(directory).at.names()

    def failures(self, directory: Node) -> Mapping[bytes, int]:
        """Return none: a name of a directory that cannot be found has gone."""
        return {}

    def _shown_device(self) -> int | None:
        """Return the device of the topmost layer."""
        return self._numbers_of
