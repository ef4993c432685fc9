"""Describes how the kernel serves the source of a command line without a daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from zcfuse.engine import Upper
    from zcfuse.frozen import FrozenTree
    from zcfuse.tree.archive import Archive


class ByKernel(NamedTuple):
    """A mount by the kernel. `mount` takes the mount point, `noexec` and `writable`.

    `kind` and `source` name the mount. `automatic` says whether ``--engine auto`` chooses it; of a
    tree that the user promises not to change it always does. `writable` says whether clients may
    change what it shows. `tell` takes the reason why FUSE serves the tree after all.
    """

    kind: str
    source: str
    mount: Callable[..., None]
    automatic: bool = False
    writable: bool = False
    tell: Callable[[str], None] = lambda reason: None


def image_by_kernel(tree: FrozenTree) -> ByKernel:
    """Return how the kernel mounts an intact image."""
    from zcfuse.engine import mount_image

    def tell(reason: str) -> None:
        tree.engine_reason = reason

    def mount(where: str, *, noexec: bool, writable: bool) -> None:
        mount_image(tree.path, where, noexec=noexec, intact=False)

    return ByKernel("image", tree.path, mount, automatic=True, tell=tell)


def archive_by_kernel(archive: Archive, source: str) -> ByKernel:
    """Return how the kernel mounts an archive: from an image, of which it is a device."""

    def tell(reason: str) -> None:
        archive.engine_reason = reason

    def mount(where: str, *, noexec: bool, writable: bool) -> None:
        from zcfuse.engine import KernelRefusalError, frozen_image, mount_image

        if archive.index.container != "tar":
            raise KernelRefusalError(f"{source}: the kernel serves tar without compression only")
        with frozen_image(archive) as image:
            mount_image(image, where, noexec=noexec, intact=False)

    return ByKernel("archive", source, mount, tell=tell)


def directory_by_kernel(source: str) -> ByKernel:
    """Return how the kernel mounts a directory."""

    def mount(where: str, *, noexec: bool, writable: bool) -> None:
        from zcfuse.engine import mount_directory

        mount_directory(source, where, noexec=noexec, writable=writable)

    return ByKernel("directory", source, mount, writable=True)


def layers_by_kernel(layers: tuple[str, ...], upper: Upper | None = None) -> ByKernel:
    """Return how the kernel mounts layers, the topmost first; changes go to `upper`."""

    def mount(where: str, *, noexec: bool, writable: bool) -> None:
        from zcfuse.engine import mount_layers

        mount_layers(layers, where, noexec=noexec, upper=upper)

    if upper is None:
        return ByKernel("layers", ":".join(layers), mount)
    source = ":".join((upper.directory, *layers))
    return ByKernel("layers", source, mount, writable=True)
