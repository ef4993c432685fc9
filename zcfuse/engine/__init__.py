"""The kernel as the engine of a whole mount: it answers every request, and no process serves it.

An image is mounted by EROFS, under overlayfs where it names whole files. Layers are mounted by
overlayfs, and a directory by a bind mount. A record in ``/run/zcfuse`` says which mounts are ours.
"""

from zcfuse.engine._choice import Engine, choose
from zcfuse.engine._kernel import (
    KernelRefusalError,
    mount_directory,
    mount_image,
    mount_layers,
)
from zcfuse.engine._records import (
    KernelServed,
    forget,
    kernel_mount_at,
    kernel_mounts,
    remember,
)
from zcfuse.engine._unmount import unmount_kernel

__all__ = [
    "Engine",
    "KernelRefusalError",
    "KernelServed",
    "choose",
    "forget",
    "kernel_mount_at",
    "kernel_mounts",
    "mount_directory",
    "mount_image",
    "mount_layers",
    "remember",
    "unmount_kernel",
]
