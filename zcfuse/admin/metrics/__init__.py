"""The status document as Prometheus metrics, in text and over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.admin.metrics._collector import exposition as exposition
    from zcfuse.admin.metrics._server import MetricsServer as MetricsServer
else:
    __getattr__ = lazy(
        __name__,
        {
            "_collector": ("exposition",),
            "_server": ("MetricsServer",),
        },
    )
