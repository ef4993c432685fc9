"""The FUSE operations: handlers for pyfuse3 that ask a Tree.

Runs on the trio thread only. A handler decodes, asks the tree by plain system calls (a trip to a
worker thread costs more than the call), and replies. A call that leads to a filesystem that may not
answer runs in a worker thread instead. A handler awaits only such calls and a tree's awaitable
answers, for a bounded time, and in `open` another process that must give up a lease first. The
mount is read-only: a change of the tree fails with EROFS. Only POLL gets ENOSYS, because the kernel
applies an ENOSYS to the whole mount.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec
import pyfuse3
import trio

from zcfuse.datapath import UserDescriptors, tick_ns
from zcfuse.fuse._directory_leases import DirectoryLeases
from zcfuse.fuse._entries import entries_of
from zcfuse.fuse._far import FarCalls, FarStatistics
from zcfuse.fuse._handles import Leases, OpenDirectories, OpenFile, OpenFiles
from zcfuse.fuse._implicit import ImplicitHandles, implied_node
from zcfuse.fuse._nodes import ROOT_NODEID, NodeTable
from zcfuse.fuse._outcomes import LOG, Tally, handler, of_type
from zcfuse.fuse._placing import PlacingOperations
from zcfuse.fuse._sessions import FIRST, ReaddirReply, Session
from zcfuse.fuse._waiting import WaitingOpens
from zcfuse.linux import process_may_administer
from zcfuse.options import DEFAULT_ANSWER_TIMEOUT_S
from zcfuse.tree import (
    Answer,
    Attributes,
    BeingMadeError,
    Identity,
    Listing,
    Node,
    Tree,
    Who,
    begin_ask_far,
    end_ask_far,
)

# fcntl(2): the holder of a lease has lease-break-time (/proc/sys/fs), by default 45 s.
_LEASE_BREAK_SECONDS: Final = 50.0
_LEASE_PAUSE_SECONDS: Final = 0.001
_LEASE_LONGEST_PAUSE_SECONDS: Final = 0.1


_ACL_NAMES: Final = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})
_NOBODY: Final = Who(65534, 65534, 0)
_DOTS: Final = frozenset({b".", b".."})

_T = TypeVar("_T")


class OperationsStatistics(msgspec.Struct, frozen=True):
    """The requests that reached Python. `read_bytes` is the sum of pread's results.

    `upcalls` counts by operation, `errors` by the errno's name. A lookup of a missing name counts
    as one of `negative_lookups`, not as an error. `far` counts the calls to filesystems that may
    not answer.
    """

    upcalls: dict[str, int]
    errors: dict[str, int]
    negative_lookups: int
    nodes: int
    open_files: int
    open_handles: int
    open_directories: int
    waiting_opens: int
    refused_opens: int
    far: FarStatistics
    refused_files: int
    read_requests: int
    read_bytes: int
    replied_bytes: int


class Operations(PlacingOperations):
    """pyfuse3.Operations over a tree.

    The kernel may cache names and attributes for `cache_timeout` seconds. `leases` is the data path
    or None; `directory_leases` are its leases for directories, `users` its shares of descriptors.
    `direct` opens files past the kernel's page cache. An awaitable answer of the tree may take
    `answer_timeout` seconds; then the client gets ETIMEDOUT. `session` is the pyfuse3 that calls
    it. The caller keeps the tree; `close` closes only the files that clients opened.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True

    def __init__(
        self,
        tree: Tree,
        *,
        cache_timeout: float,
        leases: Leases | None = None,
        directory_leases: DirectoryLeases | None = None,
        users: UserDescriptors | None = None,
        shared: bool = True,
        direct: bool = False,
        answer_timeout: float = DEFAULT_ANSWER_TIMEOUT_S,
        session: Session = FIRST,
        readdir_reply: ReaddirReply | None = None,
    ) -> None:
        super().__init__()
        self.initialised = False
        self.tally = Tally()
        self.session = session
        self._tree = tree
        self._timeout = cache_timeout
        self._leases = leases
        self._direct = direct
        self._readdir_reply = readdir_reply or session.readdir_reply
        self._nodes = NodeTable(tree.root, self._adopt)
        self.far = FarCalls(answer_timeout)
        begin_ask_far(self._asked)
        self._files = OpenFiles(leases, users or _own_descriptors(shared), self.far.close_later)
        self._directories = OpenDirectories(self._listing)
        self._implicit_files = ImplicitHandles(self._files.release)
        self._implicit_directories = ImplicitHandles(self._directories.release)
        self._directory_leases = directory_leases
        self._answer_timeout = answer_timeout
        self._waiting = WaitingOpens()
        self._negative_lookups = 0
        self._reads: Counter[str] = Counter()
        if leases is not None:
            leases.set_ino(ROOT_NODEID, tree.attributes(tree.root).ino)

    def statistics(self) -> OperationsStatistics:
        """Return the counters as they are now."""
        return OperationsStatistics(
            upcalls=dict(self.tally.upcalls),
            errors=dict(self.tally.errors),
            negative_lookups=self._negative_lookups,
            nodes=len(self._nodes),
            open_files=len(self._files),
            open_handles=self._files.handles,
            open_directories=len(self._directories),
            waiting_opens=len(self._waiting),
            refused_opens=self._waiting.refused,
            far=self.far.statistics(),
            refused_files=self._files.refused,
            read_requests=self._reads["requests"],
            read_bytes=self._reads["bytes"],
            replied_bytes=self._reads["replied"],
        )

    def nodeid(self, node: Node) -> int | None:
        """Return the kernel's nodeid of a node, None if the kernel does not know the node."""
        found = self._nodes.nodeid(node)
        if found is None and self._directory_leases is not None:
            return self._directory_leases.nodeid(node)
        return found

    def renew_root(self) -> None:
        """Show the tree's root, which is another node now. What is open stays as it is.

        The caller notes the names that mean something else (`Changes`).
        """
        root = self._tree.root
        self._nodes.replace_root(root)
        if self._leases is not None:
            self._leases.set_ino(ROOT_NODEID, self._tree.attributes(root).ino)
        if self._directory_leases is not None:
            self._directory_leases.renew_root()

    def node(self, nodeid: int) -> Node:
        """Return the node of a nodeid; OSError(ESTALE) if the kernel knows no such node."""
        return self._nodes.node(nodeid)

    def path_of(self, nodeid: int) -> bytes | None:
        """Return a node's path from the root, by the names found last, or None."""
        return self._nodes.path_of(nodeid)

    def close(self) -> None:
        """Close clients' open files; call it after pyfuse3's loop, before the data path stops."""
        end_ask_far(self._asked)
        self._files.close()
        self._directories.close()

    def init(self) -> None:
        """Note that the kernel has sent INIT; called in the trio thread before the answer."""
        super().init()
        self.initialised = True

    @handler
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Look a name up; the kernel may cache that a name is missing."""
        directory = await self._node(parent_inode)
        try:
            found = await self._asked(lambda: self._tree.lookup_for(directory, name, _who(ctx)))
            node, attributes = await self._answered(found)
        except FileNotFoundError:
            self._negative_lookups += 1
            return self._absent(directory)
        entry = self._found(directory, node, attributes)
        entry.st_ino = await self._count_lookup(node, attributes, parent_inode, name)
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take lookups back. Never raises, because FORGET has no reply."""
        self.tally.upcalls["forget"] += 1
        try:
            gone = [nodeid for nodeid, lookups in inode_list if self._nodes.forget(nodeid, lookups)]
            for nodeid in gone:
                self._implicit_files.drop(nodeid)
                self._implicit_directories.drop(nodeid)
            self._forgotten(gone)
        except Exception:
            LOG.exception("forget failed")

    @handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Return attributes; an open file's come from its descriptor."""
        node = await self._node(inode)
        opened = self._files.of_node(inode)
        if opened is None:
            attributes = await self._asked(lambda: self._tree.attributes(node))
        else:
            attributes = await self._of_file(opened, opened.backing.attributes)
        entry = self._filled(node, attributes)
        entry.st_ino = inode
        return entry

    @handler
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """Return the target of a symbolic link."""
        node = await self._node(inode)
        return of_type(bytes, await self._asked(lambda: self._tree.readlink(node)))

    @handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open for reading; the kernel keeps its pages if the last open saw the same file."""
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            await self._permit_writing(inode, ctx)
        handle = await self._open(inode, _who(ctx))
        try:
            opened = self._files.opened(handle)
            version = await self._of_file(opened, opened.backing.version)
            volatile = self._nodes.node(inode).volatile
            keep_cache = self._unchanged(inode, *version) and not volatile
            direct = self._direct or opened.backing.direct
            return self.session.FileInfo(fh=handle, direct_io=direct, keep_cache=keep_cache)
        except BaseException:
            self._files.release(handle)
            raise

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Serve a read that the data path forwards: by os.pread, or from a program."""
        handle = await self._file_handle(fh)
        opened, who = self._files.opened(handle), self._files.client(handle)
        answer = await self._of_file(opened, lambda: opened.backing.read_for(size, off, who))
        found = of_type(bytes, await self._answered(answer))
        reply = found if len(found) <= size else found[:size]
        self._reads["requests"] += 1
        self._reads["bytes"] += len(found)
        self._reads["replied"] += len(reply)
        return reply

    @handler
    async def flush(self, fh: int) -> None:
        """Nothing is ever written, so there is nothing to flush."""

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Nothing is ever written, so there is nothing to bring to the disk."""

    @handler
    async def release(self, fh: int) -> None:
        """Close a handle."""
        self._files.release(fh)

    @handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """List a directory; its entries' attributes are read later, by readdir."""
        return await self._directories.open(await self._node(inode), _who(ctx))

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Reply entries from `start_id` until the reply is full.

        An error after the first entry ends the reply instead of failing it, because the earlier
        entries' lookups are counted. The next call starts at the entry that failed.
        """
        fh = await self._directory_handle(fh)
        directory = self._directories.node(fh)
        listing, made_s = await self._directories.listing(fh, start_id)
        replied = False
        try:
            async with contextlib.aclosing(
                entries_of(listing, start_id, made_s, self.far, self._answered)
            ) as entries:
                async for found in entries:
                    if _is_beyond_the_protocol(found[3]):
                        LOG.warning("%r is not listed: its size fits no file", found[1])
                        continue
                    if not await self._reply_entry(token, directory, found):
                        break
                    replied = True
        except Exception:
            if not replied:
                raise

    @handler
    async def releasedir(self, fh: int) -> None:
        """Close a directory handle."""
        self._directories.release(fh)

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Nothing is ever written, so there is nothing to bring to the disk."""

    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Return the sizes of the filesystem behind the tree."""
        found = await self._asked(self._tree.statfs)
        data = self.session.StatvfsData()
        data.f_bsize, data.f_frsize = found.bsize, found.frsize
        data.f_blocks, data.f_bfree, data.f_bavail = found.blocks, found.bfree, found.bavail
        data.f_files, data.f_ffree, data.f_favail = found.files, found.ffree, found.favail
        data.f_namemax = found.namemax
        return data

    @handler
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """Return an extended attribute.

        The kernel fetches ACLs itself and treats any errno but ENODATA as a refusal of access
        (fs/fuse/acl.c). So a backing filesystem without ACLs gives ENODATA.
        """
        try:
            node = await self._node(inode)
            return of_type(bytes, await self._asked(lambda: self._tree.getxattr(node, name)))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and name in _ACL_NAMES:
                raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from None
            raise

    @handler
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """Return names; `trusted.` ones by capability, as a kernel filesystem does."""
        node = await self._node(inode)
        found = await self._asked(lambda: self._tree.listxattr(node))
        names = [of_type(bytes, name) for name in found]
        if not any(map(_is_trusted, names)) or process_may_administer(ctx.pid):
            return names
        return [name for name in names if not _is_trusted(name)]

    @handler
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Answer access(2). Not called under `default_permissions`."""
        gids = {ctx.gid} | _who(ctx).groups
        node = await self._node(inode)
        return bool(await self._asked(lambda: self._tree.access(node, mode, ctx.uid, gids)))

    async def _renewed_node(self, nodeid: int) -> Node:
        return await self._asked(
            lambda: self._adopt(nodeid, renew=True) or self._nodes.node(nodeid)
        )

    def _adopt(self, nodeid: int, *, renew: bool = False) -> Node | None:
        """Make the node of a nodeid that the data path gave out; None if it knows none.

        `renew` replaces the nodes of it and of the directories above, which clients may have moved.
        """
        chain = () if self._leases is None else self._leases.describe(nodeid)
        node: Node | None = None
        above = 0
        for number, name, *identity in chain:
            if node is None:
                node = self._nodes.node(number)  # the leased directory, which is ours
            else:
                found = Identity(*identity)
                adopted = self._tree.adopt(node, name, found)
                node = self._nodes.adopt(number, adopted, above, name, renew=renew)
                self._show_ino(number, self._shown_ino(node, found))
            above = number
        return node

    def _shown_ino(self, node: Node, found: Identity) -> int:
        """Return the inode number of an adopted node; a union may show another than the file's."""
        if found.layer:
            with contextlib.suppress(OSError):
                return self._tree.attributes(node).ino
        return found.ino

    def _show_ino(self, nodeid: int, ino: int) -> None:
        if self._leases is not None:
            self._leases.set_ino(nodeid, ino)

    async def _open(self, nodeid: int, who: Who) -> int:
        """Return a new handle of a node; wait, bounded, for another process's lease."""
        node = await self._node(nodeid)
        await self._answered(self._tree.may_open(node, who))
        try:
            handle = await self._open_now(nodeid, node, who.uid)
        except BeingMadeError:
            handle = await self._open_later(nodeid, node, who.uid)
        except BlockingIOError:
            with self._waiting.place(who.uid):
                handle = await self._open_later(nodeid, node, who.uid)
        self._files.opened_for(handle, who)
        return handle

    async def _open_now(self, nodeid: int, node: Node, uid: int) -> int:
        handle = self._files.again(nodeid)
        if handle is not None:
            return handle
        self._files.require_share(uid)
        opened, far = await self.far.ask(
            lambda: self._files.leased(nodeid, self._tree.open(node)), self._files.discard
        )
        return self._files.add(opened, far, uid)

    async def _open_later(self, nodeid: int, node: Node, uid: int) -> int:
        deadline = trio.current_time() + _LEASE_BREAK_SECONDS
        pause = _LEASE_PAUSE_SECONDS
        while True:
            await trio.sleep(pause)
            pause = min(2 * pause, _LEASE_LONGEST_PAUSE_SECONDS)
            try:
                return await self._open_now(nodeid, node, uid)
            except BlockingIOError:
                if trio.current_time() > deadline:
                    raise

    async def _file_handle(self, fh: int) -> int:
        """Return the handle to read by: `fh`, or that of the node that it stands for."""
        nodeid = implied_node(fh)
        if nodeid is None:
            return fh
        handle = self._implicit_files.find(nodeid)
        if handle is None:
            await self._require_cacheable(nodeid)
            handle = await self._open(nodeid, _NOBODY)
            self._implicit_files.keep(nodeid, handle)
        return handle

    async def _directory_handle(self, fh: int) -> int:
        """Return the handle to list by: `fh`, or that of the node that it stands for."""
        nodeid = implied_node(fh)
        if nodeid is None:
            return fh
        handle = self._implicit_directories.find(nodeid)
        if handle is None:
            await self._require_cacheable(nodeid)
            # The message names no opener; such directories look the same to every client.
            handle = await self._directories.open(await self._node(nodeid), _NOBODY)
            self._implicit_directories.keep(nodeid, handle)
        return handle

    async def _require_cacheable(self, nodeid: int) -> None:
        """Refuse volatile nodes: the kernel caches files that it opens without a message."""
        if (await self._node(nodeid)).volatile:
            LOG.warning("a volatile node cannot be opened on an immutable mount")
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def _unchanged(self, nodeid: int, version: int, mtime_ns: int) -> bool:
        same = self._nodes.reopened_unchanged(nodeid, version, mtime_ns)
        if abs(time.time_ns() - mtime_ns) < tick_ns(mtime_ns):
            self._nodes.forget_opened(nodeid)
        return same

    def _filled(self, node: Node, attributes: Attributes) -> pyfuse3.EntryAttributes:
        entry = self.session.EntryAttributes()
        entry.entry_timeout = entry.attr_timeout = 0 if node.volatile else self._timeout
        entry.st_mode = attributes.mode
        entry.st_nlink = attributes.nlink
        entry.st_uid = attributes.uid
        entry.st_gid = attributes.gid
        entry.st_rdev = attributes.rdev
        entry.st_size = attributes.size
        entry.st_blksize = attributes.blksize
        entry.st_blocks = attributes.blocks
        entry.st_atime_ns = attributes.atime_ns
        entry.st_mtime_ns = attributes.mtime_ns
        entry.st_ctime_ns = attributes.ctime_ns
        return entry

    def _found(
        self, directory: Node, node: Node, attributes: Attributes
    ) -> pyfuse3.EntryAttributes:
        entry = self._filled(node, attributes)
        if directory.volatile:
            entry.entry_timeout = 0
        return entry

    def _absent(self, directory: Node) -> pyfuse3.EntryAttributes:
        entry = self.session.EntryAttributes()
        entry.st_ino = 0
        entry.entry_timeout = entry.attr_timeout = 0 if directory.volatile else self._timeout
        return entry

    async def _count_lookup(
        self, node: Node, attributes: Attributes, parent: int, name: bytes
    ) -> int:
        """Count the lookup that a reply is about to report to the kernel; return the nodeid."""
        nodeid, new = self._nodes.count_lookup(node, parent, name)
        if new:
            self._show_ino(nodeid, attributes.ino)
            leases = self._directory_leases
            if leases is not None:
                with contextlib.suppress(OSError):  # Python answers for what cannot be asked
                    await self._asked(lambda: leases.grant(nodeid, node))
        return nodeid

    def _forgotten(self, nodeids: Sequence[int]) -> None:
        """Release the resources of nodes that the kernel has forgotten."""
        if nodeids and self._leases is not None:
            self._leases.drop_inos(nodeids)
        if self._directory_leases is not None:
            self._directory_leases.forget(nodeids)

    async def _listing(self, node: Node, who: Who) -> Listing:
        found = await self._asked(lambda: self._tree.listing_for(node, who))
        return await self._answered(found)

    async def _asked(self, call: Callable[[], _T]) -> _T:
        """Make a call to the tree without waiting here for a filesystem that may not answer."""
        return (await self.far.ask(call))[0]

    async def _node(self, nodeid: int) -> Node:
        return await self._asked(lambda: self._nodes.node(nodeid))

    async def _of_file(self, opened: OpenFile, call: Callable[[], _T]) -> _T:
        """Make a call to an open file, likewise."""
        return call() if opened.far is None else await self.far.run(opened.far, call)

    async def _answered(self, answer: Answer[_T]) -> _T:
        """Return the tree's answer; await it for a bounded time if it is awaitable."""
        if not isinstance(answer, Awaitable):
            return answer
        with trio.move_on_after(self._answer_timeout):
            return await answer
        LOG.error("the tree gave no answer within %g s", self._answer_timeout)
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    async def _reply_entry(
        self,
        token: pyfuse3.ReaddirToken,
        directory: Node,
        found: tuple[int, bytes, Node, Attributes],
    ) -> bool:
        """Put an entry into the reply; if the reply is full, return False and count nothing."""
        offset, name, node, attributes = found
        entry = self._found(directory, node, attributes)
        if name in _DOTS:
            # The kernel makes no node of the dot names, so it sends no FORGET for them.
            shown = self._nodes.nodeid(node) or self._nodes.nodeid(directory)
            entry.st_ino = shown or ROOT_NODEID
            return self._readdir_reply(token, name, entry, offset)
        if self._leases is not None and self._nodes.is_for_lookups(node):
            # The data path puts the number of an entry without a node into its place.
            entry.st_ino, entry.generation = 0, attributes.ino
            return self._readdir_reply(token, name, entry, offset)
        parent = self._nodes.nodeid(directory) or 0
        entry.st_ino = await self._count_lookup(node, attributes, parent, name)
        if self._readdir_reply(token, name, entry, offset):
            return True
        if self._nodes.forget(entry.st_ino, 1):
            self._forgotten([entry.st_ino])
        return False


def _own_descriptors(shared: bool) -> UserDescriptors:
    """Return the users' shares in a process without a data path.

    `shared`: whether several users may use the mount.
    """
    lowest = os.open("/", os.O_PATH)
    os.close(lowest)
    return UserDescriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0], lowest, shared)


def _is_beyond_the_protocol(attributes: Attributes) -> bool:
    """Say whether a reply has no room for a size; pyfuse3 would fail the whole listing."""
    return not 0 <= attributes.size < 2**63 or not 0 <= attributes.blocks < 2**63


def _is_trusted(name: bytes) -> bool:
    return name.startswith(b"trusted.")


def _who(ctx: pyfuse3.RequestContext) -> Who:
    return Who(ctx.uid, ctx.gid, ctx.pid)
