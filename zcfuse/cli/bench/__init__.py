"""``zcfuse bench`` and ``zcfuse bench transfer``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.cli.bench._command import bench as bench
    from zcfuse.cli.bench._transfer import transfer as transfer
else:
    __getattr__ = lazy(
        __name__,
        {
            "_command": ("bench",),
            "_transfer": ("transfer",),
        },
    )
