"""``zcfuse freeze`` and ``zcfuse check``, and the images that ``zcfuse mount`` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.cli.frozen._check import check as check
    from zcfuse.cli.frozen._freeze import freeze as freeze
    from zcfuse.cli.frozen._images import is_image_file as is_image_file
    from zcfuse.cli.frozen._images import load_image as load_image
else:
    __getattr__ = lazy(
        __name__,
        {
            "_check": ("check",),
            "_freeze": ("freeze",),
            "_images": ("is_image_file", "load_image"),
        },
    )
