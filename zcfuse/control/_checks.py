"""Checks before a mount: the source, the mount point, and the needs of the options.

Each check raises `MountError` with one line that names the file or the option and the remedy.
The checks change nothing. Commands import this module before the daemon forks, so it must stay
light and start no thread.
"""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from zcfuse.linux import (
    Capability,
    MountEntry,
    MountError,
    has_initial_capability,
    lockable_bytes,
    mount_at,
    resolve_mountpoint,
)
from zcfuse.options import DEFAULT_LOCK_BUDGET, MountOptions
from zcfuse.reasons import push_refusal, reason_line

if TYPE_CHECKING:
    from zcfuse.tree import Lease, Tree

PASSTHROUGH_KERNEL: Final = "6.9"
_RING_PARAMETER: Final = "/sys/module/fuse/parameters/enable_uring"
AUTOFS: Final = "autofs"
_FUSE_CONF: Final = "/etc/fuse.conf"


def check_source(source: str) -> str:
    """Check that a mount can show a directory.

    Returns:
        Its absolute path without symlinks.

    Raises:
        MountError: it is missing, not a directory, or not readable.
    """
    path = os.path.realpath(source)
    _check_directory(path, source, "source")
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except PermissionError as error:
        raise MountError(
            f"source {source}: not readable: give this user read permission on it"
        ) from error
    if not os.access(path, os.X_OK):
        raise MountError(
            f"source {source}: cannot be entered: give this user execute permission on it"
        )
    return path


def check_mountpoint(mountpoint: str) -> str:
    """Check that a directory can become a mount point.

    Returns:
        Its absolute path without symlinks.

    Raises:
        MountError: it is missing, not a directory, or already a mount point.
    """
    path = resolve_mountpoint(mountpoint)
    entry = mount_at(path)
    # systemd's automount waits there for the first client, and stays below the new mount.
    if entry is not None and entry.fstype != AUTOFS:
        raise MountError(f"mount point {mountpoint}: {_busy(entry)}")
    _check_directory(path, mountpoint, "mount point")
    return path


def _busy(entry: MountEntry) -> str:
    where = entry.mountpoint
    if entry.is_ours:
        return f"busy, a zcfuse mount of {entry.source} is there: 'zcfuse umount {where}' first"
    return (
        f"busy, {entry.fstype} ({entry.source}) is mounted there:"
        f" choose another directory, or 'umount {where}' first"
    )


def _check_directory(path: str, given: str, role: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise MountError(
            f"{role} {given}: does not exist: create it, or correct the path", usage=True
        ) from error
    except NotADirectoryError as error:
        raise MountError(
            f"{role} {given}: a part of the path is not a directory", usage=True
        ) from error
    except PermissionError as error:
        raise MountError(
            f"{role} {given}: permission denied: this user may not enter its parents"
        ) from error
    except OSError as error:
        raise MountError(f"{role} {given}: {error.strerror}", usage=True) from error
    if not stat.S_ISDIR(mode):
        raise MountError(f"{role} {given}: not a directory: name a directory", usage=True)


def check_apart(source: str, mountpoint: str) -> None:
    """Check that neither directory lies in the other, even through bind mounts.

    Parameters:
        source, mountpoint: paths as `check_source` and `check_mountpoint` return them.

    Raises:
        MountError: they overlap, so the mount would show itself or hide its source.
    """
    if _same(source, mountpoint):
        raise MountError(
            f"source and mount point are the same directory {source}: choose another one",
            usage=True,
        )
    if _contains(source, mountpoint):
        raise MountError(
            f"mount point {mountpoint}: lies inside the source {source}: choose one outside",
            usage=True,
        )
    if _contains(mountpoint, source):
        raise MountError(
            f"source {source}: lies inside the mount point {mountpoint}: choose one outside",
            usage=True,
        )


def check_layers(layers: Sequence[str]) -> None:
    """Check that no layer lies in another.

    Parameters:
        layers: paths as `check_source` returns them.

    Raises:
        MountError: two layers overlap, so a directory would appear inside itself.
    """
    for at, layer in enumerate(layers):
        for other in layers[:at]:
            if _same(layer, other) or _contains(layer, other) or _contains(other, layer):
                raise MountError(
                    f"layer {layer}: overlaps with the layer {other}: name directories that lie"
                    " in none of the others",
                    usage=True,
                )


def _contains(directory: str, path: str) -> bool:
    while path != "/":
        path = os.path.dirname(path)
        if _same(directory, path):
            return True
    return False


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return os.path.samestat(os.stat(one), os.stat(other))
    except OSError:
        return False


def check_options(options: MountOptions) -> None:
    """Check that the machine and this process's privileges permit the options.

    Raises:
        MountError: one of the options is not permitted or not available.
    """
    if options.path == "passthrough" and not has_initial_capability(Capability.SYS_ADMIN):
        raise MountError(
            "--path passthrough: not permitted: it needs CAP_SYS_ADMIN;"
            " run as root, or use --path auto"
        )
    if options.transport == "uring":
        _check_rings()
    if options.allow_other:
        _check_allow_other()
    if options.lock_budget is not None:
        _check_lock_budget(options.lock_budget)


def _check_rings() -> None:
    try:
        with open(_RING_PARAMETER, encoding="ascii") as file:
            why = "" if file.read().strip() in ("Y", "1") else "ring_switched_off"
    except OSError:
        why = "ring_not_in_kernel"
    if why:
        raise MountError(f"--transport uring: {reason_line(why)}, or use --transport auto")


def _check_allow_other() -> None:
    # If this user cannot read the file, let fusermount3 decide, which reads it as root.
    if os.geteuid() == 0:
        return
    try:
        with open(_FUSE_CONF, encoding="utf-8", errors="replace") as file:
            allowed = any(line.strip() == "user_allow_other" for line in file)
    except FileNotFoundError:
        allowed = False
    except OSError:
        return
    if not allowed:
        raise MountError(
            "--allow-other: not permitted:"
            f" root must put a line 'user_allow_other' into {_FUSE_CONF}, or run as root"
        )


def _check_lock_budget(budget: int) -> None:
    room = lockable_bytes()
    if room is not None and budget > room:
        raise MountError(
            f"--lock-budget {budget}: beyond the {room} bytes that this process may lock:"
            " give less, raise 'ulimit -l', or run as root"
        )


def chosen_lock_budget(options: MountOptions) -> int:
    """Return the lock budget in bytes: as demanded, or up to 64 MiB of the limit."""
    if options.lock_budget is not None:
        return options.lock_budget
    room = lockable_bytes()
    return DEFAULT_LOCK_BUDGET if room is None else min(DEFAULT_LOCK_BUDGET, room)


def no_kernel_passthrough() -> MountError:
    """Return the error for a kernel that did not offer passthrough in its INIT request."""
    return MountError(
        f"--path passthrough: this kernel ({platform.release()}) does not offer it: it needs"
        f" Linux {PASSTHROUGH_KERNEL} or later with CONFIG_FUSE_PASSTHROUGH; use --path auto"
    )


class Serving(NamedTuple):
    """How a mount came to serve: its channel, and why it has no ring or pushes no changes.

    `silent_opens`: whether opens of an immutable mount send no message.
    """

    transport: str = ""
    no_ring: str = ""
    no_push: str = ""
    silent_opens: bool = True


def shortfalls(tree: Tree, options: MountOptions, serving: Serving | None) -> list[str]:
    """Return a line for each option that cannot do for this tree what it promises.

    The mount works without it, only slower or with staler answers; an option that would do harm is
    refused instead. To be asked once the mount answers. `serving` is None without a data path.
    """
    lines = _of_the_tree(tree, options)
    if serving is None:
        unused = [name for name in ("threads", "hot_files") if not _is_default(options, name)]
        return lines + [
            f"{name}: path naive has no data path, so it has no effect" for name in unused
        ]
    if options.immutable and not serving.silent_opens:
        lines.append(
            "immutable: the files are large, so the kernel reads them itself (passthrough), and"
            " each open still sends a message"
        )
    if serving.no_push:
        lines.append(f"coherence={options.coherence}: {push_refusal(serving.no_push)}")
    on_ring = serving.transport == "uring"
    if options.transport == "uring" and not on_ring:
        lines.append(f"transport=uring: {reason_line(serving.no_ring)}")
    if on_ring and options.path in ("mmap", "splice"):
        lines.append(f"path={options.path}: io_uring takes no page references, so bytes are copied")
    if on_ring and options.threads:
        lines.append("threads: over io_uring one thread for each processor serves")
    return lines


def _of_the_tree(tree: Tree, options: MountOptions) -> list[str]:
    lines = []
    lease = tree.lease_of(tree.root) if options.immutable or options.pushes else None
    if options.immutable and (why := _not_whole(lease)):
        lines.append(f"immutable: {why}, so each open still sends a message")
    by_value = lease is None or lease.described is not None
    if options.pushes and by_value and next(tree.renewables(), None) is None:
        lines.append(
            f"coherence={options.coherence}: this tree is no directory, so its files are looked at"
            " again after the cache timeout"
        )
    asks = tree.root.volatile and tree.lease_of(tree.root) is None
    if asks and not _is_default(options, "cache_timeout"):
        lines.append(
            "cache_timeout: a policy answers each client, so the kernel caches no name of it"
        )
    return lines


def _is_default(options: MountOptions, name: str) -> bool:
    return bool(getattr(options, name) == getattr(MountOptions(), name))


def _not_whole(lease: Lease | None) -> str:
    """Return why the data path does not answer for the whole of a tree, "" where it does."""
    if lease is None:
        return "Python answers for this tree"
    if any(layer.described is not None for layer in lease.layers):
        return "Python answers for the layers that a program describes"
    if lease.kept:
        return f"the tree keeps {len(lease.kept)} of its paths for its own policy"
    if lease.described is not None and lease.described.forwarded:
        return f"Python answers for {lease.described.forwarded:,} of its entries"
    return ""
