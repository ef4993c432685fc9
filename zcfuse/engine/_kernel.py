"""Mounting by the kernel alone: an image, a directory, layers.

Each function checks first, makes a mount that is nowhere, and puts it in place as its last step. A
failure therefore leaves nothing mounted, and FUSE can serve the same tree.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from zcfuse.engine._loop import read_only_loop
from zcfuse.frozen import About, Device, FreezeError, FrozenImage, Options, freeze
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
from zcfuse.tree import Tree

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


@contextlib.contextmanager
def frozen_image(tree: Tree) -> Iterator[str]:
    """Freeze a tree into a private image for the length of a ``with`` block.

    Yields its path, for `mount_image`. A mount of it outlasts the block.

    Raises:
        KernelRefusalError: this user may not mount it, or the tree cannot be frozen.
    """
    _require_root()
    with _refusals():
        directory = os.path.realpath(tempfile.mkdtemp(prefix="zcfuse-image-"))
    try:
        path = os.path.join(directory, "tree.zcf")
        with _refusals():
            _write(tree, path)
        yield path
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _write(tree: Tree, path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        freeze(tree, fd, Options(source=repr(tree)))
    except FreezeError as error:
        raise KernelRefusalError(str(error)) from error
    finally:
        os.close(fd)


def mount_directory(
    source: str, mountpoint: str, *, noexec: bool = False, writable: bool = False
) -> None:
    """Mount a directory by a bind mount; what is mounted below it is left out.

    Raises:
        KernelRefusalError: the kernel refused.
    """
    _require_root()
    with _refusals():
        mount = cloned_mount(source, _attributes(noexec=noexec, writable=writable))
        try:
            put_at(mount, mountpoint)
        finally:
            os.close(mount)


class Upper(msgspec.Struct, frozen=True):
    """Where a union keeps changes: the directory of changed files, and one to prepare them in.

    Both lie on one filesystem, and neither in the other. `metacopy` and `redirect_dir` are the
    options of overlayfs.
    """

    directory: str
    work: str
    metacopy: bool = False
    redirect_dir: bool = False


def mount_layers(
    layers: Sequence[str], mountpoint: str, *, noexec: bool = False, upper: Upper | None = None
) -> None:
    """Mount directories merged, the topmost first, by overlayfs: read-only without `upper`.

    Raises:
        KernelRefusalError: overlayfs takes no such layers, or the kernel refused.
    """
    _require_root()
    if not (1 if upper else 2) <= len(layers) <= _MOST_LAYERS:
        raise KernelRefusalError(f"overlayfs merges 2 to {_MOST_LAYERS} layers")
    with contextlib.ExitStack() as opened, _refusals():
        settings: list[Setting] = [(b"source", b"zcfuse")]
        settings += [(b"lowerdir+", _directory(layer, opened)) for layer in layers]
        if upper is None:
            settings += [(b"metacopy", b"on"), (b"redirect_dir", b"follow"), (b"ro", None)]
        else:
            settings += [(b"upperdir", _directory(upper.directory, opened))]
            settings += [(b"workdir", _directory(upper.work, opened))]
            # Overlayfs has no metacopies without redirects.
            redirects = upper.redirect_dir or upper.metacopy
            settings += [(b"metacopy", b"on" if upper.metacopy else b"off")]
            settings += [(b"redirect_dir", b"on" if redirects else b"follow")]
        attributes = _attributes(noexec=noexec, writable=upper is not None)
        mount = new_mount(b"overlay", settings, attributes)
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
    if about.verity:
        settings.append((b"verity", b"on"))
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


def _attributes(*, noexec: bool, writable: bool = False) -> int:
    restricted = (ATTR_NOEXEC if noexec else 0) | (0 if writable else ATTR_RDONLY)
    return restricted | ATTR_NOSUID | ATTR_NODEV


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
