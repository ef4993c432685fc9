"""A tree that shows one real directory as it is.

Nodes hold no descriptors. Each access opens the node's path again, beneath the root and without
symbolic links. Then it compares (device, inode number, time of birth) with the node and raises
ESTALE if they differ. On filesystems without times of birth, the file handle tells a reused inode
number. The native source does all this, for this tree as for the data path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from zcfuse.arguments import require_one_of, require_path, require_type
from zcfuse.datapath import SourceDirectory, packed_identity
from zcfuse.linux import device_number
from zcfuse.tree._backing import Backing, Call, OpenPlace
from zcfuse.tree._file import RegularFile
from zcfuse.tree._listing import MirrorListing
from zcfuse.tree._nodes import MirrorNode
from zcfuse.tree._overrides import overrides
from zcfuse.tree._renewal import COHERENCE
from zcfuse.tree._types import (
    Attributes,
    BackingFile,
    Identity,
    Listing,
    Node,
    StatFs,
    Tree,
)

# The path no longer leads to the node.
_GONE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ESTALE}
)
_64_BITS: Final = (1 << 64) - 1
# A subclass that overrides these still answers like a mirror, except for what it keeps.
_FREE: Final = frozenset({"keeps", "lease"})

_T = TypeVar("_T")


class Mirror(Tree):
    """Shows the directory `source`. Raises OSError if it cannot be opened.

    A mount of the tree inside its source would have to ask itself, so pass the mount's device to
    `refuse_device` as soon as it exists. `openat2=False` avoids that system call. `stacked` is True
    if the source's filesystem lies on others, such as overlayfs. `coherence` is that of
    `MountOptions` for this directory alone: "ttl", "push", "strict" or None for the mount's.
    """

    root: MirrorNode

    def __init__(
        self,
        source: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        openat2: bool = True,
        coherence: str | None = None,
    ) -> None:
        require_path("source", source)
        require_one_of("coherence", coherence, COHERENCE)
        require_type("openat2", openat2, bool, "True or False")
        self._of = f" of {os.fsdecode(source)}"
        self._openat2 = openat2
        self.coherence = coherence
        self._backing = Backing(source, openat2=openat2, numbers_of=self._shown_device())
        self.stacked = self._backing.stacked
        self.root = MirrorNode(self._backing.identity, None, b"")

    def refuse_device(self, major: int, minor: int) -> None:
        """Raise ELOOP for files on this device, and never send it a request."""
        self._backing.refuse(device_number(major, minor))

    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Return the present meaning of `name` in `directory`."""
        parent = self._own(directory)
        if name == b".":
            return parent, self.attributes(parent)
        if name == b"..":
            above = parent.parent or parent
            return above, self.attributes(above)
        if not name or b"/" in name or b"\0" in name:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.entry(self.enter(parent), parent, name)

    def attributes(self, node: Node) -> Attributes:
        """Return the node's attributes."""
        return Attributes(*self._ask(node, SourceDirectory.status))

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        return self._ask(node, SourceDirectory.read_link)

    def open(self, node: Node) -> BackingFile:
        """Open a regular file: EISDIR for a directory, ESTALE for other kinds."""
        return RegularFile(self._ask(node, SourceDirectory.open), self._backing.describe)

    def listing(self, node: Node) -> Listing:
        """Return the directory's names as they are now."""
        return MirrorListing(self, self._own(node))

    def statfs(self) -> StatFs:
        """Return the state of the filesystem that the source is on."""
        self._backing.require_near()
        found = os.fstatvfs(self._backing.fileno())
        return StatFs(
            bsize=found.f_bsize,
            frsize=found.f_frsize,
            blocks=found.f_blocks,
            bfree=found.f_bfree,
            bavail=found.f_bavail,
            files=found.f_files,
            ffree=found.f_ffree,
            favail=found.f_favail,
            namemax=found.f_namemax,
        )

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return the value of an extended attribute, of a symbolic link itself if it is one."""
        return self._ask(node, lambda at, own, identity: at.get_xattr(own, identity, name))

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return self._ask(node, SourceDirectory.list_xattrs)

    def lease(self) -> int | None:
        """Return the root's descriptor, unless a subclass overrides any answer.

        A subclass that overrides answers only below certain names returns those from `keeps`; then
        it leases the rest.
        """
        if not self._openat2 or (overrides(self, Mirror, _FREE) and not self.keeps()):
            return None
        self._backing.require_near()  # whoever leases it asks it
        return self._backing.fileno()

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node of a file that the data plane found below the root."""
        packed = packed_identity(
            identity.ino, identity.btime_ns & _64_BITS, stat.S_IFMT(identity.kind)
        )
        return MirrorNode(packed, self._own(directory), name)

    def describe(self, node: Node) -> str:
        """Return the file that it mirrors."""
        whose = "mirror" if type(self) is Mirror else f"mirror ({type(self).__qualname__})"
        return f"{whose} of {os.fsdecode(self.place(node))}"

    def place(self, node: Node) -> bytes:
        """Return the present path of a node, as far as this process knows."""
        root = os.readlink(b"/proc/self/fd/%d" % self._backing.fileno())
        return os.path.join(root, *next(self._own(node).paths()))

    def real_path(self, node: Node) -> bytes | None:
        """Return the path of the file, unless a subclass opens other files."""
        return self.place(node) if type(self).open is Mirror.open else None

    def close(self) -> None:
        """Close the root; open files and listings can still use their own descriptors."""
        self._backing.close()

    def enter(self, directory: Node) -> OpenPlace:
        """Open a directory to look at its entries."""
        own = self._own(directory)
        return _at_links(own, lambda names: self._backing.enter(names, own.identity))

    def inside(self, place: OpenPlace) -> Attributes:
        """Return the attributes of the directory that `enter` opened."""
        return self._backing.find(place, b"")[3]

    def entry(
        self, place: OpenPlace, directory: MirrorNode, name: bytes
    ) -> tuple[MirrorNode, Attributes]:
        """Return the node called `name` in `directory`, which is open as `place`."""
        _, _, identity, attributes = self._backing.find(place, name)
        return MirrorNode(identity, directory, name), attributes

    def _shown_device(self) -> int | None:
        """Return the device whose inode numbers are shown unchanged; None: the source's."""
        return None

    def _own(self, node: Node) -> MirrorNode:
        if not isinstance(node, MirrorNode):
            raise TypeError(f"not a node of a mirror: {node!r}")
        return node

    def _ask(self, node: Node, call: Call[_T]) -> _T:
        own = self._own(node)
        return _at_links(own, lambda names: self._backing.ask(names, own.identity, call))


def _at_links(node: MirrorNode, attempt: Callable[[Sequence[bytes]], _T]) -> _T:
    """Return what `attempt` returns for the first of a node's paths that leads to it."""
    for names in node.paths():
        try:
            return attempt(names)
        except OSError as error:
            if error.errno not in _GONE:
                raise
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
