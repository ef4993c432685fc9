"""Mounts a tree of a program by the kernel: no daemon serves it, and the program only waits.

Directories are mounted by overlayfs or a bind mount. Any other tree is written into an image first,
which lies in a private directory as long as the mount lasts.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import trio

from zcfuse.control._checks import check_apart, check_layers, check_mountpoint, check_options
from zcfuse.engine import (
    KernelRefusalError,
    KernelServed,
    choose,
    frozen_image,
    kernel_mount_at,
    mount_directory,
    mount_image,
    mount_layers,
    only_fuse_options,
    remember,
    unmount_kernel,
)
from zcfuse.frozen import FrozenTree, ImageError
from zcfuse.linux import MountError, unmount
from zcfuse.options import MountOptions
from zcfuse.tree import Tree, merged_directories


class _Made(NamedTuple):
    """The kind of a mount, and the source that it shows."""

    kind: str
    source: str


@contextmanager
def served_by_kernel(tree: Tree, mountpoint: str, options: MountOptions) -> Iterator[KernelServed]:
    """Mount a tree by the kernel for the length of a ``with`` block.

    The end of the block unmounts; a mount that stays busy for `unmount_wait` seconds is detached.

    Raises:
        MountError: the kernel cannot serve the tree; nothing stays mounted.
    """
    check_options(options)
    where = check_mountpoint(mountpoint)
    with contextlib.ExitStack() as files:
        served = _mounted(tree, where, options, files)
        try:
            yield served
        finally:
            unmount_kernel(served, options.unmount_wait, force=True)


@asynccontextmanager
async def mounted_by_kernel(
    tree: Tree, mountpoint: str, options: MountOptions
) -> AsyncIterator[KernelServed]:
    """Do what `served_by_kernel` does for an ``async with`` block; a thread waits.

    A cancellation does not leave the tree mounted.
    """
    block = served_by_kernel(tree, mountpoint, options)
    served = await trio.to_thread.run_sync(block.__enter__)
    try:
        yield served
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(block.__exit__, None, None, None)


def _mounted(
    tree: Tree, where: str, options: MountOptions, files: contextlib.ExitStack
) -> KernelServed:
    directories = merged_directories(tree)
    check_layers(directories)
    for directory in directories:
        check_apart(directory, where)
    only_fuse = only_fuse_options(options, writable=len(directories) == 1)
    made: list[_Made] = []
    try:
        make = functools.partial(_make, tree, directories, where, options, files)
        choose("kernel", lambda: made.append(make()), only_fuse)
    except (KernelRefusalError, ImageError) as error:
        raise MountError(f"engine=kernel: {where}: {error}") from error
    try:
        remember(where, made[0].kind, options.source_name or made[0].source, "asked for by engine")
        served = kernel_mount_at(where)
    except OSError as error:
        with contextlib.suppress(OSError):
            unmount(where)
        raise MountError(f"{where}: no record of the mount: {error}") from error
    if served is None:
        raise MountError(f"{where}: another process has unmounted it")
    return served


def _make(
    tree: Tree,
    directories: tuple[str, ...],
    where: str,
    options: MountOptions,
    files: contextlib.ExitStack,
) -> _Made:
    if len(directories) == 1:
        mount_directory(directories[0], where, noexec=options.noexec, writable=options.rw)
        return _Made("directory", directories[0])
    if directories:
        mount_layers(directories, where, noexec=options.noexec)
        return _Made("layers", ":".join(directories))
    if isinstance(tree, FrozenTree):
        mount_image(tree.path, where, noexec=options.noexec, intact=False)
        return _Made("image", tree.path)
    image = files.enter_context(frozen_image(tree))
    mount_image(image, where, noexec=options.noexec, intact=False)
    return _Made("image", repr(tree))
