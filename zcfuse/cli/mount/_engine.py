"""Mounts without a daemon if ``--engine`` allows it and the kernel can serve the source."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Final

from zcfuse.linux import MountError, unmount
from zcfuse.options import MountOptions

if TYPE_CHECKING:
    from zcfuse.cli.mount._shown import Prepared

ENGINES: Final = ("auto", "kernel", "fuse")

# Both engines have these options, or an image does not need them.
_OF_BOTH: Final = frozenset({"noexec", "allow_other", "immutable", "source_name", "survive"})


def mounted_by_kernel(
    shown: Prepared, engine: str, options: MountOptions, *, foreground: bool
) -> bool:
    """Mount by the kernel if that is wanted and possible; return whether the kernel mounted it.

    Parameters:
        shown: what to mount, and where.
        engine: one of ENGINES.
        options: of the mount; most of them only FUSE has.
        foreground: whether the user wants a daemon in the foreground.

    Raises:
        MountError: the user demands the kernel, which cannot serve it; nothing is mounted.
    """
    plan = shown.by_kernel
    if plan is None and engine == "kernel":
        raise MountError(
            f"--engine kernel: {shown.name}: the kernel serves directories, layers and images:"
            " use 'zcfuse freeze' first",
            usage=True,
        )
    if plan is None or engine == "fuse" or (engine == "auto" and not plan.automatic):
        return False
    from zcfuse.engine import KernelRefusalError, choose, remember

    only_fuse = _only_fuse(options, foreground=foreground, hides=shown.hides)
    try:
        chosen = choose(engine, lambda: plan.mount(shown.where, noexec=options.noexec), only_fuse)
    except KernelRefusalError as error:
        raise MountError(f"--engine kernel: {shown.where}: {error}") from error
    if chosen.name == "fuse":
        plan.tell(chosen.reason)
        return False
    try:
        remember(shown.where, plan.kind, plan.source, chosen.reason)
    except OSError as error:
        with contextlib.suppress(OSError):
            unmount(shown.where)
        raise MountError(f"{shown.where}: no record of the mount: {error}") from error
    return True


def _only_fuse(options: MountOptions, *, foreground: bool, hides: bool) -> str:
    """Return the given options that only FUSE has, as text; empty without such options."""
    usual = MountOptions()
    names = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(MountOptions)
        if field.name not in _OF_BOTH and getattr(options, field.name) != getattr(usual, field.name)
    ]
    names += ["--hide"] if hides else []
    return " and ".join([*names, *(["--foreground"] if foreground else [])])
