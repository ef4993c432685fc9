"""Waiting in tests: for something to happen, within a bound, or for a time that a test is about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

DEADLINE_S: Final = 15.0
_POLL_S: Final = 0.01


def eventually(happened: Callable[[], object], seconds: float = DEADLINE_S) -> bool:
    """Return whether something happens within a generous bound."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def let_pass(seconds: float) -> None:
    """Let a time pass that nothing announces: a cache timeout, a tick of a filesystem's clock."""
    time.sleep(seconds)
