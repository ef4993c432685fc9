"""Choosing the engine of a mount, and the reason."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from zcfuse.engine._kernel import KernelRefusalError


class Engine(msgspec.Struct, frozen=True):
    """The engine of a mount, "kernel" or "fuse", and the reason for it."""

    name: str
    reason: str


def choose(wanted: str, mount: Callable[[], None], only_fuse: str = "") -> Engine:
    """Mount by the kernel where that is wanted and possible, and say which engine serves.

    Parameters:
        wanted: ``auto``, ``kernel`` or ``fuse``.
        mount: mounts by the kernel, or raises KernelRefusalError with nothing mounted.
        only_fuse: the options given that only FUSE has; empty if there are no such options.

    Returns:
        The engine. With "fuse" nothing is mounted yet.

    Raises:
        KernelRefusalError: `wanted` is "kernel" and the kernel does not serve the tree.
    """
    if wanted == "fuse":
        return Engine("fuse", "asked for by --engine fuse")
    if only_fuse and wanted == "auto":
        return Engine("fuse", f"only FUSE gives {only_fuse}")
    if only_fuse:
        raise KernelRefusalError(f"only FUSE gives {only_fuse}")
    try:
        mount()
    except KernelRefusalError as error:
        if wanted == "kernel":
            raise
        return Engine("fuse", str(error))
    reason = "asked for by --engine kernel" if wanted == "kernel" else "a frozen tree needs no FUSE"
    return Engine("kernel", reason)
