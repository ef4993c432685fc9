"""The vocabulary of a tree: nodes, attributes, backing files, listings and the Tree itself.

A tree is asked by path of identity, not by descriptor: it hands out nodes, gets them back as
arguments, and says ESTALE when a node is no longer what it was.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeAlias, TypeVar

import msgspec

from zcfuse.linux import Attributes as Attributes

WHOLE_FILE: Final = 2**64 - 1
"""Extent.length: to the end of the file, wherever that is when it is read."""

HOLE: Final = -1
"""Extent.fd: no file, but so many zeros."""

_T = TypeVar("_T")

Answer: TypeAlias = _T | Awaitable[_T]
"""What a tree returns at once, or will: then it is awaited, for a bounded time."""


class BeingMadeError(BlockingIOError):
    """An open that comes too early: the tree itself is making the bytes. Asking again succeeds."""


class Who(msgspec.Struct, frozen=True, gc=False):
    """The process that asks: its effective user and group, and its process id.

    `pid` is 0 for a process that the daemon's pid namespace does not show.
    """

    uid: int
    gid: int
    pid: int


class StatFs(msgspec.Struct, frozen=True, gc=False):
    """What statvfs(3) says: sizes of blocks and of names in bytes, the others are counts."""

    bsize: int
    frsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    favail: int
    namemax: int


class Identity(msgspec.Struct, frozen=True, gc=False):
    """What a file is, whatever its name: equal for hard links, not for a reused inode number.

    `device` is major << 32 | minor, `kind` the S_IFMT bits of the mode; `btime_ns` is 0 where the
    filesystem has no times of birth. `layer` counts the directories of a union from the top.
    """

    device: int
    ino: int
    btime_ns: int
    kind: int
    layer: int = 0


class Extent(msgspec.Struct, frozen=True, gc=False):
    """A run of bytes of a real file. `fd` is borrowed from the BackingFile that lists it.

    With `fd` HOLE it is a run of zeros, and `offset` means nothing. Only the last extent of a file
    may be as long as WHOLE_FILE.
    """

    fd: int
    offset: int
    length: int


class Catalogue(msgspec.Struct, frozen=True):
    """All that there is to say about a tree that does not change by itself: an archive's members.

    `sections` returns the entries, nodes, pieces and names of an archive's index, byte for byte, in
    all `size` bytes; OSError where they cannot be read. `open` returns a descriptor of the archive,
    which the caller closes; ESTALE once it has changed. `version` is its size in bytes and its
    times of modification and change in nanoseconds, as they must still be when a member is opened.
    A node's inode number is `first_ino` and its own; all belongs to `uid` and `gid` where given.
    """

    size: int
    sections: Callable[[], tuple[bytes, bytes, bytes, bytes]]
    open: Callable[[], int]
    version: tuple[int, int, int]
    first_ino: int
    uid: int | None
    gid: int | None


GivenValues: TypeAlias = tuple[int | None, int | None, int | None, int | None, str]
"""Mode, uid, gid and mtime in ns, None where none was given, and the serving path or ""."""

Term: TypeAlias = tuple[object, ...]
"""A part of a file's bytes: kind, offset, length, and a path, a descriptor or a number of parts."""

EntryDescription: TypeAlias = tuple[bytes, int, GivenValues | None, int, int, object]
"""An entry: name, kind, what it was given, key, time in ns, and by its kind what it is."""


class DescribedRoot(msgspec.Struct, frozen=True):
    """The top of a tree that is described: its owner, which all have that were given none."""

    uid: int
    gid: int
    made_ns: int
    given: GivenValues | None
    key: int
    time_ns: int


class IndexSink(Protocol):
    """Where a tree is described: the data path's index. A directory is a number, 0 the root."""

    def put(self, directory: int, entries: list[EntryDescription], time_ns: int) -> list[int]:
        """Hold entries from now on, each in the place of one of its name; return their numbers."""

    def remove(self, directory: int, name: bytes, time_ns: int) -> None:
        """Hold nothing of this name any more."""

    def failed(self) -> None:
        """Answer nothing any more: what is held is not what the tree says."""


class DescribedTree(ABC):
    """A tree that can be described by values, for the data plane to answer from."""

    @abstractmethod
    def root(self) -> DescribedRoot:
        """Return what there is to say of the root itself."""

    @abstractmethod
    def publish(self, sink: IndexSink) -> None:
        """Describe all entries to `sink`, and each change from now on."""

    @abstractmethod
    def number(self, node: Node) -> int | None:
        """Return by which number the sink knows a directory, None if it does not."""


class Lease(msgspec.Struct, frozen=True):
    """A directory that a node mirrors name by name, for the data plane to answer from.

    `fd` is a descriptor of it (O_PATH will do) and stays the tree's; `kept` is what the tree
    answers for itself below it, as `Tree.keeps` says. With `layers` the node shows what those
    leases do, merged, the topmost first, as `Union` has it; `fd` is then the topmost's, and
    `sees_trusted` says whether this process is shown `trusted.` attributes. With `catalogue`
    or `described` that says all, and `fd` is -1.
    """

    fd: int
    kept: Collection[bytes] = ()
    layers: Sequence[Lease] = ()
    sees_trusted: bool = True
    catalogue: Catalogue | None = None
    described: DescribedTree | None = None


class Node:
    """A file, directory or link of a tree. Only the tree that made it knows more about it.

    `identity` is equal for the names of one inode and differs when an inode number was reused.
    `volatile` says that nothing told about the node may be cached by whoever asked: of a directory,
    neither which names it holds nor which are missing.
    """

    __slots__ = ()

    identity: Hashable
    volatile: bool = False

    def merge(self, other: Node) -> None:
        """Learn from `other`, found later under the same identity, by which other name to go."""


class BackingFile(ABC):
    """An open file of a tree. It owns its descriptors, and close() turns them into -1."""

    __slots__ = ()

    @property
    @abstractmethod
    def extents(self) -> Sequence[Extent]:
        """The runs of bytes that make up the file, in order."""

    @abstractmethod
    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""

    def read(self, size: int, offset: int) -> Answer[bytes]:
        """Return what `pread` does, or an awaitable of it."""
        return self.pread(size, offset)

    @property
    def path(self) -> str:
        """The serving path for this file alone; "": as the mount serves the others.

        One of ``auto``, ``upcall``, ``pool``, ``mmap``, ``splice``, ``passthrough``. Under
        ``upcall`` no extent is used, and every read calls `read`.
        """
        return ""

    @property
    def direct(self) -> bool:
        """Whether reads go past the client kernel's page cache."""
        return False

    @abstractmethod
    def attributes(self) -> Attributes:
        """Return the file's attributes, also once no name leads to it any more."""

    def version(self) -> tuple[int, int]:
        """Return two numbers that are others once the bytes have changed.

        The second is the time of the last change that could be seen, in nanoseconds since the
        epoch: a further one within the same tick of a filesystem's clock may not be seen.
        """
        attributes = self.attributes()
        return attributes.size, attributes.mtime_ns

    @abstractmethod
    def close(self) -> None:
        """Give the descriptors back; a second call does nothing."""


class Listing(ABC):
    """The names of one directory as they were when the listing was made."""

    __slots__ = ()

    @abstractmethod
    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield (offset to go on from, name, node, attributes) from offset `start`, 0 at first.

        "." and ".." are included, names that have vanished since are skipped. An offset stands
        for the same name for the whole life of the listing. Close the iterator if it is left
        early.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the names; a second call does nothing."""


class Tree(ABC):
    """What a mount shows. Every method may raise OSError, and its errno reaches the client.

    `lookup_for` and `listing_for` may return an awaitable instead, which runs in the mount's trio
    task for that request; nothing else is awaited.

    ENOENT from `lookup` means that the directory is there and the name is not. ESTALE says that
    the node is no longer to be had under any name known; the client's kernel then looks its path
    up afresh. Any other exception costs the client EIO and is logged.
    """

    root: Node
    in_parts: bool = False
    """Whether most of its files are parts of files: no passthrough, but splice serves them."""

    @abstractmethod
    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Return the node called `name` in `directory`; a symbolic link is not followed."""

    @abstractmethod
    def attributes(self, node: Node) -> Attributes:
        """Return the node's attributes as they are now."""

    @abstractmethod
    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""

    @abstractmethod
    def open(self, node: Node) -> BackingFile:
        """Open a regular file for reading."""

    @abstractmethod
    def listing(self, node: Node) -> Listing:
        """Return the names of a directory as they are now."""

    @abstractmethod
    def statfs(self) -> StatFs:
        """Return the sizes and free space of the filesystem behind the tree."""

    def lookup_for(self, directory: Node, name: bytes, who: Who) -> Answer[tuple[Node, Attributes]]:
        """Return what `lookup` does, to the process that asks.

        A directory whose answers depend on `who` must be `volatile`.
        """
        return self.lookup(directory, name)

    def listing_for(self, node: Node, who: Who) -> Answer[Listing]:
        """Return what `listing` does, to the process that asks."""
        return self.listing(node)

    def refuse_device(self, major: int, minor: int) -> None:
        """Answer ELOOP for whatever lies on this device: it is the mount that shows the tree."""
        return

    def watch(self, changed: Callable[[Node, bytes], None] | None) -> None:
        """Have `changed` called with (directory, name) when a name has come to stand for another.

        Called in the task that makes the change; None: no longer. A tree that only mirrors what
        others change need not know of it.
        """
        return

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute; ENODATA where there is none of that name."""
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return ()

    def access(self, node: Node, mask: int, uid: int, gids: Collection[int]) -> bool:
        """Say whether a user may use the node as `mask` (of R_OK, W_OK, X_OK) asks, by its mode.

        Nothing may be written. Mounts have `default_permissions`, where the kernel decides this
        itself from mode and ACL and never asks; the answer is for callers of the library.
        """
        attributes = self.attributes(node)
        if mask & os.W_OK:
            return False
        if uid == 0:
            executable = attributes.mode & 0o111 or stat.S_ISDIR(attributes.mode)
            return bool(executable) or not mask & os.X_OK
        if uid == attributes.uid:
            granted = attributes.mode >> 6
        elif attributes.gid in gids:
            granted = attributes.mode >> 3
        else:
            granted = attributes.mode
        return mask & ~granted & 7 == 0

    def lease_of(self, node: Node) -> Lease | None:
        """Return the directory that a node mirrors name by name, None where there is none.

        Asked of each node that the kernel comes to know. A Tree that shows one directory as its
        root overrides `lease` and `keeps` instead.
        """
        fd = self.lease() if node is self.root else None
        return None if fd is None else Lease(fd, self.keeps())

    def lease(self) -> int | None:
        """Return a descriptor of the directory that the root mirrors name by name, or None.

        A tree that returns one lets the data plane answer for all of it from that directory: no
        other method is called then, but for what lies behind other mounts, for what the tree
        `keeps` and for directories that were revoked. So a tree whose answers depend on anything
        but the directory, on who asks for instance, keeps the names concerned or returns None. The
        descriptor stays the tree's.
        """
        return None

    def keeps(self) -> Collection[bytes]:
        """Return what the tree answers for itself below the directory that it leases.

        Each is a path from that directory, such as ``b"a/b"``, of something that need not exist
        (yet); all below it is kept as well. Asked once, when the mount begins. It goes by the name
        by which a client comes: a file that has a second link elsewhere is leased there. The
        listing of the directory above a kept name is the leased directory's own.
        """
        return ()

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node that the data plane found as `name` in `directory`.

        Called for what lies below a leased directory when the data plane hands a request about it
        back. It need not exist any more. ESTALE where the tree leases nothing.
        """
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def describe(self, node: Node) -> str:
        """Return in a few words what the node is, for `zcfuse explain`.

        Such as ``mirror of /data/a``: what shows it, and of which real file or by which program.
        """
        return f"node of the program's own tree {type(self).__qualname__}"

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return what the tree has to tell in the status of its mount: by section, then by name.

        Values are such as JSON has. Trees that stand in one another put the names of a section
        together.
        """
        return {}

    def close(self) -> None:
        """Free what the tree holds; a second call does nothing."""
        return
