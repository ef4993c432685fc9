"""Frozen trees: images that the kernel serves by itself, or FUSE from the same bytes.

`freeze` writes what a tree says into an image of EROFS: names, attributes, and for each file where
its bytes are. `FrozenTree` shows an image as a tree. `check` compares the files that an image names
with what they were. The mounting by the kernel is in `zcfuse.engine`.
"""

from zcfuse.frozen._about import About, Device, is_image
from zcfuse.frozen._check import Changed, CheckSummary, check
from zcfuse.frozen._errors import DamagedImageError, FreezeError, ImageError
from zcfuse.frozen._freeze import Summary, freeze
from zcfuse.frozen._image import FrozenImage
from zcfuse.frozen._tree import FrozenTree
from zcfuse.frozen._walk import Options, Reason

__all__ = [
    "About",
    "Changed",
    "CheckSummary",
    "DamagedImageError",
    "Device",
    "FreezeError",
    "FrozenImage",
    "FrozenTree",
    "ImageError",
    "Options",
    "Reason",
    "Summary",
    "check",
    "freeze",
    "is_image",
]
