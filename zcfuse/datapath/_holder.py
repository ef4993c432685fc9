"""Where the holder's program is: beside the compiled part."""

from __future__ import annotations

import importlib.util
import os
from typing import Final

_NAME: Final = "zcfuse-holder"


def holder_program() -> str:
    """Return the path of the program that keeps a mount over the death of its daemon.

    Raises:
        FileNotFoundError: the package is not complete.
    """
    found = importlib.util.find_spec("zcfuse.datapath._native")
    if found is None or found.origin is None:
        raise FileNotFoundError(f"{_NAME}: the compiled part of zcfuse is missing")
    return os.path.join(os.path.dirname(found.origin), _NAME)
