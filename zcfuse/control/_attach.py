"""Mounts of programs that stay when the program ends, and programs that take them over."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from zcfuse.admin.status import StatusError, find_mount, holder_state
from zcfuse.control._mount import as_tree, mount
from zcfuse.control._served import Mount
from zcfuse.control.survive import UnmountedError, take_from_holder
from zcfuse.linux import MountError
from zcfuse.options import MountOptions
from zcfuse.tree import Dir, Tree


@asynccontextmanager
async def attach(
    mountpoint: str | bytes | os.PathLike[str],
    tree: Tree | Dir,
    options: MountOptions | None = None,
) -> AsyncIterator[Mount]:
    """Take over a mount whose program has ended, and serve it for an ``async with`` block.

    The program mounted with ``MountOptions(survive=True)``. Since its end, clients wait. Their
    requests that have no answer come again, and open files, inode numbers and listings go on,
    where the tree shows the same as before. Nodes of a tree that shows something else, and those
    that only Python knows, give ESTALE, and a path works again when it is looked up.

    Parameters:
        mountpoint: of the mount.
        tree: what to show, as for `mount`.
        options: of the mount. ``survive`` goes without saying; what the kernel holds the mount to
            must be as it was: path, coherence, allow_other, stack_depth, immutable and noexec.

    Raises:
        MountError: there is no such mount, another user made it, a program serves it, or its state
            has another layout. The mount then stays as it was.
        TypeError: `tree` is neither a Dir nor a Tree.

    The end of the block, also by an error or a cancellation, leaves the mount to its holder again.
    `Mount.unmount` within the block ends it, and so does ``zcfuse umount`` at any time.
    """
    shown = as_tree(tree)
    chosen = replace(options or MountOptions(), survive=True)
    survival = await trio.to_thread.run_sync(take_from_holder, mountpoint, chosen)
    try:
        async with mount(shown, mountpoint, chosen, survival=survival) as served:
            yield served
    except UnmountedError as error:
        where = os.fsdecode(mountpoint)
        raise MountError(f"attach: {where}: it was unmounted meanwhile") from error
    finally:
        survival.close_if_free()


def is_waiting(mountpoint: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a mount waits there for a program that calls `attach`.

    A program that shall serve both its first start and each further one asks this, and then calls
    `mount` or `attach`. The answer may be out of date at once; each of them refuses then. It never
    looks at the mount itself, and waits for a few seconds at most.
    """
    try:
        held = holder_state(find_mount(mountpoint))
    except StatusError:
        return False
    return held is not None and held.left is not None
