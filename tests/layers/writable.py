"""A union that clients change, beside the kernel's overlayfs with the same layers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.integration.client import Client, Pair
from tests.layers.conftest import mounted_by
from tests.support import Daemon


@contextmanager
def overlayfs(
    above: Path, layers: Sequence[str], upper: str, mountpoint: str, more: str = ""
) -> Iterator[str]:
    """The kernel's overlayfs, writable, with its default options and `more`.

    All names are below `above`.
    """
    (above / mountpoint).mkdir(exist_ok=True)
    (above / f"{upper}.work").mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(layers)},upperdir={upper},workdir={upper}.work{more}"
    place = str(above / mountpoint)
    with mounted_by("mount", "-t", "overlay", "-o", options, "none", place, cwd=str(above)) as root:
        yield root


@contextmanager
def union(
    above: Path, layers: Sequence[str], upper: str, mountpoint: str, *options: str
) -> Iterator[Daemon]:
    """Ours, of the same directories."""
    daemon = start(above, layers, upper, mountpoint, *options)
    try:
        yield daemon
    finally:
        daemon.unmount()


def start(above: Path, layers: Sequence[str], upper: str, mountpoint: str, *options: str) -> Daemon:
    """The same without an end."""
    (above / mountpoint).mkdir(exist_ok=True)
    words = [word for layer in layers for word in ("--layer", str(above / layer))]
    log = str(above / f"{mountpoint}.log")
    return Daemon(
        "", str(above / mountpoint), "--upper", str(above / upper), *words, *options, log=log
    )


@contextmanager
def both(
    above: Path, layers: Sequence[str], *options: str, uid: int | None = None, kernel: str = ""
) -> Iterator[Pair]:
    """Clients of our union, whose upper layer is "ours", and of overlayfs, whose is "theirs".

    `kernel`: more options of overlayfs, after a comma.
    """
    with ExitStack() as ends:
        for upper in ("ours", "theirs"):
            (above / upper).mkdir(exist_ok=True)
        daemon = ends.enter_context(union(above, layers, "ours", "mnt", *options))
        root = ends.enter_context(overlayfs(above, layers, "theirs", "overlay", kernel))
        mount, native = Client(daemon.mountpoint, daemon, uid=uid), Client(root, uid=uid)
        for client in (mount, native):
            ends.callback(client.close)
        yield Pair(mount, native)


@contextmanager
def swapped(
    above: Path, layers: Sequence[str], *options: str, kernel: str = ""
) -> Iterator[tuple[Client, Client]]:
    """After `both`: clients of our union of what overlayfs wrote, and of overlayfs with ours."""
    with ExitStack() as ends:
        daemon = ends.enter_context(union(above, layers, "theirs", "mnt2", *options))
        root = ends.enter_context(overlayfs(above, layers, "ours", "overlay2", kernel))
        mount, native = Client(daemon.mountpoint, daemon), Client(root)
        for client in (mount, native):
            ends.callback(client.close)
        yield mount, native


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Make a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.chmod(path, mode)


def seen(directory: str) -> list[tuple[object, ...]]:
    """Each path below a directory with its mode, bytes, time and extended attributes."""
    found: list[tuple[object, ...]] = []
    for above, names, files in sorted(os.walk(directory)):
        for name in sorted(names + files):
            path = os.path.join(above, name)
            status = os.lstat(path)
            data = Path(path).read_bytes() if os.path.isfile(path) else b""
            time = 0 if os.path.isdir(path) else status.st_mtime_ns
            xattrs = sorted(os.listxattr(path, follow_symlinks=False))
            found.append((os.path.relpath(path, directory), status.st_mode, data, time, xattrs))
    return found
