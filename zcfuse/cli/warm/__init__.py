"""``zcfuse warm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.cli.warm._command import warm as warm
else:
    __getattr__ = lazy(
        __name__,
        {
            "_command": ("warm",),
        },
    )
