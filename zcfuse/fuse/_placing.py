"""The requests that a pool's data path forwards because it lacks a decision or a directory.

The program decides or permits, a branch gets the directory, and the client's kernel repeats the
request, because it failed with ESTALE. Now the data path can answer it.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import abstractmethod
from collections.abc import Sequence
from typing import Final, NoReturn, TypeVar

import pyfuse3

from zcfuse.fuse._handles import Leases
from zcfuse.fuse._outcomes import handler
from zcfuse.fuse._readonly import ReadOnlyOperations, refuse
from zcfuse.tree import REFUSABLE, Answer, Node, Pool, Tree, Who

_T = TypeVar("_T")

_RENAME_EXCHANGE: Final = 2  # rename(2)


class PlacingOperations(ReadOnlyOperations):
    """pyfuse3.Operations that change nothing, but say where a pool's data path makes a file."""

    _tree: Tree
    _leases: Leases | None

    @abstractmethod
    async def _renewed_node(self, nodeid: int) -> Node:
        """Return the node of a nodeid, under the names that the data path knows now."""

    @abstractmethod
    async def _answered(self, answer: Answer[_T]) -> _T:
        """Return the tree's answer within the time that it has."""

    @handler
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Place the file."""
        await self._place(parent_inode, name, ctx, mode)

    @handler
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Place the link."""
        await self._place(parent_inode, name, ctx, stat.S_IFLNK | 0o777)

    @handler
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Place the file."""
        await self._place(parent_inode, name, ctx, stat.S_IFREG | stat.S_IMODE(mode), flags)

    @handler
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Permit it, and make the new directory in the branches that have the file."""
        over = "rename" if flags & _RENAME_EXCHANGE else "remove"
        await self._permit("rename", parent_inode_old, name_old, ctx)
        if await self._exists(parent_inode_new, name_new):
            await self._permit(over, parent_inode_new, name_new, ctx)
        node, _ = self._pool().lookup(await self._renewed_node(parent_inode_old), name_old)
        branches = self._pool().branches_of(node)
        await self._make_directory(parent_inode_new, name_new, branches)

    @handler
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make the directory in the branch that has the file."""
        branches = self._pool().branches_of(await self._renewed_node(inode))
        await self._make_directory(new_parent_inode, new_name, branches)

    @handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Permit it."""
        await self._permit_removal(parent_inode, name, ctx)

    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Permit it."""
        await self._permit_removal(parent_inode, name, ctx)

    @handler
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Permit a truncation."""
        await self._permit_writing(inode, ctx)

    async def _permit_removal(
        self, parent: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> NoReturn:
        self._require_asking()
        await self._permit("remove", parent, name, ctx)
        _repeat()

    async def _permit_writing(self, inode: int, ctx: pyfuse3.RequestContext) -> NoReturn:
        """Permit the next opening of a file for writing, or its truncation by path."""
        pool = self._require_asking()
        directory, name = pool.place_of(await self._renewed_node(inode))
        who = Who(ctx.uid, ctx.gid, ctx.pid)
        seconds = await self._answered(pool.permission("write", directory, name, who))
        self._allow("write", inode, name, seconds)
        _repeat()

    async def _permit(
        self, change: str, parent: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        pool, directory = self._pool(), await self._renewed_node(parent)
        if pool.asks:
            who = Who(ctx.uid, ctx.gid, ctx.pid)
            seconds = await self._answered(pool.permission(change, directory, name, who))
            self._allow(change, parent, name, seconds)

    def _allow(self, change: str, nodeid: int, name: bytes, seconds: float | None) -> None:
        if self._leases is not None:
            leased = None if seconds is None else round(seconds * 1000)
            kept = name if seconds is None else None
            self._leases.permit(nodeid, REFUSABLE.index(change), kept, leased)

    async def _exists(self, parent: int, name: bytes) -> bool:
        try:
            self._pool().lookup(await self._renewed_node(parent), name)
        except FileNotFoundError:
            return False
        return True

    def _require_asking(self) -> Pool:
        pool = self._pool()
        return pool if pool.asks else refuse()

    def _pool(self) -> Pool:
        return self._tree if isinstance(self._tree, Pool) else refuse()

    async def _place(
        self, parent: int, name: bytes, ctx: pyfuse3.RequestContext, mode: int, flags: int = 0
    ) -> NoReturn:
        pool, directory = self._pool(), await self._renewed_node(parent)
        who = Who(ctx.uid, ctx.gid, ctx.pid)
        placement = await self._answered(pool.placement(directory, name, who, mode, flags))
        placed = pool.settle(directory, placement)
        self._decide(parent, None if placed.leased else name, placed.branch, placed.valid_ms)

    async def _make_directory(self, parent: int, name: bytes, branches: Sequence[int]) -> NoReturn:
        directory = await self._renewed_node(parent)
        for branch in branches:
            self._pool().make_directory(directory, branch)
        self._decide(parent, name, branches[0], None)

    def _decide(self, parent: int, name: bytes | None, branch: int, valid: int | None) -> NoReturn:
        if self._leases is not None:
            self._leases.place(parent, name, branch, valid)
        _repeat()


def _repeat() -> NoReturn:
    """Have the client's kernel look the path up and ask again."""
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
