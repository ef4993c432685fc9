"""A tree that shows one real directory as it is.

Nodes hold no descriptors. Each access opens the node's path again, beneath the root and without
symbolic links. Then it compares (device, inode number, time of birth) with the node and raises
ESTALE if they differ. On filesystems without times of birth, a reused inode number goes unnoticed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from zcfuse.datapath import is_local, mixed_ino
from zcfuse.linux import AT_EMPTY_PATH, Status, device_number, filesystem_type, statx
from zcfuse.tree._beneath import Beneath
from zcfuse.tree._file import RegularFile
from zcfuse.tree._listing import MirrorListing
from zcfuse.tree._nodes import MirrorNode
from zcfuse.tree._types import Attributes, BackingFile, Identity, Listing, Node, StatFs, Tree

_PATH: Final = os.O_PATH | os.O_NOFOLLOW
# O_NONBLOCK: a FIFO put in the file's place must not make open(2) wait for a writer.
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
LIST_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_NOFOLLOW

# The path no longer leads to the node.
_GONE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ESTALE}
)

# Filesystems made of others, which the kernel counts as a level of stacking: overlayfs, ecryptfs.
_STACKED: Final = frozenset({0x794C7630, 0xF15F})
_IDENTITY: Final = struct.Struct("=QQqQ")
# A subclass that overrides only these still answers like a mirror.
_FREE: Final = frozenset(
    {"__init__", "close", "describe", "keeps", "lease", "lease_of", "refuse_device", "watch"}
)


class Mirror(Tree):
    """Shows the directory `source`. Raises OSError if it cannot be opened.

    A mount of the tree inside its source would have to ask itself, so pass the mount's device to
    `refuse_device` as soon as it exists. `openat2=False` avoids that system call. `stacked` is True
    if the source's filesystem lies on others, such as overlayfs.
    """

    root: MirrorNode

    def __init__(
        self, source: str | bytes | os.PathLike[str] | os.PathLike[bytes], *, openat2: bool = True
    ) -> None:
        fd = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._beneath = Beneath(fd, openat2=openat2)  # owns it from here, also where it fails
        try:
            self._openat2 = openat2
            status = statx(fd, b"", AT_EMPTY_PATH)
            self._local = is_local(fd)
            self.stacked = filesystem_type(fd) in _STACKED
        except BaseException:
            self._beneath.close()
            raise
        self._device = status.device
        self._mount = status.mount
        self.root = MirrorNode(self._identity(status), None, b"")

    def refuse_device(self, major: int, minor: int) -> None:
        """Raise ELOOP for files on this device, and never send it a request."""
        self._beneath.refuse(device_number(major, minor))

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
        fd = self.enter(parent)
        try:
            return self.entry(fd, parent, name)
        finally:
            self.leave(fd)

    def attributes(self, node: Node) -> Attributes:
        """Return the node's attributes."""
        fd, status = self._open(self._own(node), _PATH)
        self.leave(fd)
        return self._describe(status)

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        fd, _ = self._open(self._own(node), _PATH)
        try:
            return os.readlink(b"", dir_fd=fd)
        finally:
            self.leave(fd)

    def open(self, node: Node) -> BackingFile:
        """Open a regular file: EISDIR for a directory, ESTALE for other kinds."""
        mirrored = self._own(node)
        try:
            # Only an owner may ask not to change the time of access (open(2)).
            fd, status = self._open(mirrored, _READ | os.O_NOATIME)
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise
            fd, status = self._open(mirrored, _READ)
        if not stat.S_ISREG(status.attributes.mode):
            self.leave(fd)
            directory = stat.S_ISDIR(status.attributes.mode)
            number = errno.EISDIR if directory else errno.ESTALE
            raise OSError(number, os.strerror(number))
        return RegularFile(fd, self._describe)

    def listing(self, node: Node) -> Listing:
        """Return the directory's names as they are now."""
        directory = self._own(node)
        fd, _ = self._open(directory, LIST_FLAGS)
        try:
            return MirrorListing(self, directory, fd)
        finally:
            self.leave(fd)

    def statfs(self) -> StatFs:
        """Return the state of the filesystem that the source is on."""
        self._beneath.require_near()
        found = os.fstatvfs(self._beneath.fd)
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
        fd, _ = self._open(self._own(node), _PATH)
        try:
            return os.getxattr(b"/proc/self/fd/%d" % fd, name)
        finally:
            self.leave(fd)

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        fd, _ = self._open(self._own(node), _PATH)
        try:
            return [os.fsencode(name) for name in os.listxattr(b"/proc/self/fd/%d" % fd)]
        finally:
            self.leave(fd)

    def lease(self) -> int | None:
        """Return the root's descriptor, unless a subclass overrides any answer.

        A subclass that overrides answers only below certain names returns those from `keeps`; then
        it leases the rest.
        """
        if not self._openat2 or (self._differs() and not self.keeps()):
            return None
        self._beneath.require_near()  # whoever leases it asks it
        return self._beneath.fd

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node of a file that the data plane found below the root."""
        return MirrorNode(packed_identity(identity), self._own(directory), name)

    def describe(self, node: Node) -> str:
        """Return the file that it mirrors."""
        whose = "mirror" if type(self) is Mirror else f"mirror ({type(self).__qualname__})"
        return f"{whose} of {os.fsdecode(self.place(node))}"

    def place(self, node: Node) -> bytes:
        """Return the present path of a node, as far as this process knows."""
        root = os.readlink(b"/proc/self/fd/%d" % self._beneath.fd)
        return os.path.join(root, *next(self._own(node).paths()))

    def _differs(self) -> bool:
        """Return whether a subclass overrides a method besides those that build and close."""
        return any(
            name in vars(self) or getattr(type(self), name) is not getattr(Mirror, name)
            for name, value in {**vars(Tree), **vars(Mirror)}.items()
            if callable(value) and name not in _FREE
        )

    def close(self) -> None:
        """Close the root; open files and listings can still use their own descriptors."""
        self._beneath.close()

    def enter(self, directory: Node) -> int:
        """Open a directory to look at its entries; give the descriptor back by `leave`."""
        return self._open(self._own(directory), _PATH | os.O_DIRECTORY)[0]

    def leave(self, fd: int) -> None:
        """Close a descriptor from `enter`, unless it is the root's."""
        if fd != self._beneath.fd:
            os.close(fd)

    def inside(self, fd: int) -> Attributes:
        """Return the attributes of the directory that `enter` opened."""
        return self._describe(self._fresh(fd))

    def entry(self, fd: int, directory: MirrorNode, name: bytes) -> tuple[MirrorNode, Attributes]:
        """Return the node called `name` in `directory`, which is open as `fd`."""
        status = self._beneath.look(fd, name)
        if not self._current(status):
            held = self._beneath.step(fd, name)
            try:
                status = self._fresh(held)
            finally:
                os.close(held)
        return MirrorNode(self._identity(status), directory, name), self._describe(status)

    def _own(self, node: Node) -> MirrorNode:
        if not isinstance(node, MirrorNode):
            raise TypeError(f"not a node of a mirror: {node!r}")
        return node

    def _open(self, node: MirrorNode, flags: int) -> tuple[int, Status]:
        if node is self.root and flags & os.O_PATH:
            return self._beneath.fd, self._fresh(self._beneath.fd)
        for names in node.paths():
            try:
                fd = self._beneath.open(names, flags)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise
            try:
                status = self._fresh(fd)
            except BaseException:
                os.close(fd)
                raise
            if self._identity(status) == node.identity:
                return fd, status
            os.close(fd)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _current(self, status: Status) -> bool:
        return self._local and status.device == self._device

    def _fresh(self, fd: int) -> Status:
        """Return the status of an open file as its filesystem, not a cache, has it."""
        status = self._beneath.examine(fd)
        return status if self._current(status) else statx(fd, b"", AT_EMPTY_PATH)

    def _identity(self, status: Status) -> bytes:
        # A mount other than the root's is part of the identity: a directory bound to two places is
        # two directories, because a client's kernel allows each only one parent. So is the type,
        # the only difference after reuse on a filesystem without times of birth.
        mount = status.mount if status.mount != self._mount else 0
        kind = stat.S_IFMT(status.attributes.mode)
        return _IDENTITY.pack(
            status.device, status.attributes.ino, status.btime_ns, mount << 16 | kind
        )

    def _describe(self, status: Status) -> Attributes:
        if status.device == self._device:
            return status.attributes
        shown = mixed_ino(status.device, status.attributes.ino)
        return msgspec.structs.replace(status.attributes, ino=shown)


def packed_identity(identity: Identity) -> bytes:
    """Return the identity of a file on the source's mount in the form that nodes hold."""
    return _IDENTITY.pack(
        identity.device, identity.ino, identity.btime_ns, stat.S_IFMT(identity.kind)
    )
