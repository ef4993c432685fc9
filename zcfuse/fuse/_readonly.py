"""The operations that would change a tree: each is counted and refused with EROFS.

The kernel itself refuses them on a mount that is `ro`; this serves a mount remounted `rw`.
"""

from __future__ import annotations

import errno
import os
from typing import NoReturn

import pyfuse3

from zcfuse.fuse._outcomes import Tally, handler
from zcfuse.fuse._sessions import Session


class ReadOnlyOperations(pyfuse3.Operations):
    """pyfuse3.Operations that change nothing. The subclass sets `tally` and `session`."""

    tally: Tally
    session: Session

    @handler
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Refuse."""
        refuse()

    @handler
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Refuse."""
        refuse()

    @handler
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Refuse."""
        refuse()

    @handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Refuse."""
        refuse()

    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Refuse."""
        refuse()

    @handler
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Refuse."""
        refuse()

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
        """Refuse."""
        refuse()

    @handler
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Refuse."""
        refuse()

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Refuse."""
        refuse()

    @handler
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Refuse."""
        refuse()

    @handler
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        """Refuse."""
        refuse()

    @handler
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Refuse."""
        refuse()


def refuse() -> NoReturn:
    """Refuse a change."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
