"""Describes how the kernel serves the source of a command line without a daemon."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from zcfuse.frozen import FrozenTree


class ByKernel(NamedTuple):
    """A mount by the kernel. `mount` takes the mount point and whether the mount is ``noexec``.

    `kind` and `source` name the mount. `automatic` says whether ``--engine auto`` chooses it.
    `tell` takes the reason why FUSE serves the tree after all.
    """

    kind: str
    source: str
    mount: Callable[..., None]
    automatic: bool = False
    tell: Callable[[str], None] = lambda reason: None


def image_by_kernel(tree: FrozenTree) -> ByKernel:
    """Return how the kernel mounts an intact image."""
    from zcfuse.engine import mount_image

    def tell(reason: str) -> None:
        tree.engine_reason = reason

    mount = functools.partial(mount_image, tree.path, intact=False)
    return ByKernel("image", tree.path, mount, automatic=True, tell=tell)


def directory_by_kernel(source: str) -> ByKernel:
    """Return how the kernel mounts a directory."""

    def mount(where: str, *, noexec: bool) -> None:
        from zcfuse.engine import mount_directory

        mount_directory(source, where, noexec=noexec)

    return ByKernel("directory", source, mount)


def layers_by_kernel(layers: tuple[str, ...]) -> ByKernel:
    """Return how the kernel mounts layers, the topmost first."""

    def mount(where: str, *, noexec: bool) -> None:
        from zcfuse.engine import mount_layers

        mount_layers(layers, where, noexec=noexec)

    return ByKernel("layers", ":".join(layers), mount)
