"""How a mount serves one file, and why it uses no better path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.admin.explain._document import BackingPart as BackingPart
    from zcfuse.admin.explain._document import Explanation as Explanation
    from zcfuse.admin.explain._document import advice as advice
    from zcfuse.admin.explain._inquiry import explain as explain
else:
    __getattr__ = lazy(
        __name__,
        {
            "_document": (
                "BackingPart",
                "Explanation",
                "advice",
            ),
            "_inquiry": ("explain",),
        },
    )
