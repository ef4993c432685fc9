"""One layer of a union: a mirrored directory whose whiteouts and opaque directories are read."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

import msgspec

from zcfuse.linux import _files as _syscalls
from zcfuse.linux._files import Status
from zcfuse.tree._file import RegularFile
from zcfuse.tree._mirror import LIST_FLAGS, Mirror, mixed_ino
from zcfuse.tree._nodes import MirrorNode
from zcfuse.tree._types import Attributes, Node
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


class Piece(msgspec.Struct, frozen=True):
    """What one layer has under a name. `covers`: the layers below show nothing of theirs."""

    layer: Layer
    node: MirrorNode
    attributes: Attributes
    marks: Marks
    covers: bool

    @property
    def is_directory(self) -> bool:
        """Whether it may be merged with what the layers below have."""
        return stat.S_ISDIR(self.attributes.mode)


class Whiteout:
    """A layer says that there is no such name in the layers below."""


class Missing:
    """A layer has nothing to say about a name. `number`: with which errno."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Layer(Mirror):
    """A directory among several; `index` counts from the top.

    `numbers_of` is the device whose inode numbers are shown as they are; None: the layer's own.
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
        """The root, an O_PATH descriptor of the layer's own."""
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

    def open(self, node: Node) -> RegularFile:
        """Open a regular file as a mirror does."""
        file = super().open(node)
        assert isinstance(file, RegularFile)
        return file

    def find(self, fd: int, directory: MirrorNode, name: bytes) -> Piece | Whiteout | Missing:
        """Return what the layer says of `name` in `directory`, which is open as `fd`."""
        try:
            return self._found(fd, directory, name)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            covered = self._has(fd, OCI_PREFIX + name)
            return Whiteout() if covered else Missing(error.errno or errno.ENOENT)

    def names(self, directory: MirrorNode) -> dict[bytes, int]:
        """Return the names in the directory, each with its d_type, whiteouts included."""
        fd, _ = self._open(directory, LIST_FLAGS)
        try:
            return _syscalls.directory_names(fd)
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
