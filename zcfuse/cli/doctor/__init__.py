"""``zcfuse doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.cli.doctor._command import doctor as doctor
else:
    __getattr__ = lazy(
        __name__,
        {
            "_command": ("doctor",),
        },
    )
