"""Mounting by the kernel alone: an image, a directory, layers.

Each function checks first, makes a mount that is nowhere, and puts it in place as its last step. A
failure therefore leaves nothing mounted, and FUSE can serve the same tree.
"""

from __future__ import annotations

import contextlib
import os
import resource
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from zcfuse.engine._loop import read_only_loop
from zcfuse.frozen import About, Device, FrozenImage
from zcfuse.linux import (
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    LONGEST_STRING,
    Capability,
    Setting,
    cloned_mount,
    has_initial_capability,
    new_mount,
    put_at,
)

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_LAYERS: Final = 500  # overlayfs


class KernelRefusalError(Exception):
    """The kernel does not serve this tree by itself; the text says why."""


def mount_image(path: str, mountpoint: str, *, noexec: bool = False, intact: bool = True) -> None:
    """Mount an image by EROFS, and by overlayfs over it where it names whole files.

    Parameters:
        path: of the image, absolute and without symlinks.
        mountpoint: an existing directory, absolute and without symlinks.
        noexec: whether programs on it may not be run.
        intact: whether to compare the digest of the image first.

    Raises:
        KernelRefusalError: the image may not be mounted so, or the kernel refused.
        ImageError: the image cannot be used.
    """
    _require_root()
    require_trusted(path)
    image = FrozenImage(path, intact=intact)
    attributes = _attributes(noexec=noexec)
    with contextlib.ExitStack() as opened, _refusals():
        opened.callback(image.close)
        about = image.about
        if about.fuse_only:
            raise KernelRefusalError(about.fuse_only[0])
        devices = [_opened_device(device, opened) for device in about.devices]
        mount = _erofs(path, devices, attributes, opened)
        if about.roots:
            mount = _overlaid(path, about, mount, attributes, opened)
        put_at(mount, mountpoint)


def mount_directory(source: str, mountpoint: str, *, noexec: bool = False) -> None:
    """Mount a directory read-only by a bind mount; what is mounted below it is left out.

    Raises:
        KernelRefusalError: the kernel refused.
    """
    _require_root()
    with _refusals():
        mount = cloned_mount(source, _attributes(noexec=noexec))
        try:
            put_at(mount, mountpoint)
        finally:
            os.close(mount)


def mount_layers(layers: Sequence[str], mountpoint: str, *, noexec: bool = False) -> None:
    """Mount directories merged, the topmost first, by overlayfs and read-only.

    Raises:
        KernelRefusalError: overlayfs takes no such layers, or the kernel refused.
    """
    _require_root()
    if not 1 < len(layers) <= _MOST_LAYERS:
        raise KernelRefusalError(f"overlayfs merges 2 to {_MOST_LAYERS} layers")
    with contextlib.ExitStack() as opened, _refusals():
        settings: list[Setting] = [(b"source", b"zcfuse")]
        settings += [(b"lowerdir+", _directory(layer, opened)) for layer in layers]
        settings += [(b"metacopy", b"on"), (b"redirect_dir", b"follow"), (b"ro", None)]
        mount = new_mount(b"overlay", settings, _attributes(noexec=noexec))
        opened.callback(os.close, mount)
        put_at(mount, mountpoint)


def require_trusted(path: str) -> None:
    """Require that only root can have written an image, and that only root can replace it.

    Raises:
        KernelRefusalError: another user could.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise KernelRefusalError("the image is not a regular file")
    while True:
        shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if status.st_uid or shared:
            raise KernelRefusalError(
                f"{path} can be changed by others than root: the kernel reads root's images only"
            )
        if path == "/":
            return
        path = os.path.dirname(path)
        status = os.lstat(path)


def _erofs(path: str, devices: Sequence[int], attributes: int, opened: contextlib.ExitStack) -> int:
    """Mount the image itself nowhere: from its file, or where that cannot be from a loop device."""
    source = os.fsencode(path)
    if len(source) > LONGEST_STRING:
        raise KernelRefusalError(f"the path of the image is longer than {LONGEST_STRING} bytes")
    settings: list[Setting] = [(b"source", source), (b"ro", None)]
    settings += [(b"device", b"/proc/self/fd/%d" % device) for device in devices]
    try:
        mount = new_mount(b"erofs", settings, attributes)
    except OSError as error:
        if devices:
            raise
        # A filesystem that EROFS cannot read files of, such as tmpfs, or Linux before 6.12.
        with read_only_loop(path, error) as loop:
            mount = new_mount(b"erofs", [(b"source", loop), (b"ro", None)], attributes)
    opened.callback(os.close, mount)
    return mount


def _overlaid(
    path: str, about: About, mount: int, attributes: int, opened: contextlib.ExitStack
) -> int:
    settings: list[Setting] = [
        (b"source", os.fsencode(path)),
        (b"lowerdir+", mount),
        *((b"datadir+", _directory(os.fsdecode(root), opened)) for root in about.roots),
        (b"metacopy", b"on"),
        (b"ro", None),
    ]
    overlaid = new_mount(b"overlay", settings, attributes)
    opened.callback(os.close, overlaid)
    return overlaid


def _opened_device(device: Device, opened: contextlib.ExitStack) -> int:
    """Open a file that blocks lie in; refuse one that is no longer what it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fd = os.open(device.path, _READ)
    opened.callback(os.close, fd)
    status = os.fstat(fd)
    if (status.st_size, status.st_mtime_ns) != (device.size, device.mtime_ns):
        name = os.fsdecode(device.path)
        raise KernelRefusalError(f"{name} has changed since it was frozen: freeze the tree again")
    return fd


def _directory(path: str, opened: contextlib.ExitStack) -> int:
    fd = os.open(path, _DIRECTORY)
    opened.callback(os.close, fd)
    return fd


def _attributes(*, noexec: bool) -> int:
    return ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | (ATTR_NOEXEC if noexec else 0)


def _require_root() -> None:
    if os.geteuid() != 0 or not has_initial_capability(Capability.SYS_ADMIN):
        raise KernelRefusalError("only root may mount without FUSE (CAP_SYS_ADMIN)")


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        raise KernelRefusalError(f"{where}{error.strerror}") from error
