"""Frozen trees: images that the kernel serves by itself, or FUSE from the same bytes.

`freeze` writes what a tree says into an image of EROFS: names, attributes, and for each file where
its bytes are. `FrozenTree` shows an image as a tree. `check` compares the files that an image names
with what they were. The mounting by the kernel is in `zcfuse.engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.frozen._about import About as About
    from zcfuse.frozen._about import Device as Device
    from zcfuse.frozen._about import is_image as is_image
    from zcfuse.frozen._check import Changed as Changed
    from zcfuse.frozen._check import CheckSummary as CheckSummary
    from zcfuse.frozen._check import check as check
    from zcfuse.frozen._errors import DamagedImageError as DamagedImageError
    from zcfuse.frozen._errors import FreezeError as FreezeError
    from zcfuse.frozen._errors import ImageError as ImageError
    from zcfuse.frozen._freeze import Summary as Summary
    from zcfuse.frozen._freeze import freeze as freeze
    from zcfuse.frozen._image import FrozenImage as FrozenImage
    from zcfuse.frozen._tree import FrozenTree as FrozenTree
    from zcfuse.frozen._walk import Options as Options
    from zcfuse.frozen._walk import Reason as Reason
else:
    __getattr__ = lazy(
        __name__,
        {
            "_about": (
                "About",
                "Device",
                "is_image",
            ),
            "_check": (
                "Changed",
                "CheckSummary",
                "check",
            ),
            "_errors": (
                "DamagedImageError",
                "FreezeError",
                "ImageError",
            ),
            "_freeze": (
                "Summary",
                "freeze",
            ),
            "_image": ("FrozenImage",),
            "_tree": ("FrozenTree",),
            "_walk": (
                "Options",
                "Reason",
            ),
        },
    )
