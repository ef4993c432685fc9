"""The tree of an image, for a mount by FUSE: the kernel's answers from the same bytes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from zcfuse.datapath import BLOCK_BYTES, SECTOR_BYTES
from zcfuse.frozen import _xattrs
from zcfuse.frozen._errors import ImageError
from zcfuse.frozen._image import FrozenImage, Member
from zcfuse.frozen._layout import Piece
from zcfuse.linux import device_number
from zcfuse.tree import (
    HOLE,
    WHOLE_FILE,
    Attributes,
    Backing,
    BackingFile,
    Extent,
    Listing,
    Node,
    PathOpener,
    StatFs,
    Tree,
    pread_extents,
)

_NAME_BYTES: Final = 255
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
        self.path: Final = os.path.realpath(path)
        self.image: Final = FrozenImage(self.path)
        try:
            for root in self.image.about.roots:
                self._roots.append(_opened_root(self.image, root))
        except BaseException:
            self.close()
            raise
        self.in_parts = bool(self.image.about.devices)
        self.root = FrozenNode(id(self.image), self.image.root)

    def refuse_device(self, major: int, minor: int) -> None:
        """Answer ELOOP for files that lie on this device."""
        self._opener.refuse_device(major, minor)
        for root in self._roots:
            root.refuse(device_number(major, minor))

    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Return what `name` stands for in `directory`."""
        own = _own(directory)
        if name in (b".", b".."):
            found = own if name == b"." else own.above or own
            return found, self.attributes(found)
        if len(name) > _NAME_BYTES:
            raise _error(errno.ENAMETOOLONG)
        nid = self.image.lookup(self._directory(own), name)
        if nid is None:
            raise _error(errno.ENOENT)
        return self.found(own, nid)

    def found(self, directory: FrozenNode, nid: int) -> tuple[FrozenNode, Attributes]:
        """Return the node of an inode that stands in a directory."""
        member = self.image.member(nid)
        above = directory if stat.S_ISDIR(member.inode.mode) else None
        return FrozenNode(id(self.image), nid, above), _attributes(member)

    def attributes(self, node: Node) -> Attributes:
        """Return the attributes that the image has."""
        return _attributes(self._member(node))

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link; EINVAL for anything else."""
        member = self._member(node)
        if not stat.S_ISLNK(member.inode.mode):
            raise _error(errno.EINVAL)
        return self.image.target(member)

    def open(self, node: Node) -> BackingFile:
        """Open a regular file; ESTALE where what its bytes lie in has changed."""
        member = self._member(node)
        if not stat.S_ISREG(member.inode.mode):
            raise _error(errno.EISDIR if stat.S_ISDIR(member.inode.mode) else errno.ESTALE)
        marks = member.attributes()
        redirect = marks.get(_xattrs.REDIRECT)
        if redirect is not None:
            return self._whole(member, redirect)
        file = FrozenFile(_attributes(member))
        try:
            for piece in self.image.pieces(member, marks):
                file.add(piece, self._opened_device)
        except BaseException:
            file.close()
            raise
        return file

    def listing(self, node: Node) -> Listing:
        """Return the names of a directory."""
        own = _own(node)
        return _FrozenListing(self, own, self._directory(own))

    def statfs(self) -> StatFs:
        """Return the image's size; nothing is free."""
        blocks = -(-self.image.file.size // BLOCK_BYTES)
        return StatFs(BLOCK_BYTES, BLOCK_BYTES, blocks, 0, 0, 0, 0, 0, _NAME_BYTES)

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute; the image hides its marks."""
        kept = self._member(node).attributes()
        if _xattrs.escaped(name) not in kept or name == _xattrs.PIECES:
            raise _error(errno.ENODATA)
        return kept[_xattrs.escaped(name)]

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        names = map(_xattrs.shown, self._member(node).attributes())
        return [name for name in names if name is not None]

    def describe(self, node: Node) -> str:
        """Return where the bytes of a file lie."""
        member = self._member(node)
        of = f"of the frozen image {self.image.file.path}"
        if not stat.S_ISREG(member.inode.mode):
            return f"name {of}"
        redirect = member.attributes().get(_xattrs.REDIRECT)
        if redirect is not None:
            return f"whole file {of}, which redirects to {os.fsdecode(redirect)}"
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

    def _whole(self, member: Member, redirect: bytes) -> BackingFile:
        names = [name for name in redirect.split(b"/") if name]
        if not names or b"." in names or b".." in names or not redirect.startswith(b"/"):
            raise _error(errno.EIO)
        for root in self._roots:
            try:
                fd = root.open(names)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return _checked(fd, member)
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

    def _member(self, node: Node) -> Member:
        return self.image.member(_own(node).nid)

    def _directory(self, node: FrozenNode) -> Member:
        member = self.image.member(node.nid)
        if not stat.S_ISDIR(member.inode.mode):
            raise _error(errno.ENOTDIR)
        return member


class FrozenFile(BackingFile):
    """An open file of an image. Owns a descriptor of each file that its bytes lie in."""

    __slots__ = ("_attributes", "_extents", "_fds")

    def __init__(self, attributes: Attributes, whole: int = -1) -> None:
        """`whole` is the descriptor of the one file that it is, if it is one."""
        self._attributes = attributes
        self._fds = {} if whole < 0 else {0: whole}
        self._extents = [] if whole < 0 else [Extent(whole, 0, WHOLE_FILE)]

    def add(self, piece: Piece, opened: Callable[[int], int]) -> None:
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

    __slots__ = ("_directory", "_member", "_tree")

    def __init__(self, tree: FrozenTree, directory: FrozenNode, member: Member) -> None:
        self._tree = tree
        self._directory = directory
        self._member = member

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the entries from offset `start`."""
        for offset, name in enumerate(_DOTS):
            if start <= offset:
                yield offset + 1, name, *self._tree.lookup(self._directory, name)
        first = max(start - len(_DOTS), 0)
        for following, name, nid in self._tree.image.entries(self._member, first):
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


def _checked(fd: int, member: Member) -> BackingFile:
    """Return the file that a redirect leads to, if it is still as large as it was."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size != member.inode.size:
        os.close(fd)
        raise _error(errno.ESTALE)
    return FrozenFile(_attributes(member), fd)


def _attributes(member: Member) -> Attributes:
    inode = member.inode
    return Attributes(
        ino=member.nid,
        mode=inode.mode,
        nlink=inode.nlink,
        uid=inode.uid,
        gid=inode.gid,
        rdev=inode.rdev,
        size=inode.size,
        blksize=BLOCK_BYTES,
        blocks=-(-inode.size // BLOCK_BYTES) * (BLOCK_BYTES // SECTOR_BYTES),
        atime_ns=inode.mtime_ns,
        mtime_ns=inode.mtime_ns,
        ctime_ns=inode.mtime_ns,
    )


def _own(node: Node) -> FrozenNode:
    if isinstance(node, FrozenNode):
        return node
    raise _error(errno.ESTALE)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
