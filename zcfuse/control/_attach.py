"""Mounts of programs that stay when the program ends, and programs that take them over."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import trio

from zcfuse.admin.status import StatusError, find_mount, holder_state, read_status_of
from zcfuse.control._mount import as_tree, mount
from zcfuse.control._served import Mount
from zcfuse.control.survive import UnmountedError, take_from_holder
from zcfuse.linux import MountEntry, MountError
from zcfuse.options import MountOptions
from zcfuse.tree import Dir, Tree

# For a killed program to end, and for a running one to answer.
_ENDING_S: Final = 5.0
_STATUS_S: Final = 1.0
_POLL_S: Final = 0.005


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
    `mount` or `attach`. The answer may be out of date at once; each of them refuses then. A program
    that was just killed may not have ended yet: this waits for that. It never looks at the mount
    itself, and waits for some seconds at most.
    """
    try:
        entry = find_mount(mountpoint)
    except StatusError:
        return False
    until = time.monotonic() + _ENDING_S
    while True:
        held = holder_state(entry)
        if held is None or held.left is not None:
            return held is not None
        if time.monotonic() >= until or _is_served(entry):
            return False
        time.sleep(_POLL_S)


def _is_served(entry: MountEntry) -> bool:
    try:
        read_status_of(entry, timeout=_STATUS_S)
    except StatusError:
        return False
    return True
