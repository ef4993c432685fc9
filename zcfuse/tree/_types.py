"""The vocabulary of a tree: nodes, attributes, backing files, listings and the Tree itself.

A tree hands out nodes and gets them back as arguments. It raises ESTALE if a node has become
another file.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from zcfuse.datapath import WHOLE_FILE as WHOLE_FILE
from zcfuse.linux import Attributes as Attributes
from zcfuse.tree._renewal import PUSHING, Renewable, RenewablePart

if TYPE_CHECKING:
    from zcfuse.datapath import MemberIndex, NamePatterns, Presence, Source

HOLE: Final = -1
"""Extent.fd of a run of zeros."""

_T = TypeVar("_T")

Answer: TypeAlias = _T | Awaitable[_T]
"""A tree's answer, or an awaitable of it, which the mount awaits for a bounded time."""


class BeingMadeError(BlockingIOError):
    """The tree is still making the file's bytes. A later open succeeds."""


class Who(msgspec.Struct, frozen=True, gc=False):
    """The client's process: its effective user and group, and its process id.

    Attributes:
        uid: its user, by whom the kernel checks permissions.
        gid: its group.
        pid: which of its threads asks; 0 for one that the daemon's pid namespace does not show.
    """

    uid: int
    gid: int
    pid: int

    @property
    def groups(self) -> frozenset[int]:
        """The supplementary groups, as `/proc/PID/status` tells them at this moment.

        Each use reads that file. A FUSE request does not carry the groups, so there is a race: the
        client may change its groups after it asked. If a signal ends it, another process may even
        have its pid. Decide by `uid` and `gid` where that matters. Empty for a process that
        cannot be looked at.
        """
        try:
            with open(f"/proc/{self.pid}/status", "rb") as file:
                text = file.read()
        except OSError:
            return frozenset()
        _, _, after = text.partition(b"\nGroups:")
        return frozenset(map(int, after.partition(b"\n")[0].split()))


class StatFs(msgspec.Struct, frozen=True, gc=False):
    """The result of statvfs(3): sizes of blocks and names are bytes, the others are counts."""

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
    """A file's identity, whatever its name: equal for hard links, different for a reused inode.

    `device` is major << 32 | minor, `kind` the S_IFMT bits of the mode; `btime_ns` is a hash of the
    file handle if the filesystem has no times of birth. `layer` counts the directories of a union
    from the top.
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


class ArchiveLease(msgspec.Struct, frozen=True):
    """A complete description of an immutable tree: an archive's members.

    `index` returns the archive's index, `size` bytes, or raises OSError. `open` returns a
    descriptor of the archive, which the caller closes; it raises ESTALE if the archive has changed.
    A node's inode number is `first_ino` plus the node's number. `uid` and `gid` own all nodes, if
    given.
    """

    size: int
    index: Callable[[], MemberIndex]
    open: Callable[[], int]
    first_ino: int
    uid: int | None
    gid: int | None


GivenValues: TypeAlias = tuple[int | None, int | None, int | None, int | None, str]
"""Mode, uid, gid and mtime in ns, each a value or None, and the serving path or ""."""

Term: TypeAlias = tuple[object, ...]
"""A part of a file's bytes: kind, offset, length, and a path, a descriptor or a number of parts."""

EntryDescription: TypeAlias = tuple[bytes, int, GivenValues | None, int, int, object]
"""An entry: name, kind, given values, key, time in ns, and data that depend on the kind."""


class DescribedRoot(msgspec.Struct, frozen=True):
    """The top of a described tree: its owner also owns entries without one."""

    uid: int
    gid: int
    made_ns: int
    given: GivenValues | None
    key: int
    time_ns: int
    asks: bool = False


class IndexSink(Protocol):
    """The data path's index, which a tree fills. A directory is a number, 0 the root."""

    def put(
        self,
        directory: int,
        entries: list[EntryDescription],
        time_ns: int,
        *,
        uid: int | None = None,
        valid_ms: int | None = None,
    ) -> list[int]:
        """Put entries, which replace others of their names; return their numbers.

        In a policy's directory they hold for a user, or everyone, and for so many milliseconds.
        """

    def list(
        self,
        directory: int,
        entries: list[EntryDescription],
        time_ns: int,
        *,
        uid: int | None,
        valid_ms: int | None,
        complete: bool,
    ) -> list[int]:
        """Put the names of a policy's directory, and list those for so many milliseconds."""

    def remove(self, directory: int, name: bytes, time_ns: int) -> None:
        """Remove an entry, and a policy's listings; with an empty name those alone."""

    def drop(self, directory: int, name: bytes, uid: int | None) -> None:
        """Remove a policy's answer."""

    def ino(self, number: int) -> int:
        """Return the inode number that clients see of an entry, 0 if its files are missing."""

    def failed(self) -> None:
        """Stop answering, because the index differs from the tree."""


class DescribedTree(ABC):
    """A tree that describes itself by values, so that the data plane can answer for it."""

    @property
    @abstractmethod
    def forwarded(self) -> int:
        """The number of described entries that only the tree can answer for."""

    @abstractmethod
    def root(self) -> DescribedRoot:
        """Return the description of the root."""

    @abstractmethod
    def publish(self, sink: IndexSink) -> None:
        """Describe all entries to `sink`, and each change from now on."""

    @abstractmethod
    def number(self, node: Node) -> int | None:
        """Return the sink's number of a directory, None if it has none."""


class Placement(msgspec.Struct, frozen=True):
    """Where a new file of a pool goes.

    Attributes:
        branch: the path of a branch, as the pool got it.
        leased: whether all new files of the directory go there, without another question.
        valid_for: the seconds that the lease lasts; None: until the mount ends.
    """

    branch: str
    leased: bool = False
    valid_for: float | None = None


class Placed(msgspec.Struct, frozen=True):
    """A placement for the data plane: a branch's number, and the milliseconds of its lease."""

    branch: int
    leased: bool
    valid_ms: int | None


class Lease(msgspec.Struct, frozen=True):
    """Lets the data plane answer for the directory that a node mirrors name by name.

    `fd` is a descriptor of the directory (O_PATH suffices); the tree owns it. `kept` are the paths
    that the tree answers for itself (`Tree.keeps`). With `layers` the node shows those leases
    merged, the topmost first, like `Union`; `fd` is then the topmost's, and `sees_trusted` says
    whether this process sees `trusted.` attributes. With `work`, a work directory, clients may
    change the topmost; with `metacopies` a change of attributes copies no bytes there, and with
    `redirects` they may rename directories of lower layers. With `refusals`, the layers are the
    branches of a pool: these are the errnos of a removal, a rename and an opening for writing, and
    0 permits it, with `asks` after a question. With `archive`, `described` or `source` (of the data
    path) that is the whole lease, and `fd` is -1. `filters` apply to all of that, the first one
    first: patterns, and the node's path for their comparison. `coherence`: see `Tree`.
    """

    fd: int
    kept: Collection[bytes] = ()
    layers: Sequence[Lease] = ()
    sees_trusted: bool = True
    work: int = -1
    metacopies: bool = False
    redirects: bool = False
    refusals: tuple[int, int, int] | None = None
    asks: bool = False
    archive: ArchiveLease | None = None
    described: DescribedTree | None = None
    source: Source | None = None
    filters: Sequence[tuple[NamePatterns, bytes]] = ()
    coherence: str | None = None


class Node:
    """A file, directory or link of a tree. Only the tree that made it knows more about it.

    `identity` is equal for the names of one inode and differs when an inode number was reused. The
    kernel must not cache answers about a `volatile` node; for a directory that includes listings
    and missing names.
    """

    __slots__ = ()

    identity: Hashable
    volatile: bool = False

    def merge(self, other: Node) -> None:
        """Take over the name of `other`, which a later lookup found with the same identity."""


Found: TypeAlias = tuple[Node, Attributes]
"""What a lookup finds."""


class Growing(NamedTuple):
    """A file whose bytes still come: those that `presence` shows may be read from `fd`.

    `size` is that of the whole file. Whoever opened it owns the descriptor.
    """

    fd: int
    size: int
    presence: Presence


class BackingFile(ABC):
    """An open file of a tree. It owns its descriptors, and close() turns them into -1."""

    __slots__ = ()

    @property
    @abstractmethod
    def extents(self) -> Sequence[Extent]:
        """The runs of bytes of the file, in order."""

    @abstractmethod
    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""

    def read(self, size: int, offset: int) -> Answer[bytes]:
        """Return what `pread` does, or an awaitable of it."""
        return self.pread(size, offset)

    def read_for(self, size: int, offset: int, who: Who) -> Answer[bytes]:
        """Return what `read` does, to the process that opened the file.

        Bytes that depend on `who` must be read past the page cache (`direct`), which all clients
        share.
        """
        return self.read(size, offset)

    @property
    def path(self) -> str:
        """The serving path for this file alone; "" for the mount's default.

        One of ``auto``, ``upcall``, ``pool``, ``mmap``, ``splice``, ``passthrough``. Under
        ``upcall`` no extent is used, and every read calls `read`.
        """
        return ""

    @property
    def growing(self) -> Growing | None:
        """What the data path may read of a file whose bytes still come; then there are no extents.

        None for all other files.
        """
        return None

    @property
    def direct(self) -> bool:
        """Whether reads bypass the client kernel's page cache."""
        return False

    @abstractmethod
    def attributes(self) -> Attributes:
        """Return the file's attributes, even after it has lost its last name."""

    def version(self) -> tuple[int, int]:
        """Return two numbers that differ after the bytes have changed.

        The second is the time of the last visible change, in nanoseconds since the epoch. A further
        change within the same tick of the filesystem's clock may stay invisible.
        """
        attributes = self.attributes()
        return attributes.size, attributes.mtime_ns

    @abstractmethod
    def close(self) -> None:
        """Give the descriptors back; a second call does nothing."""


class UpcallFile(BackingFile):
    """An open file whose reads all reach Python, because no file has its bytes (yet)."""

    __slots__ = ()

    @property
    def extents(self) -> Sequence[Extent]:
        """None: a lease could not wait for the bytes."""
        return ()

    @property
    def path(self) -> str:
        """By upcall."""
        return "upcall"

    def pread(self, size: int, offset: int) -> bytes:
        """Refuse: the bytes have to be awaited (`read`, `read_for`)."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


class Listing(ABC):
    """The names of one directory as they were when the listing was made."""

    __slots__ = ()

    @abstractmethod
    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield (offset to go on from, name, node, attributes) from offset `start`, 0 at first.

        It includes "." and "..", and skips names that have vanished since. An offset stands for the
        same name for the whole life of the listing. Close the iterator if it is left early.
        """

    def failures(self) -> Mapping[bytes, int]:
        """Return the errno for each name that the directory has, but whose entry cannot be found.

        The names are those that `entries` has come to. It skips them, or yields a stand-in.
        """
        return {}

    @abstractmethod
    def close(self) -> None:
        """Free the names; a second call does nothing."""


class Tree(ABC):
    """The tree that a mount shows. Methods may raise OSError; its errno reaches the client.

    Of its methods, only `lookup_for`, `listing_for` and `may_open` may return an awaitable, which
    runs in the mount's trio task for that request.

    ENOENT from `lookup`: the directory exists, but lacks the name. ESTALE: the known names no
    longer lead to the node; the client's kernel then looks its path up again. For any other
    exception the client gets EIO and the log a line.
    """

    root: Node
    waits: bool = False
    """Whether `lookup` and `listing` may need a server's answer. In a trio thread they then raise
    `NotYetError` instead of waiting."""
    coherence: str | None = None
    """How the kernel learns of changes below a lease of it: "ttl", "push" or "strict"; None: as
    the mount's option of that name says."""
    _of: str = ""
    """What it shows, for its repr, as " of /data"."""

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__}{self._of}>"

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

    def wants_push(self) -> bool:
        """Return whether any part of it asks for pushes, whatever the mount does."""
        return self.coherence in PUSHING

    def renewables(self) -> Iterator[RenewablePart]:
        """Yield what a mount that pushes changes reads again."""
        if isinstance(self, Renewable):
            yield RenewablePart(self, self.coherence)

    def take_over(self) -> None:
        """Show the present roots of the trees beneath, in the mount's trio thread."""
        return

    def part_bytes(self) -> int:
        """Return how many bytes a file has on average that are parts of files, about.

        These travel without passthrough. A mount chooses its transport by them.
        """
        return 0

    def lookup_for(self, directory: Node, name: bytes, who: Who) -> Answer[tuple[Node, Attributes]]:
        """Return what `lookup` does, for the client's process.

        A directory whose answers depend on `who` must be `volatile`.
        """
        return self.lookup(directory, name)

    def listing_for(self, node: Node, who: Who) -> Answer[Listing]:
        """Return what `listing` does, for the client's process."""
        return self.listing(node)

    def may_open(self, node: Node, who: Who) -> Answer[None]:
        """Raise OSError, EACCES for instance, where the process that asks may not open the file.

        Called before each `open`, and for each client of a file that others have open already:
        these share one file, so different bytes for different clients must be different nodes.
        """
        return None

    def refuse_device(self, major: int, minor: int) -> None:
        """Raise ELOOP for files on this device, which is the mount that shows the tree."""
        return

    def watch(self, changed: Callable[[Node, bytes], None] | None) -> None:
        """Call `changed` with (directory, name) when a name gets another meaning.

        The task that makes the change calls it. None ends the calls. A tree that only mirrors
        others' changes can ignore this.
        """
        return

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute; ENODATA if the node lacks it."""
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return ()

    def access(self, node: Node, mask: int, uid: int, gids: Collection[int]) -> bool:
        """Return whether the mode lets a user access the node as in `mask` (R_OK, W_OK, X_OK).

        It never permits writing. Mounts have `default_permissions`, so the kernel decides from mode
        and ACL and never asks. This answer is for callers of the library.
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
        """Return the directory that a node mirrors name by name, or None.

        The mount asks for each node that becomes known to the kernel. A Tree whose root is one
        directory overrides `lease` and `keeps` instead.
        """
        fd = self.lease() if node is self.root else None
        return None if fd is None else Lease(fd, self.keeps(), coherence=self.coherence)

    def lease(self) -> int | None:
        """Return a descriptor of the directory that the root mirrors name by name, or None.

        With a descriptor, the data plane answers for the whole tree from that directory. It calls
        other methods only behind other mounts, for names that the tree `keeps` and for revoked
        directories. So a tree keeps names whose answers depend on anything but the directory, such
        as the client, or returns None. The tree owns the descriptor.
        """
        return None

    def keeps(self) -> Collection[bytes]:
        """Return the paths below the leased directory that the tree answers for itself.

        Each is relative to that directory, such as ``b"a/b"``, and may not exist (yet). Everything
        below it is kept as well. The mount asks once, at its start. Only the client's name counts:
        a file with a second link elsewhere is leased there. Listings of the directory above a kept
        name come from the leased directory.
        """
        return ()

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node that the data plane found as `name` in `directory`.

        The mount calls it when the data plane forwards a request for a node below a leased
        directory. The file may be gone by then. Raises ESTALE if the tree leases nothing.
        """
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def describe(self, node: Node) -> str:
        """Describe the node in a few words, for `zcfuse explain`.

        Example: ``mirror of /data/a``. Name the tree, and the real file or program behind the node.
        """
        return f"node of the program's own tree {type(self).__qualname__}"

    def real_path(self, node: Node) -> bytes | None:
        """Return the path of the real file that a regular file's node shows as a whole.

        None: an open has to tell.
        """
        return None

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return the tree's part of its mount's status: by section, then by name.

        Values have JSON types. Nested trees merge the names of a section.
        """
        return {}

    def close(self) -> None:
        """Free the tree's resources; a second call does nothing."""
        return
