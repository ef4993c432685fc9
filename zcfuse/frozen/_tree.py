"""The tree of an image, for a mount by FUSE: the kernel's answers from the same bytes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from zcfuse.datapath import BLOCK_BYTES, NAME_BYTES
from zcfuse.frozen._errors import ImageError
from zcfuse.frozen._image import FrozenImage
from zcfuse.frozen._layout import DeviceRun
from zcfuse.linux import device_number
from zcfuse.tree import (
    HOLE,
    WHOLE_FILE,
    Attributes,
    Backing,
    BackingFile,
    Extent,
    Identity,
    Lease,
    Listing,
    Node,
    PathOpener,
    StatFs,
    Tree,
    pread_extents,
)

_DOTS: Final = (b".", b"..")
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class FrozenNode(Node):
    """An inode of an image. A directory also knows the one above."""

    __slots__ = ("above", "identity", "nid")

    def __init__(self, image: int, nid: int, above: FrozenNode | None = None) -> None:
        self.nid = nid
        self.above = above
        self.identity: tuple[int, int] = (image, nid)


class FrozenTree(Tree):
    """Shows what an image describes. Its files are opened where the image says that they are.

    A backing file of another size, and a device of another size or time of modification, than when
    the tree was frozen is ESTALE. A damaged part of the image is EIO.

    `engine_reason` says in the status of a mount why FUSE serves the image.

    Parameters:
        path: of the image, which must not change.

    Raises:
        ImageError: the image cannot be used; the text says why.
        OSError: the image cannot be read.
    """

    root: FrozenNode

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.engine_reason = ""
        self._opener = PathOpener()
        self._roots: list[Backing] = []
        self._refused = (0, 0)
        self.path: Final = os.path.realpath(path)
        self.image: Final = FrozenImage(self.path)
        try:
            for root in self.image.about.roots:
                self._roots.append(_opened_root(self.image, root))
        except BaseException:
            self.close()
            raise
        self.root = FrozenNode(id(self.image), self.image.root)

    def refuse_device(self, major: int, minor: int) -> None:
        """Answer ELOOP for files that lie on this device."""
        self._refused = major, minor
        self._opener.refuse_device(major, minor)
        for root in self._roots:
            root.refuse(device_number(major, minor))

    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Return what `name` stands for in `directory`."""
        own = _own(directory)
        if name in _DOTS:
            found = own if name == b"." else own.above or own
            return found, self.attributes(found)
        if len(name) > NAME_BYTES:
            raise _error(errno.ENAMETOOLONG)
        nid = self.image.lookup(own.nid, name)
        if nid is None:
            raise _error(errno.ENOENT)
        return self.found(own, nid)

    def found(self, directory: FrozenNode, nid: int) -> tuple[FrozenNode, Attributes]:
        """Return the node of an inode that stands in a directory."""
        attributes = self.image.attributes(nid)
        above = directory if stat.S_ISDIR(attributes.mode) else None
        return FrozenNode(id(self.image), nid, above), attributes

    def attributes(self, node: Node) -> Attributes:
        """Return the attributes that the image has."""
        return self.image.attributes(_own(node).nid)

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link; EINVAL for anything else."""
        return self.image.target(_own(node).nid)

    def open(self, node: Node) -> BackingFile:
        """Open a regular file; ESTALE where what its bytes lie in has changed."""
        attributes = self.attributes(node)
        if not stat.S_ISREG(attributes.mode):
            raise _error(errno.EISDIR if stat.S_ISDIR(attributes.mode) else errno.ESTALE)
        place = self.image.place(_own(node).nid)
        if isinstance(place, bytes):
            return self._whole(attributes, place)
        file = FrozenFile(attributes)
        try:
            for piece in place:
                file.add(piece, self._opened_device)
        except BaseException:
            file.close()
            raise
        return file

    def listing(self, node: Node) -> Listing:
        """Return the names of a directory."""
        own = _own(node)
        if not stat.S_ISDIR(self.attributes(own).mode):
            raise _error(errno.ENOTDIR)
        return _FrozenListing(self, own)

    def statfs(self) -> StatFs:
        """Return the image's size; nothing is free."""
        blocks = -(-self.image.file.size // BLOCK_BYTES)
        return StatFs(BLOCK_BYTES, BLOCK_BYTES, blocks, 0, 0, 0, 0, 0, NAME_BYTES)

    def part_bytes(self) -> int:
        """Return the mean size of the files if they lie in others."""
        about = self.image.about
        return about.data_bytes // max(1, about.files) if about.devices else 0

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute; the image hides its marks."""
        return self.image.xattr(_own(node).nid, name)

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return self.image.xattr_names(_own(node).nid)

    def lease_of(self, node: Node) -> Lease | None:
        """Return the whole image, for the root."""
        if node is not self.root:
            return None
        return Lease(
            -1, source=self.image.source([root.fileno() for root in self._roots], self._refused)
        )

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node of an inode that the data path found."""
        return self.found(_own(directory), identity.ino)[0]

    def describe(self, node: Node) -> str:
        """Return where the bytes of a file lie."""
        nid = _own(node).nid
        of = f"of the frozen image {self.image.file.path}"
        if not stat.S_ISREG(self.attributes(node).mode):
            return f"name {of}"
        place = self.image.place(nid)
        if isinstance(place, bytes):
            return f"whole file {of}, which redirects to {os.fsdecode(place)}"
        return f"file {of}, made of blocks"

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return, as "images", what the image says of itself, by its path."""
        about = self.image.about
        told = {
            "source": about.source,
            "files": about.files,
            "directories": about.directories,
            "devices": len(about.devices),
            "fuse_only": list(about.fuse_only),
            "engine_reason": self.engine_reason,
        }
        return {"images": {self.image.file.path: told}}

    def close(self) -> None:
        """Close the image and the directories that its files lie in."""
        for root in self._roots:
            root.close()
        self.image.close()

    def _whole(self, attributes: Attributes, redirect: bytes) -> BackingFile:
        names = [name for name in redirect.split(b"/") if name]
        if not names or b"." in names or b".." in names or not redirect.startswith(b"/"):
            raise _error(errno.EIO)
        for root in self._roots:
            try:
                fd = root.open(names)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return _checked(fd, attributes)
        raise _error(errno.EIO)  # as overlayfs, where the file is gone

    def _opened_device(self, number: int) -> int:
        if number == 0:
            return os.dup(self.image.file.fd)
        device = self.image.about.devices[number - 1]
        fd = self._opener.open(device.path, _READ)
        status = os.fstat(fd)
        if (status.st_size, status.st_mtime_ns) == (device.size, device.mtime_ns):
            return fd
        os.close(fd)
        raise _error(errno.ESTALE)


class FrozenFile(BackingFile):
    """An open file of an image. Owns a descriptor of each file that its bytes lie in."""

    __slots__ = ("_attributes", "_extents", "_fds")

    def __init__(self, attributes: Attributes, whole: int = -1) -> None:
        """`whole` is the descriptor of the one file that it is, if it is one."""
        self._attributes = attributes
        self._fds = {} if whole < 0 else {0: whole}
        self._extents = [] if whole < 0 else [Extent(whole, 0, WHOLE_FILE)]

    def add(self, piece: DeviceRun, opened: Callable[[int], int]) -> None:
        """Add a piece at the end; `opened` gives the descriptor of a device."""
        if piece.device < 0:
            self._extents.append(Extent(HOLE, 0, piece.length))
            return
        if piece.device not in self._fds:
            self._fds[piece.device] = opened(piece.device)
        self._extents.append(Extent(self._fds[piece.device], piece.offset, piece.length))

    @property
    def extents(self) -> Sequence[Extent]:
        """The runs of bytes that make up the file."""
        return self._extents

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return pread_extents(self._extents, size, offset)

    def attributes(self) -> Attributes:
        """Return the attributes, which do not change."""
        return self._attributes

    def close(self) -> None:
        """Close the descriptors."""
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)


class _FrozenListing(Listing):
    """The names of a directory, which never change."""

    __slots__ = ("_directory", "_tree")

    def __init__(self, tree: FrozenTree, directory: FrozenNode) -> None:
        self._tree = tree
        self._directory = directory

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the entries from offset `start`."""
        for offset, name in enumerate(_DOTS):
            if start <= offset:
                yield offset + 1, name, *self._tree.lookup(self._directory, name)
        first = max(start - len(_DOTS), 0)
        for following, name, nid in self._tree.image.entries(self._directory.nid, first):
            if name not in _DOTS:
                yield following + len(_DOTS), name, *self._tree.found(self._directory, nid)

    def close(self) -> None:
        """There is nothing to free."""


def _opened_root(image: FrozenImage, root: bytes) -> Backing:
    try:
        return Backing(root)
    except OSError as error:
        raise ImageError(
            f"{image.file.path}: its files lie in {os.fsdecode(root)}: {error.strerror}:"
            " bring it back, or freeze the tree again"
        ) from error


def _checked(fd: int, attributes: Attributes) -> BackingFile:
    """Return the file that a redirect leads to, if it is still as large as it was."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size != attributes.size:
        os.close(fd)
        raise _error(errno.ESTALE)
    return FrozenFile(attributes, fd)


def _own(node: Node) -> FrozenNode:
    if isinstance(node, FrozenNode):
        return node
    raise _error(errno.ESTALE)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
