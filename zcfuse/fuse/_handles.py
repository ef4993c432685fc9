"""Open files and directories, by the kernel's file handles.

Belongs to the trio thread. All opens of one node share one BackingFile, because the mount is
read-only and because the kernel allows an inode one backing file at a time. The first open installs
its lease. The last release revokes the lease, then closes the file.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from zcfuse.tree import BackingFile, EntryDescription, GivenValues, Listing, Node, Who

if TYPE_CHECKING:
    from zcfuse.datapath import MemberIndex, NamePatterns, Presence, Source, UserDescriptors


_ROOT: Final = 0


class Leases(Protocol):
    """The data path's interface: it answers requests and shows real inode numbers."""

    def install(
        self,
        nodeid: int,
        extents: Sequence[tuple[int, int, int]],
        path: str,
        presence: Presence | None = None,
        /,
    ) -> tuple[str, str]:
        """Serve a node's reads from `extents` of (fd, offset, length).

        A `path` other than "" forces that serving path. With `presence`, only reads of what it
        shows. Returns the mode and the reason for it.
        """

    def revoke(self, nodeid: int, /) -> None:
        """Stop using the node's descriptors; on return no thread does."""

    def set_ino(self, nodeid: int, ino: int, /) -> None:
        """Show `ino` as the inode number of a node."""

    def drop_inos(self, nodeids: Sequence[int], /) -> None:
        """Forget the inode numbers of nodes."""

    def lease_directory(self, nodeid: int, root_fd: int, kept: Sequence[bytes], /) -> None:
        """Answer for a directory and everything below it, except the paths in `kept`."""

    def lease_union(
        self,
        nodeid: int,
        layers: Sequence[int | Source],
        sees_trusted: bool,
        work: int,
        metacopies: bool,
        redirects: bool,
        /,
    ) -> None:
        """Answer for merged layers, the topmost first, and everything below them."""

    def lease_pool(
        self,
        nodeid: int,
        branches: Sequence[int],
        refusals: tuple[int, int, int],
        asks: bool,
        /,
    ) -> None:
        """Answer for the branches of a pool, shown as one, and everything below them."""

    def place(self, nodeid: int, name: bytes | None, branch: int, valid_ms: int | None, /) -> bool:
        """Say which branch of a pool gets a new file, or all of a directory for a time."""

    def permit(self, nodeid: int, change: int, name: bytes | None, valid_ms: int | None, /) -> bool:
        """Let clients change a file of a pool once, or all of a directory for a time."""

    def lease_source(self, nodeid: int, source: Source, /) -> None:
        """Answer for what a source shows."""

    def filter_lease(self, nodeid: int, patterns: NamePatterns, above: bytes, /) -> None:
        """Filter what is leased at a node."""

    def lease_archive(
        self,
        nodeid: int,
        index: MemberIndex,
        fd: int,
        /,
        *,
        first_ino: int,
        uid: int | None,
        gid: int | None,
    ) -> None:
        """Answer for the members of the archive that a node shows."""

    def lease_index(
        self,
        nodeid: int,
        *,
        uid: int,
        gid: int,
        made_ns: int,
        given: GivenValues | None,
        key: int,
        time_ns: int,
        asks: bool,
    ) -> None:
        """Answer for a program's directory; index_put() adds its entries."""

    def index_put(
        self,
        nodeid: int,
        directory: int,
        entries: list[EntryDescription],
        time_ns: int,
        /,
        *,
        uid: int | None,
        valid_ms: int | None,
    ) -> list[int]:
        """Put entries into a directory of a node's index; return their numbers."""

    def index_list(
        self,
        nodeid: int,
        directory: int,
        entries: list[EntryDescription],
        time_ns: int,
        /,
        *,
        uid: int | None,
        valid_ms: int | None,
        complete: bool,
    ) -> list[int]:
        """Put the names of a policy's directory, and list those."""

    def index_drop(self, nodeid: int, directory: int, name: bytes, uid: int | None, /) -> None:
        """Remove a policy's answer."""

    def index_ino(self, nodeid: int, number: int, /) -> int:
        """Return the inode number that clients see of an entry of the index, or 0."""

    def index_remove(self, nodeid: int, directory: int, name: bytes, time_ns: int, /) -> None:
        """Remove an entry from a directory of a node's index."""

    def index_nodeid(self, nodeid: int, directory: int, /) -> int:
        """Return the kernel's nodeid of a directory, 0 if the kernel does not know it."""

    def revoke_directory(self, nodeid: int, /) -> bool:
        """Forward requests for a leased directory and everything below it."""

    def drop_directory(self, nodeid: int, /) -> None:
        """Give back the lease of a directory that the kernel has forgotten."""

    def push_changes(self, nodeid: int, strict: bool, /) -> str:
        """Push each change below a leased directory to the kernel; return "" or why that fails.

        `strict`: the kernel keeps no bytes, and attributes of a file only under a read lease.
        """

    def freshness(self, nodeid: int, /) -> str:
        """Return `DataPath.freshness` of a node below a leased directory, or "" of another."""

    def invalidate_entry(self, parent: int, name: bytes, /) -> int:
        """Make the kernel forget a name; return 0 or -errno. Blocks: not for handlers."""

    def invalidate_inode(self, nodeid: int, offset: int, length: int, /) -> int:
        """Make the kernel forget attributes, and pages from `offset` unless it is negative."""

    def describe(self, nodeid: int, /) -> Sequence[tuple[int, bytes, int, int, int, int, int]]:
        """Describe a node below a leased directory and the nodes above it, from the top.

        Each is (nodeid, name, device, inode number, birth, type, layer), as in `Identity`.
        """


class OpenFile:
    """A file that clients have open. `far` is the mount that may not answer for it, or None.

    It counts as `descriptors` for the user `uid`.
    """

    __slots__ = ("backing", "descriptors", "far", "nodeid", "opens", "uid")

    def __init__(self, nodeid: int, backing: BackingFile) -> None:
        self.nodeid = nodeid
        self.backing = backing
        self.far: int | None = None
        self.uid = _ROOT
        self.descriptors = 0
        self.opens = 0


class OpenFiles:
    """The files that clients have open, by handle and by node. Owns their BackingFiles.

    `close_later` closes what is far in another thread. `users` limits each user's descriptors;
    `refused` counts the opens that failed with EMFILE for that.
    """

    def __init__(
        self,
        leases: Leases | None,
        users: UserDescriptors,
        close_later: Callable[[Callable[[], None]], None] = lambda close: close(),
    ) -> None:
        self._leases = leases
        self._users = users
        self._close_later = close_later
        self.refused = 0
        self._by_handle: dict[int, OpenFile] = {}
        self._by_nodeid: dict[int, OpenFile] = {}
        self._clients: dict[int, Who] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._by_nodeid)

    @property
    def handles(self) -> int:
        """Number of opens not yet released."""
        return len(self._by_handle)

    def again(self, nodeid: int) -> int | None:
        """Return a new handle of a node that is open already, None if it is not."""
        opened = self._by_nodeid.get(nodeid)
        return None if opened is None else self._handle(opened)

    def require_share(self, uid: int) -> None:
        """Raise OSError(EMFILE) if a user has too many files open."""
        if not self._users.admits(uid):
            raise self._too_many(f"user {uid} has too many files open")

    def leased(self, nodeid: int, backing: BackingFile) -> OpenFile:
        """Install the lease of a file that was opened. Any thread may call it; `add` is next."""
        if self._leases is not None:
            try:
                growing = backing.growing
                if growing is None:
                    extents = [(run.fd, run.offset, run.length) for run in backing.extents]
                    self._leases.install(nodeid, extents, backing.path)
                else:
                    whole = [(growing.fd, 0, growing.size)]
                    self._leases.install(nodeid, whole, "", growing.presence)
            except BaseException:
                backing.close()
                raise
        return OpenFile(nodeid, backing)

    def add(self, opened: OpenFile, far: int | None, uid: int = _ROOT) -> int:
        """Return a new handle of a node; a file that another open brought meanwhile is used.

        The node counts for the user `uid`; OSError(EMFILE) if only the reserve has room for it.
        """
        before = self._by_nodeid.get(opened.nodeid)
        if before is not None:
            self._close_later(opened.backing.close)
            return self._handle(before)
        opened.far = far
        files = {run.fd for run in opened.backing.extents}
        if not all(self._users.spares(uid, fd) for fd in files):
            self._close(opened)
            raise self._too_many("only the reserve of descriptors for root is left")
        opened.uid = uid
        opened.descriptors = len(files) if self._leases is None else 2 * len(files)
        self._users.take(uid, opened.descriptors)
        self._by_nodeid[opened.nodeid] = opened
        return self._handle(opened)

    def discard(self, opened: OpenFile) -> None:
        """Close a file that nobody waits for any more. Any thread may call it."""
        try:
            if self._leases is not None and opened.nodeid not in self._by_nodeid:
                self._leases.revoke(opened.nodeid)
        finally:
            opened.backing.close()

    def opened(self, handle: int) -> OpenFile:
        """Return the file behind a handle; OSError(EBADF) if it is not open."""
        try:
            return self._by_handle[handle]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def opened_for(self, handle: int, who: Who) -> None:
        """Note the process that a handle was opened for."""
        self._clients[handle] = who

    def client(self, handle: int) -> Who:
        """Return the process that a handle was opened for; OSError(EBADF) if it is not open."""
        self.opened(handle)
        return self._clients[handle]

    def of_node(self, nodeid: int) -> OpenFile | None:
        """Return the file that some client has open under this node."""
        return self._by_nodeid.get(nodeid)

    def release(self, handle: int) -> None:
        """Give a handle back; the last one of a node closes its file."""
        opened = self.opened(handle)
        self._clients.pop(handle, None)
        del self._by_handle[handle]
        opened.opens -= 1
        if opened.opens == 0:
            del self._by_nodeid[opened.nodeid]
            self._close(opened)

    def close(self) -> None:
        """Close everything, whoever still has it open."""
        files = list(self._by_nodeid.values())
        self._by_nodeid.clear()
        self._by_handle.clear()
        self._clients.clear()
        for opened in files:
            self._close(opened)

    def _handle(self, opened: OpenFile) -> int:
        opened.opens += 1
        handle = self._next
        self._next += 1
        self._by_handle[handle] = opened
        return handle

    def _too_many(self, reason: str) -> OSError:
        self.refused += 1
        return OSError(errno.EMFILE, reason)

    def _close(self, opened: OpenFile) -> None:
        self._users.give(opened.uid, opened.descriptors)
        if opened.far is None:
            self.discard(opened)
        else:
            self._close_later(lambda: self.discard(opened))


class _OpenDirectory:
    __slots__ = ("listing", "made_s", "node", "untouched", "who")

    def __init__(self, node: Node, who: Who, listing: Listing, made_s: float) -> None:
        self.node = node
        self.who = who
        self.listing = listing
        self.made_s = made_s
        self.untouched = True


class OpenDirectories:
    """The directories that clients have open. Owns their listings."""

    def __init__(self, make_listing: Callable[[Node, Who], Awaitable[Listing]]) -> None:
        self._make_listing = make_listing
        self._by_handle: dict[int, _OpenDirectory] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._by_handle)

    async def open(self, node: Node, who: Who) -> int:
        """List the directory for the process that opens it and return a new handle of it."""
        made_s = time.monotonic()
        opened = _OpenDirectory(node, who, await self._make_listing(node, who), made_s)
        handle = self._next
        self._next += 1
        self._by_handle[handle] = opened
        return handle

    def node(self, handle: int) -> Node:
        """Return the directory itself."""
        return self._opened(handle).node

    async def listing(self, handle: int, start: int) -> tuple[Listing, float]:
        """Return the listing that continues at `start`, and the `time.monotonic()` of its making.

        A rewind to 0 makes a new one.

        A rewind lists for the process that opened the directory, even if another one reads it.
        """
        opened = self._opened(handle)
        if start == 0 and not opened.untouched:
            made_s = time.monotonic()
            fresh = await self._make_listing(opened.node, opened.who)
            opened.listing.close()
            opened.listing, opened.made_s = fresh, made_s
        opened.untouched = False
        return opened.listing, opened.made_s

    def release(self, handle: int) -> None:
        """Give a handle back."""
        self._opened(handle).listing.close()
        del self._by_handle[handle]

    def close(self) -> None:
        """Close everything."""
        for handle in list(self._by_handle):
            self.release(handle)

    def _opened(self, handle: int) -> _OpenDirectory:
        try:
            return self._by_handle[handle]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
