"""Answers of the commands about mounts that the kernel serves by itself, without a daemon."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from zcfuse.admin.status import printable
from zcfuse.cli._errors import CommandError, warn
from zcfuse.cli._output import print_json, print_pairs

if TYPE_CHECKING:
    from zcfuse.engine import KernelServed
    from zcfuse.frozen import FrozenTree
    from zcfuse.tree import Node

_BUSY: Final = ": end the programs that use it, or detach it by --force or --lazy"
_EXPLAINED: Final = {
    "image": "EROFS reads the image, and the kernel reads the backing files",
    "archive": "EROFS reads the members from blocks of the archive",
    "layers": "overlayfs merges the layers",
    "directory": "the directory is mounted a second time (bind mount)",
}


def kernel_mounts() -> list[KernelServed]:
    """Return the zcfuse mounts that the kernel serves."""
    from zcfuse.engine import kernel_mounts as known

    return known()


def kernel_served(mountpoint: str) -> KernelServed | None:
    """Return the mount at a path; None if the kernel serves no zcfuse mount there."""
    from zcfuse.engine import kernel_mount_at

    return kernel_mount_at(mountpoint)


def unmounted_from_kernel(mountpoint: str, wait: float, *, force: bool, lazy: bool) -> bool:
    """Unmount the kernel's mount at a path; return whether the kernel served one there.

    Raises:
        CommandError: the kernel refused to unmount it.
    """
    served = kernel_served(mountpoint)
    if served is None:
        return False
    if os.geteuid() != 0:
        raise CommandError(f"{mountpoint}: the kernel serves it: only root may unmount; use sudo")
    leave_kernel(served, wait, force=force, lazy=lazy)
    return True


def leave_kernel(served: KernelServed, wait: float, *, force: bool, lazy: bool) -> None:
    """Unmount a mount of the kernel, as root.

    Raises:
        CommandError: the kernel refused to unmount it.
    """
    from zcfuse.engine import unmount_kernel

    outcome = unmount_kernel(served, 0 if lazy else wait, force=force or lazy)
    if outcome.failed:
        raise CommandError(f"{outcome.message}{_BUSY if outcome.busy else ''}")
    if outcome.message and not lazy:
        warn(f"zcfuse: {outcome.message}")


def print_kernel_mount(served: KernelServed, *, as_json: bool) -> None:
    """Print what the records say about a mount; the kernel counts nothing for it."""
    record, entry = served.record, served.entry
    told: dict[str, object] = {
        "source": record.source,
        "mountpoint": printable(entry.mountpoint),
        "device": f"{entry.major}:{entry.minor}",
        "engine": "kernel",
        "engine_reason": record.reason,
        "kind": record.kind,
        "filesystem": entry.fstype,
        "uptime_s": time.time() - record.mounted_s,
    }
    if as_json:
        print_json(told)
        return
    names = {"mountpoint": "mount point", "engine_reason": "because", "uptime_s": "uptime"}
    told["uptime_s"] = f"{time.time() - record.mounted_s:.0f} s"
    told["process"] = "none: no daemon serves the mount, and the kernel counts no requests of it"
    print_pairs("mount", {names.get(name, name): value for name, value in told.items()})


def print_images(images: Mapping[str, object]) -> None:
    """Print which images a daemon serves, and why the kernel does not."""
    for path, told in images.items():
        if isinstance(told, Mapping):
            of = ("source", "files", "directories", "devices")
            pairs = {"image": path, **{name: told.get(name) for name in of}}
            print_pairs("frozen tree", {**pairs, "engine": "fuse", "because": _reason(told)})


def _reason(told: Mapping[str, object]) -> object:
    only = told.get("fuse_only")
    return told.get("engine_reason") or (only[0] if isinstance(only, list) and only else None)


def explained_by_kernel(file: str, *, as_json: bool) -> bool:
    """Say how a file is served if the kernel serves its mount; return whether it does."""
    mounts = kernel_mounts()
    if not mounts:
        return False  # resolving the path may wait for a daemon that does not answer
    path = os.path.realpath(file)
    above = [one for one in mounts if _is_inside(path, one.entry.mountpoint)]
    if not above:
        return False
    served = max(above, key=lambda one: len(one.entry.mountpoint))
    if not os.path.lexists(path):
        raise CommandError(f"{file}: No such file or directory")
    record = served.record
    told = {
        "file": printable(path),
        "mount point": printable(served.entry.mountpoint),
        "engine": "kernel",
        "because": record.reason,
        "how": _EXPLAINED[record.kind],
        "bytes": _bytes_of(served, path),
        "advice": "no request leaves the kernel: nothing would make it faster",
    }
    if as_json:
        print_json(told)
    else:
        print_pairs("file", told)
    return True


def _bytes_of(served: KernelServed, path: str) -> str:
    """Return where the bytes of a file of an image lie, if this process can read the image."""
    if served.record.kind != "image":
        return f"those of the {'archive' if served.record.kind == 'archive' else 'backing file'}"
    from zcfuse.frozen import FrozenTree, ImageError

    try:
        tree = FrozenTree(served.entry.source)
    except (OSError, ImageError) as error:
        return f"unknown: {error}"
    try:
        return _described(tree, os.path.relpath(path, served.entry.mountpoint))
    finally:
        tree.close()


def _described(tree: FrozenTree, relative: str) -> str:
    node: Node = tree.root
    for name in os.fsencode(relative).split(b"/"):
        node, _ = tree.lookup(node, name)
    return printable(tree.describe(node))


def _is_inside(path: str, mountpoint: str) -> bool:
    return path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/")
