"""The kernel as the engine of a whole mount: it answers every request, and no process serves it.

An image is mounted by EROFS, under overlayfs where it names whole files. Layers are mounted by
overlayfs, and a directory by a bind mount. A record in ``/run/zcfuse-kernel`` says which mounts are
ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.engine._choice import Engine as Engine
    from zcfuse.engine._choice import choose as choose
    from zcfuse.engine._choice import only_fuse_options as only_fuse_options
    from zcfuse.engine._kernel import KernelRefusalError as KernelRefusalError
    from zcfuse.engine._kernel import Upper as Upper
    from zcfuse.engine._kernel import frozen_image as frozen_image
    from zcfuse.engine._kernel import mount_directory as mount_directory
    from zcfuse.engine._kernel import mount_image as mount_image
    from zcfuse.engine._kernel import mount_layers as mount_layers
    from zcfuse.engine._records import KernelServed as KernelServed
    from zcfuse.engine._records import Record as Record
    from zcfuse.engine._records import forget as forget
    from zcfuse.engine._records import kernel_mount_at as kernel_mount_at
    from zcfuse.engine._records import kernel_mounts as kernel_mounts
    from zcfuse.engine._records import remember as remember
    from zcfuse.engine._unmount import unmount_kernel as unmount_kernel
else:
    __getattr__ = lazy(
        __name__,
        {
            "_choice": (
                "Engine",
                "choose",
                "only_fuse_options",
            ),
            "_kernel": (
                "KernelRefusalError",
                "Upper",
                "frozen_image",
                "mount_directory",
                "mount_image",
                "mount_layers",
            ),
            "_records": (
                "KernelServed",
                "Record",
                "forget",
                "kernel_mount_at",
                "kernel_mounts",
                "remember",
            ),
            "_unmount": ("unmount_kernel",),
        },
    )
