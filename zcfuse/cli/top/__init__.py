"""``zcfuse top``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.cli.top._command import top as top
else:
    __getattr__ = lazy(
        __name__,
        {
            "_command": ("top",),
        },
    )
