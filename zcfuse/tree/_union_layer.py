"""One layer of a union: a mirrored directory whose whiteouts and opaque directories are read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from zcfuse import linux
from zcfuse.datapath import mixed_ino
from zcfuse.linux import Status
from zcfuse.tree._file import RegularFile
from zcfuse.tree._mirror import LIST_FLAGS, Mirror
from zcfuse.tree._nodes import MirrorNode
from zcfuse.tree._types import Attributes, BackingFile, Identity, Lease, Node, StatFs
from zcfuse.tree._union_marks import (
    NO_MARKS,
    OCI_OPAQUE,
    OCI_PREFIX,
    Marks,
    is_device_whiteout,
    read_marks,
)

# A layer on a filesystem with shorter names than the others lacks the name.
_MISSING: Final = frozenset({errno.ENOENT, errno.ENAMETOOLONG})


class AnyLayer(Protocol):
    """The questions that a union asks a layer; `index` counts from the top.

    Lookups in a directory use the descriptor that `enter` returned.
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

    def enter(self, directory: Node) -> int:
        """Open a directory to look up names in it; -1 where no descriptor is needed."""

    def leave(self, fd: int) -> None:
        """Give back what `enter` returned."""

    def find(self, fd: int, directory: Node, name: bytes) -> Piece | Whiteout | Missing:
        """Look a name up."""

    def names(self, directory: Node) -> dict[bytes, int]:
        """Return the names in a directory, each with its d_type, whiteouts included."""

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

    def close(self) -> None:
        """Free what the layer holds."""


class Piece(msgspec.Struct, frozen=True):
    """One layer's file under a name. `covers`: it hides the layers below."""

    layer: AnyLayer
    node: Node
    attributes: Attributes
    marks: Marks
    covers: bool

    @property
    def is_directory(self) -> bool:
        """Whether it may be merged with what the layers below have."""
        return stat.S_ISDIR(self.attributes.mode)


class Whiteout:
    """A layer hides a name of the layers below."""


class Missing:
    """A layer lacks a name; `number` is the errno of its lookup."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


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
        super().__init__(source, openat2=openat2)
        self.index = index
        self._numbers_of = self._device if numbers_of is None else numbers_of

    @property
    def device(self) -> int:
        """The device of the layer's root, as Status.device has it."""
        return self._device

    @property
    def fd(self) -> int:
        """The root's O_PATH descriptor, which the layer owns."""
        return self._beneath.fd

    def is_opaque(self) -> bool:
        """Say whether an image hides all layers below; overlayfs has no such mark for a root."""
        return self._has(self.fd, OCI_OPAQUE)

    def above(self) -> list[tuple[int, int]]:
        """Return (device, inode number) of the layer's root and of all directories above it."""
        found: list[tuple[int, int]] = []
        fd = os.dup(self.fd)
        try:
            while True:
                status = self._beneath.examine(fd)
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
        self._beneath.require_near()  # whoever leases it asks it
        return Lease(self.fd) if self._openat2 else None

    def open(self, node: Node) -> RegularFile:
        """Open a regular file as a mirror does."""
        file = super().open(node)
        assert isinstance(file, RegularFile)
        return file

    def find(self, fd: int, directory: Node, name: bytes) -> Piece | Whiteout | Missing:
        """Look `name` up in `directory`, which is open as `fd`."""
        try:
            return self._found(fd, self._own(directory), name)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            covered = self._has(fd, OCI_PREFIX + name)
            return Whiteout() if covered else Missing(error.errno or errno.ENOENT)

    def names(self, directory: Node) -> dict[bytes, int]:
        """Return the names in the directory, each with its d_type, whiteouts included."""
        fd, _ = self._open(self._own(directory), LIST_FLAGS)
        try:
            return linux.directory_names(fd)
        finally:
            self.leave(fd)

    def _found(self, fd: int, directory: MirrorNode, name: bytes) -> Piece | Whiteout:
        status = self._beneath.look(fd, name)
        if is_device_whiteout(status.attributes):
            return Whiteout()
        marks, covers = NO_MARKS, True
        if not self._current(status) or stat.S_IFMT(status.attributes.mode) in _MARKED:
            held = self._beneath.step(fd, name)
            try:
                status = self._fresh(held)
                marks = read_marks(held) if _is_marked(status) else NO_MARKS
                if stat.S_ISDIR(status.attributes.mode):
                    covers = marks.opaque or self._has(held, OCI_OPAQUE)
                    covers = covers or self._has(fd, OCI_PREFIX + name)
            finally:
                os.close(held)
        found = status.attributes
        if marks.whiteout and stat.S_ISREG(found.mode) and found.size == 0:
            return Whiteout()
        node = MirrorNode(self._identity(status), directory, name)
        return Piece(self, node, self._describe(status), marks, covers)

    def _has(self, fd: int, name: bytes) -> bool:
        try:
            self._beneath.look(fd, name)
        except OSError as error:
            if error.errno in _MISSING:
                return False
            raise
        return True

    def _describe(self, status: Status) -> Attributes:
        if status.device == self._numbers_of:
            return status.attributes
        shown = mixed_ino(status.device, status.attributes.ino)
        return msgspec.structs.replace(status.attributes, ino=shown)


_MARKED: Final = frozenset({stat.S_IFREG, stat.S_IFDIR})


def _is_marked(status: Status) -> bool:
    return stat.S_IFMT(status.attributes.mode) in _MARKED
