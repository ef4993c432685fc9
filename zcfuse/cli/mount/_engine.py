"""Mounts without a daemon if ``--engine`` allows it and the kernel can serve the source."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from zcfuse.linux import MountError, unmount
from zcfuse.options import MountOptions

if TYPE_CHECKING:
    from zcfuse.cli.mount._shown import Prepared

ENGINES: Final = ("auto", "kernel", "fuse")


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
            f"--engine kernel: {shown.name}: the kernel serves directories, layers, archives"
            " and images: use 'zcfuse freeze' first",
            usage=True,
        )
    # Without --allow-other other users must not enter, as they may where the kernel serves.
    promised = options.immutable and options.allow_other
    automatic = plan is not None and (plan.automatic or promised)
    if plan is None or engine == "fuse" or (engine == "auto" and not automatic):
        return False
    from zcfuse.engine import KernelRefusalError, choose, only_fuse_options, remember

    further = [*(["--hide"] if shown.hides else []), *(["--foreground"] if foreground else [])]
    only_fuse = only_fuse_options(options, writable=plan.writable, further=further)

    def mount() -> None:
        plan.mount(shown.where, noexec=options.noexec, writable=options.rw)

    try:
        why = "a frozen tree needs no FUSE" if plan.automatic else "an immutable tree needs no FUSE"
        chosen = choose(engine, mount, only_fuse, why)
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
