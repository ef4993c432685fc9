"""Choosing the engine of a mount, and the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from zcfuse.engine._kernel import KernelRefusalError
from zcfuse.options import MountOptions

# Both engines have these options, or a tree that the kernel serves does not need them.
_OF_BOTH: Final = frozenset(
    {"noexec", "allow_other", "immutable", "source_name", "survive", "unmount_wait"}
)


class Engine(msgspec.Struct, frozen=True):
    """The engine of a mount, "kernel" or "fuse", and the reason for it."""

    name: str
    reason: str


def choose(
    wanted: str,
    mount: Callable[[], None],
    only_fuse: str = "",
    why: str = "a frozen tree needs no FUSE",
) -> Engine:
    """Mount by the kernel where that is wanted and possible, and say which engine serves.

    Parameters:
        wanted: ``auto``, ``kernel`` or ``fuse``.
        mount: mounts by the kernel, or raises KernelRefusalError with nothing mounted.
        only_fuse: the options given that only FUSE has; empty if there are no such options.
        why: the reason for the kernel where ``auto`` chooses it.

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
    return Engine("kernel", "asked for by --engine kernel" if wanted == "kernel" else why)


def only_fuse_options(options: MountOptions, *, writable: bool, further: Iterable[str] = ()) -> str:
    """Return the given options that only FUSE has, as text; empty without such options.

    Parameters:
        options: of the mount.
        writable: whether the kernel can mount the tree for changes.
        further: names of others.
    """
    usual = MountOptions(rw=options.rw and writable)
    names = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(MountOptions)
        if field.name not in _OF_BOTH and getattr(options, field.name) != getattr(usual, field.name)
    ]
    return " and ".join([*names, *further])
